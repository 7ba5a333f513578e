package syscall

import "strconv"

const (
	vectorLimit = 4096 // bytes of all pairs together
	maxControl  = 1024
)

// iovecPieces are the pairs, and what they lead to.
func iovecPieces(data When) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		pair := 2 * uint32(abi.Width())
		n := Count{From: Argument, N: uint32(arg + 1)}
		return []Piece{
			{Arg: arg, Size: pair, Count: n, Limit: pair * (maxElements + 1)},
			{Arg: arg, When: data, Shape: Vector, Size: pair, Count: n, Limit: vectorLimit},
		}
	}
}

func argIovecIn(dst []byte, x ctx, a *Arg, i int) []byte {
	return a.vector(dst, x, x.arg(i), x.arg(i+1), a.tag, ^uint64(0))
}

func argIovecOut(dst []byte, x ctx, a *Arg, i int) []byte {
	total := uint64(0)
	if x.v.succeeded() {
		total = uint64(x.v.Result)
	}
	return a.vector(dst, x, x.arg(i), x.arg(i+1), a.tag, total)
}

// vector writes n pairs and what they lead to, of which total bytes are meant. The pairs have
// tag, and the bytes the next.
func (a *Arg) vector(dst []byte, x ctx, address, n uint64, tag int, total uint64) []byte {
	if address == 0 {
		return append(dst, "NULL"...)
	}
	if n == 0 {
		return append(dst, "[]"...)
	}
	w := x.c.ABI.Width()
	pairs, ok := x.v.find(tag)
	if !ok || len(pairs.Bytes) < 2*w {
		return appendHex(dst, address)
	}
	bytes := reader{v: x.v, tag: tag + 1, one: true}
	out := a.when(x, tag+1) == Return
	dst = append(dst, '[')
	b := pairs.Bytes
	for k := 0; uint64(k) < n; k++ {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if len(b) < 2*w || k >= x.o.limit() {
			dst = append(dst, "..."...)
			break
		}
		base, length := number(b[:w]), number(b[w:2*w])
		b = b[2*w:]
		dst = append(dst, "{iov_base="...)
		want := min(length, total)
		if total != ^uint64(0) {
			total -= want
		}
		data, there := bytes.next(length)
		switch {
		case base == 0 || out && !x.v.succeeded():
			dst = appendPointer(dst, base)
		case want == 0:
			dst = append(dst, `""`...)
		case !there || uint64(len(data)) < min(want, uint64(x.o.limit())):
			dst = appendHex(dst, base)
		default:
			dst = x.appendPayload(dst, data, want)
		}
		dst = append(strconv.AppendUint(append(dst, ", iov_len="...), length, 10), '}')
	}
	return append(dst, ']')
}

// when says when a piece of the call is read.
func (a *Arg) when(x ctx, tag int) When {
	if tag < 0 || tag >= len(x.c.Pieces) {
		return Entry
	}
	return x.c.Pieces[tag].When
}

// reader takes the bytes of a vector apart: an item for each pair, or one item for all.
type reader struct {
	v    *Values
	tag  int
	at   int // in v.Data
	one  bool
	rest []byte
	from bool // rest is valid
}

// next returns what is there of the next pair's bytes.
func (r *reader) next(length uint64) ([]byte, bool) {
	if !r.from {
		n := 0
		for i := range r.v.Data {
			if int(r.v.Data[i].Tag) == r.tag {
				if n == 0 {
					r.rest = r.v.Data[i].Bytes
				}
				n++
			}
		}
		r.from, r.one = true, n == 1
	}
	if r.one {
		n := min(length, uint64(len(r.rest)))
		b := r.rest[:n]
		r.rest = r.rest[n:]
		return b, true
	}
	for r.at < len(r.v.Data) {
		d := &r.v.Data[r.at]
		r.at++
		if int(d.Tag) == r.tag {
			return d.Bytes, true
		}
	}
	return nil, false
}

// messagePieces are struct msghdr and what it leads to; then, for one that is received,
// the structure as it was before.
func messagePieces(when When) func(ABI, int) []Piece {
	return func(abi ABI, arg int) []Piece {
		p := messageAt(abi, arg, when, 0)
		if when == Return {
			before := p[0]
			before.When = Entry
			p = append(p, before)
		}
		return p
	}
}

// message is where struct msghdr has its members.
type message struct{ size, nameLength, vector, vectorLength, control, controlLength, flags uint32 }

func messageLayout(abi ABI) message {
	if abi == ABI32 {
		return message{28, 4, 8, 12, 16, 20, 24}
	}
	return message{56, 8, 16, 24, 32, 40, 48}
}

func messageAt(abi ABI, arg int, when When, at uint32) []Piece {
	m, w := messageLayout(abi), uint8(abi.Width())
	n := Count{From: Member, N: at + m.vectorLength, Width: w}
	pair := 2 * uint32(w)
	return []Piece{
		{Arg: arg, When: when, Add: at, Size: m.size, Count: Count{From: Fixed, N: 1}, Limit: m.size},
		{Arg: arg, When: when, Deref: []uint32{at}, Size: 1, Count: Count{From: Member, N: at + m.nameLength, Width: 4}, Limit: 128},
		{Arg: arg, When: when, Deref: []uint32{at + m.vector}, Size: pair, Count: n, Limit: pair * (maxElements + 1)},
		{Arg: arg, When: when, Deref: []uint32{at + m.vector}, Shape: Vector, Size: pair, Count: n, Limit: vectorLimit},
		{Arg: arg, When: when, Deref: []uint32{at + m.control}, Size: 1, Count: Count{From: Member, N: at + m.controlLength, Width: w}, Limit: maxControl},
	}
}

func argSendMessage(dst []byte, x ctx, a *Arg, i int) []byte {
	return a.message(dst, x, x.arg(i), a.tag, -1, ^uint64(0))
}

func argReceiveMessage(dst []byte, x ctx, a *Arg, i int) []byte {
	before := a.bytes(x, 5, int(messageLayout(x.c.ABI).size))
	room := int64(-1)
	if before != nil {
		room = int64(int32(le.Uint32(before[messageLayout(x.c.ABI).nameLength:])))
	}
	switch {
	case before == nil || !x.v.Returned:
		return appendPointer(dst, x.arg(i))
	case x.v.failed():
		return append(strconv.AppendInt(append(dst, "{msg_namelen="...), room, 10), '}')
	}
	return a.message(dst, x, x.arg(i), a.tag, room, uint64(x.v.Result))
}

// message writes struct msghdr. room is how long the name could be; -1: it was not received.
func (a *Arg) message(dst []byte, x ctx, address uint64, tag int, room int64, total uint64) []byte {
	m, w := messageLayout(x.c.ABI), x.c.ABI.Width()
	d, ok := x.v.find(tag)
	if !ok || len(d.Bytes) < int(m.size) {
		return appendPointer(dst, address)
	}
	b := d.Bytes
	word := func(at uint32) uint64 {
		if w == 4 {
			return uint64(le.Uint32(b[at:]))
		}
		return le.Uint64(b[at:])
	}
	length := int64(int32(le.Uint32(b[m.nameLength:])))
	dst = append(dst, "{msg_name="...)
	shown := length
	if room >= 0 {
		shown = min(length, room)
	}
	name, ok := x.v.find(tag + 1)
	if ok && shown >= 2 && len(name.Bytes) >= 2 && word(0) != 0 {
		dst = appendSockaddr(dst, name.Bytes[:min(int64(len(name.Bytes)), shown)])
	} else {
		dst = appendPointer(dst, word(0))
	}
	dst = append(dst, ", msg_namelen="...)
	if room >= 0 && room != length {
		dst = append(strconv.AppendInt(dst, room, 10), " => "...)
	}
	dst = strconv.AppendInt(dst, length, 10)
	dst = a.vector(append(dst, ", msg_iov="...), x, word(m.vector), word(m.vectorLength), tag+2, total)
	dst = strconv.AppendUint(append(dst, ", msg_iovlen="...), word(m.vectorLength), 10)
	if n := word(m.controlLength); n != 0 {
		dst = append(dst, ", msg_control="...)
		if c, ok := x.v.find(tag + 4); ok && len(c.Bytes) >= w+8 {
			dst = appendControl(dst, x, c.Bytes[:min(uint64(len(c.Bytes)), n)], word(m.control))
		} else {
			dst = appendPointer(dst, word(m.control))
		}
	}
	dst = strconv.AppendUint(append(dst, ", msg_controllen="...), word(m.controlLength), 10)
	dst = setOf("msg").flags(append(dst, ", msg_flags="...), uint64(le.Uint32(b[m.flags:])))
	return append(dst, '}')
}

// appendControl writes control messages.
func appendControl(dst []byte, x ctx, b []byte, address uint64) []byte {
	w := x.c.ABI.Width()
	header := w + 8
	dst = append(dst, '[')
	for first := true; len(b) >= header; first = false {
		if !first {
			dst = append(dst, ", "...)
		}
		n := uint64(le.Uint32(b))
		if w == 8 {
			n = le.Uint64(b)
		}
		level, kind := le.Uint32(b[w:]), le.Uint32(b[w+4:])
		dst = strconv.AppendUint(append(dst, "{cmsg_len="...), n, 10)
		dst = setOf("sol").enum(append(dst, ", cmsg_level="...), uint64(level))
		dst = append(dst, ", cmsg_type="...)
		have := int(min(n, uint64(len(b))))
		var data []byte
		if have > header {
			data = b[header:have]
		}
		dst = appendControlData(dst, x, level, kind, data)
		dst = append(dst, '}')
		next := int(min((n+uint64(w)-1)&^uint64(w-1), uint64(len(b))))
		if have < header || next < header {
			address += uint64(header)
			b = b[header:]
			break
		}
		b = b[next:]
		address += uint64(next)
	}
	if len(b) > 0 {
		dst = append(appendHex(append(dst, ", ... /* "...), address), " */"...)
	}
	return append(dst, ']')
}

func appendControlData(dst []byte, x ctx, level, kind uint32, data []byte) []byte {
	if level != 1 {
		return appendHex(dst, uint64(kind))
	}
	dst = setOf("scm").enum(dst, uint64(kind))
	switch {
	case kind == 1 && len(data) >= 4: // SCM_RIGHTS
		dst = append(dst, ", cmsg_data=["...)
		for i := 0; 4*i+4 <= len(data); i++ {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = strconv.AppendInt(dst, int64(int32(le.Uint32(data[4*i:]))), 10)
		}
		dst = append(dst, ']')
	case kind == 2 && len(data) >= 12: // SCM_CREDENTIALS
		dst = strconv.AppendInt(append(dst, ", cmsg_data={pid="...), int64(int32(le.Uint32(data))), 10)
		dst = styleID(append(dst, ", uid="...), x, uint64(le.Uint32(data[4:])))
		dst = append(styleID(append(dst, ", gid="...), x, uint64(le.Uint32(data[8:]))), '}')
	}
	return dst
}
