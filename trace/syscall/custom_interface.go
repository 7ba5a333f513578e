package syscall

import (
	"bytes"
	"strconv"
)

// struct ifreq (include/uapi/linux/if.h): the name of an interface, and what is asked or set of it.
const (
	interfaceName = 16
	interfaceSize = 40
	// interfaceSize32 is its size in ia32, where the largest member is a sockaddr or a map of 16 bytes.
	interfaceSize32 = 32
)

// interfaceRequest is what an ioctl has behind the name.
type interfaceRequest struct {
	member  string
	set     bool
	address bool
	flags   bool
}

var interfaceRequests = map[uint64]interfaceRequest{
	0x8913: {member: "ifr_flags", flags: true},
	0x8914: {member: "ifr_flags", flags: true, set: true},
	0x8915: {member: "ifr_addr", address: true},
	0x8916: {member: "ifr_addr", address: true, set: true},
	0x8917: {member: "ifr_dstaddr", address: true},
	0x8919: {member: "ifr_broadaddr", address: true},
	0x891b: {member: "ifr_netmask", address: true},
	0x891c: {member: "ifr_netmask", address: true, set: true},
	0x891d: {member: "ifr_metric"},
	0x8921: {member: "ifr_mtu"},
	0x8922: {member: "ifr_mtu", set: true},
	0x8933: {member: "ifr_ifindex"},
	0x8942: {member: "ifr_qlen"},
	0x8943: {member: "ifr_qlen", set: true},
}

// argInterface writes struct ifreq: its name as it was, and the rest as it is after the call, or, where that sets it, before.
func argInterface(dst []byte, x ctx, a *Arg, i int) []byte {
	before, after := a.bytes(x, 0, interfaceSize32), a.bytes(x, 1, interfaceSize32)
	r := interfaceRequests[x.arg(1)&0xffffffff]
	if before == nil {
		return appendPointer(dst, x.arg(i))
	}
	name, _, _ := bytes.Cut(before[:interfaceName-1], []byte{0})
	dst = appendQuoted(append(dst, "{ifr_name="...), name)
	b := after
	if r.set {
		b = before
	}
	if b == nil || !r.set && !x.v.succeeded() {
		return append(dst, '}')
	}
	b = b[interfaceName:]
	dst = append(append(append(dst, ", "...), r.member...), '=')
	switch {
	case r.address:
		dst = appendSockaddr(dst, b[:16])
	case r.flags:
		dst = setOf("iff").flags(dst, uint64(le.Uint16(b)))
	default:
		dst = strconv.AppendInt(dst, int64(int32(le.Uint32(b))), 10)
	}
	return append(dst, '}')
}
