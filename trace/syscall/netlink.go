package syscall

import "strconv"

// TagSocket is the tag of what is known of the socket of a call that sends or receives, where that is of AF_NETLINK: its protocol, as
// 16 bits. Then what goes over it is written as messages of netlink: those of
// rtnetlink and sock_diag with what they say, and what follows the header of others as bytes.
const TagSocket = 250

// NetlinkLimit is how much of a user's data is to be fetched where it goes over a socket of AF_NETLINK.
const NetlinkLimit = 4096

const (
	netlinkHeader = 16 // sizeof(struct nlmsghdr)
	netlinkError  = 2  // NLMSG_ERROR
	netlinkDone   = 3  // NLMSG_DONE
)

// Protocols of netlink whose types of messages have names (include/uapi/linux/netlink.h).
const (
	netlinkRoute = 0
	netlinkDiag  = 4
	netlinkAudit = 9
)

// netlink is the protocol of the socket of a call.
func (x ctx) netlink() (protocol uint16, ok bool) {
	d, ok := x.v.find(TagSocket)
	switch {
	case ok && len(d.Bytes) >= 2:
		return le.Uint16(d.Bytes), true
	case ok && len(d.Bytes) == 1: // sk_protocol up to 5.5
		return uint16(d.Bytes[0]), true
	}
	return 0, false
}

// appendPayload writes bytes that go over a socket, of which there are n, and b was fetched.
func (x ctx) appendPayload(dst, b []byte, n uint64) []byte {
	if protocol, ok := x.netlink(); ok && n >= netlinkHeader && len(b) >= netlinkHeader {
		return x.messages(dst, b[:min(uint64(len(b)), n)], n, protocol, 0)
	}
	return appendBytes(dst, b, n, x.o.limit())
}

// messages writes messages of netlink, that are n bytes long, and of which b was fetched.
func (x ctx) messages(dst, b []byte, n uint64, protocol uint16, depth int) []byte {
	from, count := len(dst), 0
	for ; n > 0; count++ {
		if count > 0 {
			dst = append(dst, ", "...)
		}
		if count >= x.o.limit() || len(b) < netlinkHeader && n >= netlinkHeader {
			dst = append(dst, "..."...)
			break
		}
		if n < netlinkHeader {
			dst = appendBytes(dst, b, n, x.o.limit())
			break
		}
		length := uint64(le.Uint32(b))
		dst = x.oneMessage(dst, b, min(max(length, netlinkHeader), n), protocol, depth)
		length = (length + 3) &^ 3
		if length < netlinkHeader || length >= n {
			break
		}
		n -= length
		b = b[min(length, uint64(len(b))):]
	}
	if count > 0 { // then it is a list
		dst = append(dst, '[', ']')
		copy(dst[from+1:], dst[from:len(dst)-2])
		dst[from], dst[len(dst)-1] = '[', ']'
	}
	return dst
}

// oneMessage writes one message, of n bytes.
func (x ctx) oneMessage(dst, b []byte, n uint64, protocol uint16, depth int) []byte {
	kind, flags := uint64(le.Uint16(b[4:])), uint64(le.Uint16(b[6:]))
	if n > netlinkHeader {
		dst = append(dst, '[')
	}
	dst = strconv.AppendUint(append(dst, "{nlmsg_len="...), uint64(le.Uint32(b)), 10)
	dst = append(dst, ", nlmsg_type="...)
	names, bits := setOf("nlmsg"), setOf("nlm")
	switch {
	case kind == netlinkError:
		bits = setOf("nlmerror")
	case kind < netlinkHeader:
	case protocol == netlinkRoute:
		names = setOf("rtm")
		switch kind & 3 { // what the types of a group do
		case 0:
			bits = setOf("nlmnew")
		case 1:
			bits = setOf("nlmdelete")
		case 2:
			bits = setOf("nlmget")
		}
	case protocol == netlinkDiag:
		names, bits = setOf("sockdiag"), setOf("nlmget")
	case protocol == netlinkAudit:
		names = setOf("audit")
	}
	dst = names.enum(dst, kind)
	dst = bits.flags(append(dst, ", nlmsg_flags="...), flags)
	dst = strconv.AppendUint(append(dst, ", nlmsg_seq="...), uint64(le.Uint32(b[8:])), 10)
	dst = strconv.AppendInt(append(dst, ", nlmsg_pid="...), int64(int32(le.Uint32(b[12:]))), 10)
	dst = append(dst, '}')
	if n <= netlinkHeader {
		return dst
	}
	dst = append(dst, ", "...)
	body, left := b[netlinkHeader:min(uint64(len(b)), n)], n-netlinkHeader
	switch {
	case kind == netlinkDone && len(body) == 4:
		dst = strconv.AppendInt(dst, int64(int32(le.Uint32(body))), 10)
	case kind == netlinkError && len(body) >= 4 && depth == 0:
		dst = x.netlinkError(dst, body, left, protocol, flags)
	case kind >= netlinkHeader && (protocol == netlinkRoute || protocol == netlinkDiag):
		dst = x.family(dst, body, left, protocol, kind, flags&1 != 0)
	default:
		dst = appendHexBytes(dst, body, left, x.o.limit())
	}
	return append(dst, ']')
}

// netlinkError writes the answer to a message that asked for one or that failed, of n bytes.
func (x ctx) netlinkError(dst, b []byte, n uint64, protocol uint16, flags uint64) []byte {
	const capped, more = 0x100, 0x200 // NLM_F_CAPPED, NLM_F_ACK_TLVS
	from := len(dst)
	dst = append(dst, "{error="...)
	code := int32(le.Uint32(b))
	if name, _ := ErrnoName(int(-code)); name != "" && code < 0 {
		dst = append(append(dst, '-'), name...)
	} else {
		dst = strconv.AppendInt(dst, int64(code), 10)
	}
	b, n = b[4:], n-4
	switch {
	case n == 0:
		return append(dst, '}')
	case len(b) < netlinkHeader:
		return append(appendBytes(append(dst, ", msg="...), b, n, x.o.limit()), '}')
	}
	length := min(max(uint64(le.Uint32(b)), netlinkHeader), n)
	if flags&capped != 0 {
		length = netlinkHeader
	}
	dst = append(x.oneMessage(append(dst, ", msg="...), b, length, protocol, 1), '}')
	if length = (length + 3) &^ 3; flags&more != 0 && length < n {
		dst = append(dst, '[')
		copy(dst[from+1:], dst[from:len(dst)-1])
		dst[from] = '['
		dst = append(dst, ", "...)
		dst = append(x.attributes(dst, b[min(length, uint64(len(b))):], n-length, attributesOf("ack"), 0), ']')
	}
	return dst
}

// appendHexBytes writes bytes of which nothing is known: strace -x's form.
func appendHexBytes(dst, b []byte, n uint64, limit int) []byte {
	const digits = "0123456789abcdef"
	most := min(n, uint64(limit), uint64(len(b)))
	dst = append(dst, '"')
	for _, c := range b[:most] {
		dst = append(dst, '\\', 'x', digits[c>>4], digits[c&15])
	}
	dst = append(dst, '"')
	if most < n {
		dst = append(dst, "..."...)
	}
	return dst
}
