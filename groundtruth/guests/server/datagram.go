package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

func (s *server) udp() error {
	bound, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	here := &unix.SockaddrInet4{Port: 5357, Addr: localhost4}
	err = errors.Join(
		unix.Bind(bound, here),
		unix.Bind(client, &unix.SockaddrInet4{Port: 40953, Addr: localhost4}),
		unix.Connect(client, here))
	for range 2 { // unread
		_, e := unix.Write(client, []byte("datagram"))
		err = errors.Join(err, e)
	}
	bound6, err6 := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err6 != nil {
		return errors.Join(err, err6)
	}
	client6, err6 := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err6 != nil {
		return errors.Join(err, err6)
	}
	here6 := &unix.SockaddrInet6{Port: 5354, Addr: localhost6}
	err6 = errors.Join(unix.Bind(bound6, here6), unix.Connect(client6, here6))
	// A member of a multicast group on any address, sharing its port.
	group, errG := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errG == nil {
		errG = errors.Join(
			unix.SetsockoptInt(group, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
			unix.Bind(group, &unix.SockaddrInet4{Port: 5359}),
			unix.SetsockoptIPMreq(group, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
				&unix.IPMreq{Multiaddr: [4]byte{239, 1, 2, 3}, Interface: localhost4}))
	}
	// A socket bound to an interface, by its name.
	device, errD := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errD == nil {
		errD = errors.Join(
			unix.SetsockoptString(device, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "lo"),
			unix.Bind(device, &unix.SockaddrInet6{Port: 5356}))
	}
	return errors.Join(err, err6, errG, errD)
}

// udplite was removed in 7.1.
func (s *server) udplite() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDPLITE)
	if err != nil {
		return err
	}
	return unix.Bind(fd, &unix.SockaddrInet4{Port: 5357, Addr: localhost4})
}

func (s *server) ping() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: 4242, Addr: localhost4}) // the port is the id
	}
	fd, err6 := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err6 == nil {
		err6 = unix.Bind(fd, &unix.SockaddrInet6{Port: 4243, Addr: localhost6})
	}
	return errors.Join(err, err6)
}

// tcpOnly is a classic BPF program that lets IPv4's TCP pass: the offset is that of the
// protocol in what the socket sees.
func tcpOnly(offset uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: offset},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.IPPROTO_TCP},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x40000},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func attachClassic(fd int, filter []unix.SockFilter) error {
	p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &p); err != nil {
		return fmt.Errorf("attach a filter: %w", err)
	}
	return nil
}

func (s *server) raw() error {
	var errs []error
	for _, r := range []struct{ family, proto int }{
		{unix.AF_INET, unix.IPPROTO_ICMP},
		{unix.AF_INET, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.IPPROTO_RAW},
		{unix.AF_INET, 89},
		{unix.AF_INET6, unix.IPPROTO_ICMPV6},
		{unix.AF_INET6, unix.IPPROTO_RAW},
		{unix.AF_INET6, unix.IPPROTO_UDP},
	} {
		fd, err := unix.Socket(r.family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, r.proto)
		if err != nil {
			errs = append(errs, fmt.Errorf("family %d protocol %d: %w", r.family, r.proto, err))
			continue
		}
		switch {
		case r.family == unix.AF_INET && r.proto == unix.IPPROTO_TCP:
			// A sniffer's socket: filtered, small, bound.
			errs = append(errs, attachClassic(fd, tcpOnly(9)),
				unix.Bind(fd, &unix.SockaddrInet4{Addr: localhost4}),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096))
		case r.family == unix.AF_INET6 && r.proto == unix.IPPROTO_UDP:
			errs = append(errs, unix.Connect(fd, &unix.SockaddrInet6{Addr: localhost6}))
		case r.family == unix.AF_INET && r.proto == 89:
			errs = append(errs, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_HDRINCL, 1))
		}
	}
	return errors.Join(errs...)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// dropAll keeps a packet socket's queue empty, so that it rests.
var dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}

func (s *server) packet() error {
	var errs []error
	index := interfaceIndex("lo")
	open := func(kind int, proto uint16, ifindex int) int {
		fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			errs = append(errs, err)
			return -1
		}
		errs = append(errs, attachClassic(fd, dropAll),
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(proto), Ifindex: ifindex}))
		return fd
	}
	if fd := open(unix.SOCK_RAW, unix.ETH_P_ALL, 0); fd >= 0 {
		errs = append(errs, attachClassic(fd, tcpOnly(23)))
	}
	open(unix.SOCK_DGRAM, unix.ETH_P_IP, index)
	if fd := open(unix.SOCK_RAW, unix.ETH_P_ARP, index); fd >= 0 {
		if dummy := interfaceIndex("dummy0"); dummy > 0 {
			index = dummy
		}
		errs = append(errs, unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}))
	}
	// A ring, as tcpdump has it.
	if fd := open(unix.SOCK_RAW, unix.ETH_P_IPV6, index); fd >= 0 {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3))
		ring := unix.TpacketReq3{Block_size: 1 << 16, Block_nr: 2, Frame_size: 2048, Frame_nr: 64, Retire_blk_tov: 1000}
		errs = append(errs, unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &ring))
		mem, err := unix.Mmap(fd, 0, 2<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		s.keep, errs = append(s.keep, mem), append(errs, err)
	}
	for range 2 { // a group of two shares what comes
		if fd := open(unix.SOCK_RAW, unix.ETH_P_LOOPBACK, index); fd >= 0 {
			errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, 7))
		}
	}
	return errors.Join(errs...)
}
