package syscall

import (
	"net/netip"
	"strconv"
)

// blobInfo is memory with a way of its own to be written. What has no size is as long as its
// argument says, up to limit.
type blobInfo struct {
	size, align, limit uint32
	size32             uint32 // in ia32; 0: the same
	fn                 func(dst []byte, x ctx, a *Arg, b []byte) []byte
}

var blobs map[string]blobInfo

func init() {
	blobs = map[string]blobInfo{
		"sockaddr":     {limit: 128, fn: blobSockaddr},
		"sigset":       {size: 8, align: 4, fn: func(dst []byte, _ ctx, _ *Arg, b []byte) []byte { return appendSet(dst, le.Uint64(b), 8) }},
		"oldsigset":    {size: 4, align: 4, fn: func(dst []byte, _ ctx, _ *Arg, b []byte) []byte { return appendSet(dst, uint64(le.Uint32(b)), 4) }},
		"epolldata":    {size: 8, align: 4, fn: blobEpollData},
		"dirents64":    {limit: maxData, fn: func(dst []byte, x ctx, a *Arg, b []byte) []byte { return entries(dst, x, a, b, 19, 16) }},
		"dirents":      {limit: maxData, fn: blobDirents},
		"sigaction":    {size: 32, size32: 20, align: 4, fn: blobSigaction},
		"oldsigaction": {size: 16, align: 4, fn: blobOldSigaction},
		"utimens":      {size: 16, size32: 8, align: 4, fn: blobUtimens},
		"utimens64":    {size: 16, align: 4, fn: blobUtimens},
		"perfattr":     {size: 64, align: 4, fn: blobPerf},
		"utime":        {size: 16, size32: 8, align: 4, fn: blobUtime},
		"statx":        {size: 256, align: 4, fn: blobStatx},
		"stat":         {size: 144, size32: 64, align: 4, fn: blobStat},
		"stat64":       {size: 96, align: 4, fn: blobStat64},
		"statfs":       {size: 120, size32: 64, align: 4, fn: blobStatfs},
		"statfs64":     {size: 88, align: 4, fn: blobStatfs64},
		"siginfo":      {size: 128, align: 4, fn: blobSiginfo},
		"sigevent":     {size: 64, align: 4, fn: blobSigevent},
		"inetid6":      {size: 48, align: 4, fn: blobInetID6},
		"termios":      {size: 36, align: 4, fn: blobTermios},
	}
}

func blobEpollData(dst []byte, _ ctx, _ *Arg, b []byte) []byte {
	return appendHex(dst, le.Uint64(b))
}

func blobDirents(dst []byte, x ctx, a *Arg, b []byte) []byte {
	if x.c.ABI == ABI32 {
		return entries(dst, x, a, b, 10, 8)
	}
	return entries(dst, x, a, b, 18, 16)
}

// entries counts the entries of a directory.
func entries(dst []byte, x ctx, a *Arg, b []byte, header, at int) []byte {
	dst = appendPointer(dst, x.address(a))
	n := 0
	for len(b) >= header {
		length := int(le.Uint16(b[at:]))
		n++
		if length < header || length > len(b) {
			break
		}
		b = b[length:]
	}
	dst = strconv.AppendInt(append(dst, " /* "...), int64(n), 10)
	if len(b) > 0 {
		dst = append(dst, '+')
	}
	return append(dst, " entries */"...)
}

// address is where the argument leads.
func (x ctx) address(a *Arg) uint64 {
	if a.tag >= 0 && a.tag < len(x.c.Pieces) {
		return x.arg(x.c.Pieces[a.tag].Arg)
	}
	return 0
}

// blobSockaddr writes the address of a socket.
func blobSockaddr(dst []byte, x ctx, a *Arg, b []byte) []byte {
	if a.count.From == Pointed { // no more than there was room for, and no more than there is
		if room, ok := x.pointed(int(a.count.N), 0); ok && room < len(b) {
			b = b[:room]
		}
		if n, ok := x.pointed(int(a.count.N), 1); ok && n < len(b) {
			b = b[:n]
		}
	}
	if len(b) < 2 {
		return appendPointer(dst, x.address(a))
	}
	return appendSockaddr(dst, b)
}

// pointed is the int to which an argument points: 0: before the call, 1: after it.
func (x ctx) pointed(arg, when int) (int, bool) {
	args, _ := x.variantOf()
	if arg >= len(args) || args[arg].tag < 0 {
		return 0, false
	}
	d, ok := x.v.find(args[arg].tag + when)
	if !ok || len(d.Bytes) < 4 {
		return 0, false
	}
	return max(int(int32(le.Uint32(d.Bytes))), 0), true
}

func appendSockaddr(dst, b []byte) []byte {
	family := uint64(le.Uint16(b))
	dst = setOf("af").enum(append(dst, "{sa_family="...), family)
	rest := b[2:]
	switch {
	case len(rest) == 0:
	case family == 1:
		dst = appendUnix(dst, rest)
	case family == 2 && len(b) >= 8:
		dst = appendPort(append(dst, ", sin_port="...), rest)
		dst = netip.AddrFrom4([4]byte(rest[2:6])).AppendTo(append(dst, `, sin_addr=inet_addr("`...))
		dst = append(dst, `")`...)
	case family == 10 && len(b) >= 24:
		dst = appendPort(append(dst, ", sin6_port="...), rest)
		dst = strconv.AppendUint(append(dst, ", sin6_flowinfo=htonl("...), uint64(be32(rest[2:])), 10)
		dst = appendIP6(append(dst, `), inet_pton(AF_INET6, "`...), [16]byte(rest[6:22]))
		dst = append(dst, `", &sin6_addr)`...)
		if len(b) >= 28 {
			dst = append(dst, ", sin6_scope_id="...)
			dst = strconv.AppendUint(dst, uint64(le.Uint32(rest[22:])), 10)
		}
	case family == 16 && len(b) >= 12:
		dst = strconv.AppendInt(append(dst, ", nl_pid="...), int64(int32(le.Uint32(rest[2:]))), 10)
		groups := le.Uint32(rest[6:])
		dst = append(dst, ", nl_groups="...)
		if groups == 0 {
			dst = append(dst, "00000000"...)
		} else {
			var digits [8]byte
			hex := appendHexDigits(digits[:0], uint64(groups))
			dst = append(append(append(dst, "0x"...), "000000"[min(len(hex), 6):]...), hex...)
		}
	case family == 17 && len(b) >= 12:
		dst = appendPacket(dst, rest)
	default:
		dst = appendQuoted(append(dst, ", sa_data="...), rest[:min(len(rest), 126)])
	}
	return append(dst, '}')
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func appendPort(dst, b []byte) []byte {
	dst = strconv.AppendUint(append(dst, "htons("...), uint64(b[0])<<8|uint64(b[1]), 10)
	return append(dst, ')')
}

// appendIP6 writes an address as the C library does: what is mapped shows IPv4.
func appendIP6(dst []byte, a [16]byte) []byte { return netip.AddrFrom16(a).AppendTo(dst) }

// appendUnix writes a path, or an abstract name.
func appendUnix(dst, b []byte) []byte {
	dst = append(dst, ", sun_path="...)
	if b[0] == 0 {
		return appendQuoted(append(dst, '@'), b[1:])
	}
	for i, c := range b {
		if c == 0 {
			return appendQuoted(dst, b[:i])
		}
	}
	return appendQuoted(dst, b[:min(len(b), 108)])
}

func appendPacket(dst, b []byte) []byte {
	dst = append(dst, ", sll_protocol=htons("...)
	dst = setOf("ethertype").enum(dst, uint64(b[0])<<8|uint64(b[1]))
	dst = append(dst, "), sll_ifindex="...)
	dst = strconv.AppendInt(dst, int64(int32(le.Uint32(b[2:]))), 10)
	dst = setOf("arphrd").enum(append(dst, ", sll_hatype="...), uint64(le.Uint16(b[6:])))
	dst = setOf("packettype").enum(append(dst, ", sll_pkttype="...), uint64(b[8]))
	n := int(b[9])
	dst = strconv.AppendInt(append(dst, ", sll_halen="...), int64(n), 10)
	if n > 0 && len(b) > 10 {
		dst = append(dst, ", sll_addr=["...)
		for i, c := range b[10:min(len(b), 10+n, 18)] {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = append(dst, "0x"...)
			if c < 16 {
				dst = append(dst, '0')
			}
			dst = appendHexDigits(dst, uint64(c))
		}
		dst = append(dst, ']')
	}
	return dst
}
