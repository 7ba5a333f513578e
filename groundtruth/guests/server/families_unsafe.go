package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (s *server) netlink() error {
	var errs []error
	for _, n := range []struct {
		proto  int
		groups uint32
		name   string
	}{
		{unix.NETLINK_ROUTE, 0, "route"},
		{unix.NETLINK_ROUTE, 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1), "route with groups"},
		{unix.NETLINK_SOCK_DIAG, 0, "sock_diag"},
		{unix.NETLINK_KOBJECT_UEVENT, 1, "uevent"},
		{unix.NETLINK_GENERIC, 0, "generic"},
		{unix.NETLINK_AUDIT, 0, "audit"},
		{unix.NETLINK_NETFILTER, 0, "netfilter"},
		{unix.NETLINK_CRYPTO, 0, "crypto"},
		{unix.NETLINK_CONNECTOR, 0, "connector"},
	} {
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, n.proto)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: n.groups})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", n.name, err))
		}
	}
	return errors.Join(errs...)
}

// vsock talks over loopback, which vsock_loopback makes possible.
func (s *server) vsock() error {
	l, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Bind(l, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: 1024}), unix.Listen(l, 4)); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 1024}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	_, err = unix.Write(c, []byte("over vsock"))
	return err
}

// setsockopt passes a structure.
func setsockopt[T any](fd, level, name int, v *T) error {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(v)), unsafe.Sizeof(*v), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// xdpSocket has a memory area of 64 frames and all four rings, bound to one queue.
func (s *server) xdpSocket() error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	const frame, frames = 4096, 64
	area, err := unix.Mmap(-1, 0, frame*frames, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	s.keep = append(s.keep, area)
	// The first form of xdp_umem_reg, which every kernel takes.
	reg := struct {
		addr, len           uint64
		chunkSize, headroom uint32
	}{uint64(uintptr(unsafe.Pointer(&area[0]))), frame * frames, frame, 0}
	if err := setsockopt(fd, unix.SOL_XDP, unix.XDP_UMEM_REG, &reg); err != nil {
		return fmt.Errorf("memory area: %w", err)
	}
	size := uint32(frames)
	for _, ring := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := setsockopt(fd, unix.SOL_XDP, ring, &size); err != nil {
			return fmt.Errorf("ring %d: %w", ring, err)
		}
	}
	index := interfaceIndex("veth-a")
	if index == 0 {
		index = interfaceIndex("lo")
	}
	if err := unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(index), QueueID: 0}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// alg are sockets of the crypto interface, which some programs take keys to.
func (s *server) alg() error {
	var errs []error
	for _, a := range []*unix.SockaddrALG{
		{Type: "hash", Name: "sha256"},
		{Type: "skcipher", Name: "cbc(aes)"},
	} {
		fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, a)
		}
		if err == nil && a.Type == "skcipher" {
			err = unix.SetsockoptString(fd, unix.SOL_ALG, unix.ALG_SET_KEY, "0123456789abcdef")
		}
		if err == nil {
			_, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
			if errno != 0 {
				err = errno
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a.Name, err))
		}
	}
	return errors.Join(errs...)
}

// tap is an interface that lives as long as its descriptor.
func (s *server) tap() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (module tun)", err)
	}
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq("tap0")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("make tap0: %w", err)
	}
	return nil
}
