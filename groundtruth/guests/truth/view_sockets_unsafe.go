package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socketPrograms reads the filters of sockets back.
type socketPrograms struct {
	// only is the one eBPF program that can be attached to a socket, if there is but one:
	// nothing shows which of several a socket has.
	only map[string]any
}

func (f *socketPrograms) find() error {
	const typeSocketFilter = 1 // BPF_PROG_TYPE_SOCKET_FILTER
	count := 0
	err := bpfObjects(bpfProg, func(o bpfObject) error {
		if o.u32(0) == typeSocketFilter {
			count++
			f.only = map[string]any{"filter_program": o.u32(4), "filter_length": o.u32(20) / 8}
		}
		return nil
	})
	if count != 1 {
		f.only = nil
	}
	return err
}

// tell takes a socket from one that holds it, to ask for its filter: 5.6.
func (f *socketPrograms) tell(row map[string]any, h *socketHolders) error {
	fd, err := h.take()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	const most = 4096 // BPF_MAXINSNS
	code := make([]byte, 8*most)
	n := uint32(most) // instructions, not bytes
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		uintptr(unsafe.Pointer(&code[0])), uintptr(unsafe.Pointer(&n)), 0)
	switch {
	case errno == 0:
		tellClassic(row, code[:8*n])
		return nil
	case errors.Is(errno, unix.EACCES): // an eBPF program
		for column, cell := range f.only {
			row[column] = cell
		}
		return nil
	case errors.Is(errno, unix.EOPNOTSUPP), errors.Is(errno, unix.ENOPROTOOPT):
		return nil
	}
	return errno
}

// tellClassic reports a classic filter as its code: which text it is shown as is not the
// kernel's to say.
func tellClassic(row map[string]any, code []byte) {
	row["filter_length"], row["filter_program"], row["filter_code"] = orNil(len(code)/8), nil, base64.StdEncoding.EncodeToString(code)
}

// take duplicates one of the descriptors of a socket; -1 if it is gone meanwhile.
func (h *socketHolders) take() (int, error) {
	process, err := unix.PidfdOpen(h.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("process %d: %w", h.pid, err)
	}
	defer unix.Close(process)
	fd, err := unix.PidfdGetfd(process, h.fd, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("descriptor %d of process %d: %w", h.fd, h.pid, err)
	}
	return fd, nil
}

// netNSOf is the inode of a socket's network namespace.
func netNSOf(socket int) (uint64, error) {
	space, err := unix.IoctlRetInt(socket, 0x894c) // SIOCGSKNS
	if errors.Is(err, unix.EINVAL) {
		return initialNetNS, nil // without CONFIG_NET_NS
	}
	if err != nil {
		return 0, err
	}
	defer unix.Close(space)
	var st unix.Stat_t
	err = unix.Fstat(space, &st)
	return st.Ino, err
}

// held reports a socket that nothing reported so far, as itself says.
func (t *socketTeller) held(inode uint64) error {
	h := t.holders[inode]
	fd, err := h.take()
	if err != nil || fd < 0 {
		return err
	}
	defer unix.Close(fd)
	option := func(name int) int {
		v, e := unix.GetsockoptInt(fd, unix.SOL_SOCKET, name)
		err = errors.Join(err, e)
		return v
	}
	domain, kind, number := option(unix.SO_DOMAIN), option(unix.SO_TYPE), option(unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	const mptcp = 262
	if t.told[inode] && (number != mptcp || t.mptcp) {
		return nil // of MPTCP, the connection's own socket has the same inode
	}
	row := map[string]any{"type": socketTypes[uint8(kind)], "inode": inode, "pids": h.pids, "uid": h.uid}
	row["protocol"], row["family"] = socketKind(domain, kind, number)
	if row["net_ns"], err = netNSOf(fd); err != nil {
		return fmt.Errorf("its namespace: %w", err)
	}
	if row["protocol"] == "tcp" {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return err
		}
		row["state"] = socketState("tcp", info.State)
	}
	if name, err := unix.Getsockname(fd); err == nil {
		tellName(row, "local", name)
	}
	switch name, err := unix.Getpeername(fd); {
	case err == nil:
		tellName(row, "remote", name)
	case errors.Is(err, unix.ENOTCONN) && domain == unix.AF_INET:
		tellName(row, "remote", &unix.SockaddrInet4{})
	case errors.Is(err, unix.ENOTCONN) && domain == unix.AF_INET6:
		tellName(row, "remote", &unix.SockaddrInet6{})
	}
	if err := t.filters.tell(row, h); err != nil {
		return err
	}
	return t.emit(row)
}

func tellName(row map[string]any, end string, name unix.Sockaddr) {
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		row[end], row[end+"_port"] = netip.AddrFrom4(name.Addr).String(), name.Port
	case *unix.SockaddrInet6:
		row[end], row[end+"_port"] = netip.AddrFrom16(name.Addr).String(), name.Port
	case *unix.SockaddrNetlink:
		row[end+"_port"] = name.Pid
	case *unix.SockaddrVM:
		row[end], row[end+"_port"] = fmt.Sprint(name.CID), name.Port
	}
}

// socketKind is the protocol and the family in outsight's words.
func socketKind(domain, kind, number int) (protocol, family any) {
	family = map[int]any{
		unix.AF_UNIX: "unix", unix.AF_INET: "inet", unix.AF_INET6: "inet6", unix.AF_NETLINK: "netlink",
		unix.AF_PACKET: "packet", unix.AF_VSOCK: "vsock", unix.AF_XDP: "xdp", unix.AF_ALG: "alg",
	}[domain]
	if domain != unix.AF_INET && domain != unix.AF_INET6 {
		return family, family
	}
	if kind == unix.SOCK_RAW {
		return "raw", family
	}
	return map[int]any{
		unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_UDPLITE: "udplite", unix.IPPROTO_ICMP: "icmp",
		unix.IPPROTO_ICMPV6: "icmp", unix.IPPROTO_SCTP: "sctp", 262: "mptcp",
	}[number], family
}
