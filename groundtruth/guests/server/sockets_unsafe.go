package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets that no descriptor leads to are written down here, as nothing in the kernel
// reports them: a line "WAY INODE" for each.
const hiddenSockets = "/run/outsight-hidden-sockets"

// oddSockets are in no usual place, or differ from most in one field.
func (s *server) oddSockets() error {
	return errors.Join(s.unboundSockets(), s.foreignSockets(), s.deviceSockets(), s.mappedSockets(), s.hiddenSockets())
}

// unboundSockets are in none of the tables, or in only one of them.
func (s *server) unboundSockets() error {
	var errs []error
	for _, k := range [][3]int{
		{unix.AF_INET, unix.SOCK_STREAM, 0},
		{unix.AF_INET6, unix.SOCK_DGRAM, 0},
		{unix.AF_UNIX, unix.SOCK_DGRAM, 0},
		{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT},
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	} {
		_, err := unix.Socket(k[0], k[1]|unix.SOCK_CLOEXEC, k[2])
		errs = append(errs, err)
	}
	// Bound, and neither listening nor connected.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: 8097, Addr: localhost4})
	}
	errs = append(errs, err)
	// A member of a group without a port.
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.RTNLGRP_IPV6_PREFIX)
	}
	return errors.Join(append(errs, err)...)
}

// foreignSockets were given to another user.
func (s *server) foreignSockets() error {
	const user, group = 1234, 5678
	datagram, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(datagram, &unix.SockaddrInet4{Port: 5361, Addr: localhost4}), unix.Fchown(datagram, user, group))
	}
	// Its children are of its user too, before somebody accepts them.
	listener, err1 := listen4(8098, 2, func(fd int) error { return unix.Fchown(fd, user, group) })
	if err1 == nil {
		_, err1 = dial4(40980, 8098)
	}
	local, err2 := unixSocket(unix.SOCK_STREAM, s.path("foreign.sock"))
	if err2 == nil {
		err2 = unix.Fchown(local, user, group)
	}
	_ = listener
	return errors.Join(err, err1, err2)
}

// deviceSockets are bound to an interface, and so is what comes of them.
func (s *server) deviceSockets() error {
	l, err := listen4(8099, 2, func(fd int) error {
		return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo")
	})
	if err != nil {
		return err
	}
	_, _, err = pair4(l, 40990, 8099)
	raw, err1 := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err1 == nil {
		err1 = unix.SetsockoptString(raw, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "dummy0")
	}
	return errors.Join(err, err1)
}

// listenBoth gives a socket that listens on the addresses of both families.
func listenBoth(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0),
		unix.Bind(fd, &unix.SockaddrInet6{Port: port}), unix.Listen(fd, 4))
}

// mappedSockets are IPv6 sockets that speak IPv4: established, and on the way to it.
func (s *server) mappedSockets() error {
	l, err := listenBoth(8100)
	if err == nil {
		_, _, err = pair4(l, 41000, 8100)
	}
	if err == nil {
		err = unix.SetsockoptInt(l, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 20000)
	}
	if err == nil {
		_, err = dial4(41001, 8100) // SYN_RECV
	}
	six, err1 := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err1 == nil {
		err1 = unix.Connect(six, &unix.SockaddrInet6{Port: 8100, Addr: localhost6}) // SYN_RECV
	}
	return errors.Join(err, err1)
}

// hiddenSockets are held by a message under way and by a ring of io_uring only: one of
// each that listens, and one that is in no table.
func (s *server) hiddenSockets() error {
	var lines string
	hide := func(way string, port int, give func(fds [2]int) error) error {
		unbound, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(unbound)
		listener, err := listen4(port, 1, nil)
		if err != nil {
			return err
		}
		defer unix.Close(listener)
		for _, fd := range []int{unbound, listener} {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				return err
			}
			lines += fmt.Sprintf("%s %d\n", way, st.Ino)
		}
		return give([2]int{unbound, listener})
	}
	err := hide("flight", 8101, func(fds [2]int) error {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Sendmsg(pair[0], []byte("two"), unix.UnixRights(fds[0], fds[1]), nil, 0)
	})
	err1 := hide("io_uring", 8102, func(fds [2]int) error {
		u, err := newUring(s, 4, 0)
		if err != nil {
			return err
		}
		files := []int32{int32(fds[0]), -1, int32(fds[1])}
		return u.register(registerFiles, len(files), unsafe.Pointer(&files[0]))
	})
	return errors.Join(err, err1, os.WriteFile(hiddenSockets, []byte(lines), 0o644))
}
