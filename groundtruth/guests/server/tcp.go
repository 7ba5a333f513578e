package main

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

var (
	localhost4 = [4]byte{127, 0, 0, 1}
	localhost6 = [16]byte{15: 1}
	// silent is an address on the dummy interface behind which nobody answers.
	silent4 = [4]byte{10, 99, 0, 77}
)

// listen4 gives a socket that listens on 127.0.0.1.
func listen4(port, backlog int, set func(fd int) error) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if set != nil {
		if err := set(fd); err != nil {
			return -1, err
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: localhost4}); err != nil {
		return -1, fmt.Errorf("bind port %d: %w", port, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// dial4 connects to a port of 127.0.0.1, from a port of our own choice (0: any).
func dial4(from, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if from != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		if err := unix.Bind(fd, &unix.SockaddrInet4{Port: from, Addr: localhost4}); err != nil {
			return -1, fmt.Errorf("bind port %d: %w", from, err)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: localhost4}); err != nil {
		return -1, fmt.Errorf("connect to port %d: %w", port, err)
	}
	return fd, nil
}

// pair4 gives both ends of a connection to a listener.
func pair4(listener, from, port int) (client, accepted int, err error) {
	if client, err = dial4(from, port); err != nil {
		return -1, -1, err
	}
	accepted, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		return -1, -1, fmt.Errorf("accept on port %d: %w", port, err)
	}
	return client, accepted, nil
}

// fill writes until the peer's window and our queue are full, and not only until an
// acknowledgement that a slow peer delays.
func fill(fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	buf := make([]byte, 16<<10)
	for calm := 0; calm < 10; {
		if _, err := unix.Write(fd, buf); err == nil {
			calm = 0
		} else if errors.Is(err, unix.EAGAIN) {
			calm++
			time.Sleep(50 * time.Millisecond)
		} else {
			return fmt.Errorf("fill a connection: %w", err)
		}
	}
	return nil
}

// smallBuffers keep a full connection cheap.
func smallBuffers(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10))
}

// tcpListen is the web server: every network namespace of a real one has its like. It
// answers, so that it can be asked.
func (s *server) tcpListen() error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		port := 8088 // 80 may be taken by a web server of the guest's own
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		var address unix.Sockaddr = &unix.SockaddrInet4{Port: port}
		if family == unix.AF_INET6 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
			address = &unix.SockaddrInet6{Port: port}
		}
		if err := unix.Bind(fd, address); err != nil {
			errs = append(errs, fmt.Errorf("bind: %w", err))
			continue
		}
		if err := unix.Listen(fd, 128); err != nil {
			errs = append(errs, fmt.Errorf("listen: %w", err))
			continue
		}
		go serveWeb(fd)
	}
	// Three connections wait to be accepted.
	if _, err := listen4(8090, 5, nil); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for i := range 3 {
		_, err := dial4(40900+i, 8090)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// serveWeb answers one request after the other.
func serveWeb(listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		buf := make([]byte, 4096)
		if _, err := unix.Read(fd, buf); err == nil {
			_, _ = unix.Write(fd, []byte("HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"))
		}
		unix.Close(fd)
	}
}

func (s *server) tcpEstablished() error {
	l, err := listen4(8091, 16, smallBuffers)
	if err != nil {
		return err
	}
	// 1234 bytes unread on one side, 77 on the other.
	c, a, err := pair4(l, 40910, 8091)
	if err != nil {
		return err
	}
	_, err1 := unix.Write(c, make([]byte, 1234))
	_, err2 := unix.Write(a, make([]byte, 77))
	// A send queue that cannot drain.
	c, _, err = pair4(l, 40911, 8091)
	if err != nil {
		return errors.Join(err1, err2, err)
	}
	err3 := fill(c)
	// Keepalive, quick acknowledgement and a mark show in a socket's fields.
	c, _, err4 := pair4(l, 40912, 8091)
	if err4 == nil {
		err4 = errors.Join(
			unix.SetsockoptInt(c, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			unix.SetsockoptInt(c, unix.SOL_SOCKET, unix.SO_MARK, 0x42))
	}
	return errors.Join(err1, err2, err3, err4, s.tcpEstablished6(), s.tcpMapped())
}

func (s *server) tcpEstablished6() error {
	l, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	here := &unix.SockaddrInet6{Port: 8092, Addr: localhost6}
	if err := errors.Join(unix.Bind(l, here), unix.Listen(l, 4), unix.Connect(c, here)); err != nil {
		return fmt.Errorf("ipv6: %w", err)
	}
	if _, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC); err != nil {
		return fmt.Errorf("ipv6: %w", err)
	}
	_, err = unix.Write(c, []byte("six"))
	return err
}

// tcpMapped is a connection of an IPv6 socket to an IPv4 address.
func (s *server) tcpMapped() error {
	c, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mapped := [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
	if err := unix.Connect(c, &unix.SockaddrInet6{Port: 8091, Addr: mapped}); err != nil {
		return fmt.Errorf("connect over a mapped address: %w", err)
	}
	return nil
}

func (s *server) tcpHalfClosed() error {
	l, err := listen4(8093, 16, smallBuffers)
	if err != nil {
		return err
	}
	// The client has ended its half and got an acknowledgement: FIN_WAIT2, and CLOSE_WAIT
	// at the other end. Closed altogether, the first would pass in a minute.
	c, _, err := pair4(l, 40930, 8093)
	if err != nil {
		return err
	}
	err = unix.Shutdown(c, unix.SHUT_WR)
	// The end of a full connection cannot be sent: FIN_WAIT1.
	c, _, err1 := pair4(l, 40931, 8093)
	if err1 == nil {
		err1 = errors.Join(smallBuffers(c), fill(c), unix.Shutdown(c, unix.SHUT_WR))
	}
	// The same, at the end that closes last: LAST_ACK.
	c, a, err2 := pair4(l, 40932, 8093)
	if err2 == nil {
		err2 = errors.Join(smallBuffers(c), fill(a), unix.Shutdown(c, unix.SHUT_WR), unix.Shutdown(a, unix.SHUT_WR))
	}
	return errors.Join(err, err1, err2)
}

func (s *server) tcpSyn() error {
	// SYN_SENT: nobody answers behind the dummy interface; the retries last for hours.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_SYNCNT, 127)
	if e := unix.Connect(fd, &unix.SockaddrInet4{Port: 443, Addr: silent4}); !errors.Is(e, unix.EINPROGRESS) {
		err = errors.Join(err, fmt.Errorf("connect to %v: %w", silent4, e))
	}
	// SYN_RECV: a listener that waits for data before it takes the handshake's end.
	_, err1 := listen4(8094, 4, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 20000)
	})
	if err1 == nil {
		_, err1 = dial4(40940, 8094)
	}
	return errors.Join(err, err1)
}

// tcpTimeWait are connections that ended: of IPv4, of IPv6 sockets that speak it, and of
// one that was bound to a device.
func (s *server) tcpTimeWait() error {
	plain, err := listen4(0, 4, nil)
	device, err1 := listen4(0, 4, func(fd int) error {
		return unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo")
	})
	both, err2 := listenBoth(0)
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	var errs []error
	for _, l := range []int{plain, device, both} {
		name, err := unix.Getsockname(l)
		if err != nil {
			return err
		}
		port := 0
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			port = name.Port
		case *unix.SockaddrInet6:
			port = name.Port
		}
		c, a, err := pair4(l, 0, port)
		if err == nil {
			// The end that closes first waits.
			err = errors.Join(unix.Close(a), unix.Close(c))
		}
		errs = append(errs, err, unix.Close(l))
	}
	return errors.Join(errs...)
}

func (s *server) mptcp() error {
	const ipprotoMPTCP = 262
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, ipprotoMPTCP)
	if err != nil {
		return err
	}
	here := &unix.SockaddrInet4{Port: 8095, Addr: localhost4}
	if err := errors.Join(unix.Bind(fd, here), unix.Listen(fd, 4)); err != nil {
		return err
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, ipprotoMPTCP)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, here); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if _, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	_, err = unix.Write(c, []byte("over several paths"))
	return err
}
