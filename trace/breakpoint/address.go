package breakpoint

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxAddress is the size of a struct sockaddr_storage.
const maxAddress = 128

// connect is security_socket_connect(struct socket *, struct sockaddr *, int size).
func (h *hit) connect() { h.connects(h.pointer(0)) }

// connectFile is __sys_connect_file(struct file *, struct sockaddr_storage *, int size, int flags).
func (h *hit) connectFile() { h.connects(h.r.Pointer(h.pointer(0), h.o.fileData)) }

func (h *hit) connects(socket virt.Addr) {
	size := min(max(int(int32(h.args[2])), 0), maxAddress)
	b := h.r.Bytes(h.pointer(1), size)
	if h.r.Err != nil {
		return
	}
	h.address(b)
	h.say("type", socketType(h.r.Uint(socket, h.o.sockType)))
	if h.e.Object == "" { // AF_UNSPEC ends a connection
		h.drop = true
	}
}

// address says which address a struct sockaddr is.
func (h *hit) address(b []byte) {
	a := parseAddress(b)
	h.e.Object = a.String()
	h.e.Args = a.String()
	h.say("family", a.family)
	if a.ip.IsValid() {
		h.say("address", a.ip.Addr())
		h.say("port", a.ip.Port())
	}
	if a.path != "" {
		h.say("path", a.path)
	}
}

// address is that of a socket.
type address struct {
	family string
	ip     netip.AddrPort
	path   string // of AF_UNIX; of an abstract name with an @ before it
}

func (a address) String() string {
	switch {
	case a.ip.IsValid():
		return a.ip.String()
	case a.path != "":
		return a.path
	}
	return a.family
}

// parseAddress parses a struct sockaddr, which may be cut off.
func parseAddress(b []byte) address {
	if len(b) < 2 {
		return address{}
	}
	family := binary.LittleEndian.Uint16(b)
	a := address{family: familyName(family)}
	switch {
	case family == unix.AF_INET && len(b) >= 8:
		a.ip = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		a.ip = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])).Unmap(), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_UNIX && len(b) > 2:
		if b[2] == 0 {
			a.path = "@" + string(b[3:])
		} else {
			a.path = kobj.CString(b[2:])
		}
	}
	return a
}

func familyName(family uint16) string {
	switch family {
	case unix.AF_UNSPEC:
		return ""
	case unix.AF_UNIX:
		return "unix"
	case unix.AF_INET:
		return "inet"
	case unix.AF_INET6:
		return "inet6"
	case unix.AF_NETLINK:
		return "netlink"
	case unix.AF_PACKET:
		return "packet"
	case unix.AF_VSOCK:
		return "vsock"
	}
	return fmt.Sprintf("family %d", family)
}

func socketType(n uint64) string {
	switch n & 0xf {
	case unix.SOCK_STREAM:
		return "stream"
	case unix.SOCK_DGRAM:
		return "dgram"
	case unix.SOCK_RAW:
		return "raw"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return strconv.FormatUint(n, 10)
}

// listen is security_socket_listen(struct socket *, int backlog).
func (h *hit) listen() {
	h.socket(h.r.Pointer(h.pointer(0), h.o.sk), false)
	h.say("backlog", int32(h.args[1]))
}

// accept is security_sock_graft(struct sock *, struct socket *).
func (h *hit) accept() { h.accepted(h.pointer(0)) }

// acceptInet is __inet_accept(struct socket *, struct socket *, struct sock *).
func (h *hit) acceptInet() { h.accepted(h.pointer(2)) }

func (h *hit) accepted(sk virt.Addr) {
	h.socket(sk, true)
	local := h.end(sk, false)
	if local.IsValid() {
		h.say("local", local)
	}
}

// socket says where a struct sock is, or where its peer is.
func (h *hit) socket(sk virt.Addr, peer bool) {
	family := uint16(h.r.Uint(sk, h.o.family))
	a := address{family: familyName(family)}
	if family == unix.AF_UNIX {
		a.path = h.unixPath(sk)
	} else {
		a.ip = h.end(sk, peer)
	}
	if h.r.Err != nil {
		return
	}
	h.e.Object, h.e.Args = a.String(), a.String()
	h.say("family", a.family)
	if a.ip.IsValid() {
		h.say("address", a.ip.Addr())
		h.say("port", a.ip.Port())
	}
	if a.path != "" {
		h.say("path", a.path)
	}
}

// unixPath is the name of a Unix socket; a socket that was accepted has its listener's.
func (h *hit) unixPath(sk virt.Addr) string {
	if !h.o.unixAddr.Present() || !h.o.unixSockun.Present() {
		return ""
	}
	addr := h.r.Pointer(sk, h.o.unixAddr)
	if addr == 0 || h.r.Err != nil {
		return ""
	}
	size := min(max(int(int32(h.r.Uint(addr, h.o.unixLen))), 0), maxAddress)
	return parseAddress(h.r.Bytes(h.o.unixSockun.At(addr), size)).path
}

// end is one end of an inet socket; invalid for others.
func (h *hit) end(sk virt.Addr, peer bool) netip.AddrPort {
	at, at6, port := h.o.rcv, h.o.rcv6, uint16(h.r.Uint(sk, h.o.num))
	if peer {
		at, at6 = h.o.daddr, h.o.daddr6
		port = uint16(h.r.Uint(sk, h.o.dport))
		port = port>>8 | port<<8
	}
	var ip netip.Addr
	switch family := h.r.Uint(sk, h.o.family); {
	case family == unix.AF_INET:
		ip = netip.AddrFrom4([4]byte(h.bytes(at.At(sk), 4)))
	case family == unix.AF_INET6 && at6.Present():
		ip = netip.AddrFrom16([16]byte(h.bytes(at6.At(sk), 16))).Unmap()
	default:
		return netip.AddrPort{}
	}
	if h.r.Err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, port)
}

// bytes are n bytes, zeros where they cannot be read.
func (h *hit) bytes(a virt.Addr, n int) []byte {
	if b := h.r.Bytes(a, n); len(b) == n {
		return b
	}
	return make([]byte, n)
}
