// Package device is the hardware as a Linux guest's kernel sees it: processors, PCI
// devices, disks, drivers, consoles, terminals and the resource trees.
package device
