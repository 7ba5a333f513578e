// Package network is the network of a Linux guest: its namespaces, devices and their
// addresses, routes and rules, neighbours, traffic control, and sockets of all families.
package network
