package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xtables makes the kernel set up tables of iptables: it does so when somebody asks for
// one. They have no rules.
func (s *server) xtables() error {
	return errors.Join(xtable(unix.AF_INET, "filter"), xtable(unix.AF_INET, "mangle"), xtable(unix.AF_INET, "raw"), xtable(unix.AF_INET, "nat"),
		xtable(unix.AF_INET6, "filter"), xtable(nfARP, "filter"))
}

const nfARP = 3 // NFPROTO_ARP

// xtable asks for a table as iptables does, of the namespace of the network that it runs in.
func xtable(family int, name string) error {
	domain, level, get, size := unix.AF_INET, unix.SOL_IP, uintptr(64), uint32(84) // IPT_SO_GET_INFO, struct ipt_getinfo
	switch family {
	case unix.AF_INET6:
		domain, level = unix.AF_INET6, unix.SOL_IPV6
	case nfARP:
		get, size = 96, 68 // ARPT_SO_GET_INFO, struct arpt_getinfo: three hooks where IP has five
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := make([]byte, size)
	copy(info, name)
	if _, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), get, uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		return fmt.Errorf("table %s of family %d: %w", name, family, e)
	}
	return nil
}
