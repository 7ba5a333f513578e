// Package sysctl is the parameters of a Linux guest's kernel, as below /proc/sys.
package sysctl
