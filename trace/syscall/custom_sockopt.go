package syscall

import "strconv"

// argProtocol writes the protocol of a socket, which depends on its domain.
func argProtocol(dst []byte, x ctx, _ *Arg, i int) []byte {
	v := x.arg(i) & 0xffffffff
	switch x.arg(0) & 0xffffffff {
	case 2, 10:
		return setOf("ipproto").enum(dst, v)
	case 16:
		return setOf("netlink").enum(dst, v)
	case 17:
		return append(setOf("ethertype").enum(append(dst, "htons("...), v>>8&0xff|v<<8&0xff00), ')')
	case 31:
		return setOf("btproto").enum(dst, v)
	case 29:
		return setOf("canproto").enum(dst, v)
	}
	return strconv.AppendUint(dst, v, 10)
}

// optionSets are the sets of options, by level.
var optionSets = map[uint64]string{0: "ip", 1: "so", 6: "tcp", 17: "udp", 41: "ipv6", 255: "raw", 263: "packet", 270: "netlinkopt"}

func argOptionName(dst []byte, x ctx, _ *Arg, i int) []byte {
	v := x.arg(i) & 0xffffffff
	if name := optionSets[x.arg(1)&0xffffffff]; name != "" {
		return setOf(name).enum(dst, v)
	}
	return strconv.AppendUint(dst, v, 10)
}

// optionPieces are the value of an option: as long as the next argument says, or, if it comes back,
// the int to which it points.
func optionPieces(when When) func(ABI, int) []Piece {
	return func(_ ABI, arg int) []Piece {
		n := Count{From: Argument, N: uint32(arg + 1)}
		if when == Return {
			n.From = Pointed
		}
		return []Piece{{Arg: arg, When: when, Size: 1, Count: n, Limit: 256}}
	}
}

func argOptionIn(dst []byte, x ctx, a *Arg, i int) []byte {
	n := int(int32(x.arg(i + 1)))
	return a.option(dst, x, i, n, false)
}

func argOptionOut(dst []byte, x ctx, a *Arg, i int) []byte {
	room, ok := x.pointed(i+1, 0)
	if !ok || !x.v.succeeded() {
		return appendPointer(dst, x.arg(i))
	}
	n := room
	if after, ok := x.pointed(i+1, 1); ok {
		n = after
	}
	if room == 0 || n <= 0 {
		return appendPointer(dst, x.arg(i))
	}
	return a.option(dst, x, i, n, true)
}

// option writes a value of n bytes.
func (a *Arg) option(dst []byte, x ctx, i, n int, out bool) []byte {
	level, name := x.arg(1)&0xffffffff, x.arg(2)&0xffffffff
	if n < 0 {
		return appendPointer(dst, x.arg(i))
	}
	if n == 0 && x.arg(i) != 0 {
		return append(dst, `""`...)
	}
	b := a.bytes(x, 0, min(n, x.o.limit()))
	if len(b) > n {
		b = b[:n]
	}
	if n < 4 && !out && (level == 270 || level == 1 && isInt(name)) {
		b = nil
	}
	if b == nil || x.arg(i) == 0 {
		return appendPointer(dst, x.arg(i))
	}
	switch {
	case level == 1 && name == 13 && n >= 8 && len(b) >= 8: // SO_LINGER
		dst = strconv.AppendInt(append(dst, "{l_onoff="...), int64(int32(le.Uint32(b))), 10)
		dst = strconv.AppendInt(append(dst, ", l_linger="...), int64(int32(le.Uint32(b[4:]))), 10)
		return append(dst, '}')
	case level == 1 && name == 17 && out && n >= 12 && len(b) >= 12: // SO_PEERCRED
		dst = strconv.AppendInt(append(dst, "{pid="...), int64(int32(le.Uint32(b))), 10)
		dst = styleID(append(dst, ", uid="...), x, uint64(le.Uint32(b[4:])))
		return append(styleID(append(dst, ", gid="...), x, uint64(le.Uint32(b[8:]))), '}')
	case level == 1 && name == 4 && out && len(b) >= 4 && n >= 4: // SO_ERROR
		dst = append(dst, '[')
		if e := le.Uint32(b); e != 0 && int(e) < len(errnos) && errnos[e].name != "" {
			dst = append(dst, errnos[e].name...)
		} else {
			dst = strconv.AppendInt(dst, int64(int32(e)), 10)
		}
		return append(dst, ']')
	case len(b) >= 4 && (n == 4 || n > 4 && (level == 270 || level == 1 && isInt(name))):
		return append(strconv.AppendInt(append(dst, '['), int64(int32(le.Uint32(b))), 10), ']')
	case level == 0 && (name == 35 || name == 36) && !out && n >= 8 && len(b) >= 8: // IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP
		dst = appendIP4(append(dst, "{imr_multiaddr="...), b)
		return append(appendIP4(append(dst, ", imr_interface="...), b[4:]), '}')
	}
	return appendBytes(dst, b, uint64(n), x.o.limit())
}

// isInt says that an option of SOL_SOCKET is a number.
func isInt(name uint64) bool {
	switch name {
	case 13, 17, 20, 21, 25, 26, 28, 31, 47, 50, 51, 52, 55, 57, 59, 61, 66, 67, 71: // structures, and what has other sizes
		return false
	}
	return true
}

func appendIP4(dst, b []byte) []byte {
	dst = append(dst, `inet_addr("`...)
	for i := range 4 {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(b[i]), 10)
	}
	return append(dst, `")`...)
}
