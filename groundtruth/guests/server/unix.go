package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// unixSocket gives a socket bound to a name ("" for none).
func unixSocket(kind int, name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil || name == "" {
		return fd, err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return -1, fmt.Errorf("bind %q: %w", name, err)
	}
	return fd, nil
}

func (s *server) unixSockets() error {
	var errs []error
	for _, kind := range []struct {
		number int
		name   string
	}{{unix.SOCK_STREAM, "stream"}, {unix.SOCK_SEQPACKET, "seqpacket"}} {
		for _, name := range []string{s.path(kind.name + ".sock"), "@outsight-" + kind.name} {
			errs = append(errs, unixServer(kind.number, name))
		}
	}
	// Names that are hard to print: bytes after a NUL, control characters, no end.
	for _, name := range []string{"@a\x00b\x1b[31m", "@", s.path("line\nbreak.sock")} {
		if name == "@" {
			name = "" // the kernel chooses an abstract name for an empty one
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		}
		errs = append(errs, err)
	}
	long, err := unixSocket(unix.SOCK_DGRAM, "@"+fmt.Sprintf("%0106d", 7))
	errs = append(errs, err)
	if client, err := unixSocket(unix.SOCK_DGRAM, s.path("client.sock")); err == nil && long >= 0 {
		errs = append(errs, unix.Connect(client, &unix.SockaddrUnix{Name: "@" + fmt.Sprintf("%0106d", 7)}))
		_, err = unix.Write(client, []byte("unread"))
		errs = append(errs, err)
	}
	// A socket whose name is gone from the file system.
	gone, err := unixSocket(unix.SOCK_STREAM, s.path("gone.sock"))
	if err == nil {
		err = errors.Join(unix.Listen(gone, 1), os.Remove(s.path("gone.sock")))
	}
	errs = append(errs, err)
	for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Write(pair[0], []byte("in the queue"))
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.passDescriptor())...)
}

// unixServer listens, with one connection taken and one that waits.
func unixServer(kind int, name string) error {
	l, err := unixSocket(kind, name)
	if err != nil {
		return err
	}
	if err := unix.Listen(l, 9); err != nil {
		return err
	}
	for i := range 2 {
		c, err := unixSocket(kind, "")
		if err != nil {
			return err
		}
		if err := unix.Connect(c, &unix.SockaddrUnix{Name: name}); err != nil {
			return fmt.Errorf("connect to %q: %w", name, err)
		}
		if i == 0 {
			if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
				return err
			}
		}
	}
	return nil
}

// passDescriptor leaves an open file in flight: no process has it in its table.
func (s *server) passDescriptor() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f, err := os.Create(s.path("in-flight"))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Sendmsg(pair[0], []byte{0}, unix.UnixRights(int(f.Fd())), nil, 0)
}
