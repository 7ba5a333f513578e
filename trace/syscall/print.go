package syscall

import "strconv"

const (
	maxPath     = 4096
	maxData     = 64 << 10
	maxElements = 32 // of an array: what strace shows
)

// append writes argument i.
func (a *Arg) append(dst []byte, x ctx, i int) []byte {
	v := x.arg(i)
	if a.fn != nil {
		return a.fn(dst, x, a, i)
	}
	if a.dir == byValue {
		return a.t.scalar(dst, x, a.t.narrow(v))
	}
	if v == 0 {
		return append(dst, "NULL"...)
	}
	if a.dir == inOut || a.dir == inOutApart {
		return a.both(dst, x, v)
	}
	if a.dir == out && !x.v.succeeded() || a.dir == outAlways && !x.v.Returned {
		return appendHex(dst, v)
	}
	d, ok := x.v.find(a.tag)
	if a.t.kind == kBlob && a.t.size == 1 {
		if !ok || len(d.Bytes) == 0 && d.Status != Whole {
			return appendHex(dst, v)
		}
		return a.t.append(dst, x, a, d.Bytes)
	}
	if a.array {
		return a.elements(dst, x, v, d)
	}
	if !ok || len(d.Bytes) < int(a.t.size) {
		return appendHex(dst, v)
	}
	return a.single(dst, x, d.Bytes)
}

// single writes what a pointer to one value leads to.
func (a *Arg) single(dst []byte, x ctx, b []byte) []byte {
	if !a.t.isScalar() {
		return a.t.append(dst, x, a, b)
	}
	return append(a.t.append(append(dst, '['), x, a, b), ']')
}

// both writes what a call has changed: [128 => 16].
func (a *Arg) both(dst []byte, x ctx, v uint64) []byte {
	d, ok := x.v.find(a.tag)
	if !ok || len(d.Bytes) < int(a.t.size) {
		return appendHex(dst, v)
	}
	after, changed := x.v.find(a.tag + 1)
	changed = changed && x.v.succeeded() && len(after.Bytes) >= int(a.t.size) && string(after.Bytes[:a.t.size]) != string(d.Bytes[:a.t.size])
	if !changed {
		return a.single(dst, x, d.Bytes)
	}
	if !a.t.isScalar() || a.dir == inOutApart {
		dst = append(a.single(dst, x, d.Bytes), " => "...)
		return a.single(dst, x, after.Bytes)
	}
	dst = append(a.t.append(append(dst, '['), x, a, d.Bytes), " => "...)
	return append(a.t.append(dst, x, a, after.Bytes), ']')
}

// length is how many elements there are; unknown where the guest's memory says it, and it was
// not fetched.
func (a *Arg) length(x ctx) (uint64, bool) {
	switch a.count.From {
	case Fixed:
		return uint64(a.count.N), true
	case Argument:
		return x.arg(int(a.count.N)), true
	case Result:
		return uint64(max(x.v.Result, 0)), x.v.Returned
	}
	return 0, false
}

// elements writes an array.
func (a *Arg) elements(dst []byte, x ctx, address uint64, d *Data) []byte {
	n, known := a.length(x)
	if known && n == 0 {
		return append(dst, "[]"...)
	}
	size := int(a.t.size)
	if d == nil || size == 0 || len(d.Bytes) < size {
		return appendHex(dst, address)
	}
	have := uint64(len(d.Bytes) / size)
	if !known {
		n = have
		if d.Status == Cut {
			n++
		}
	}
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if i >= have || i >= uint64(x.o.limit()) {
			dst = append(dst, "..."...)
			if d.Status == Unreadable && i < uint64(x.o.limit()) {
				dst = append(appendHex(append(dst, " /* "...), address+i*uint64(size)), " */"...)
			}
			break
		}
		dst = a.t.append(dst, x, a, d.Bytes[i*uint64(size):])
	}
	return append(dst, ']')
}

// argPath writes the name of a file.
func argPath(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	d, ok := x.v.find(a.tag)
	if v == 0 || !ok || d.Status == Unreadable || a.dir == out && !x.v.succeeded() {
		return appendPointer(dst, v)
	}
	dst = appendQuoted(dst, d.Bytes)
	if d.Status == Cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// argString writes a string of the user's, up to the limit.
func argString(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	d, ok := x.v.find(a.tag)
	if v == 0 || !ok || d.Status == Unreadable || a.dir == out && !x.v.succeeded() {
		return appendPointer(dst, v)
	}
	return appendString(dst, d, x.o.limit())
}

func appendString(dst []byte, d *Data, limit int) []byte {
	b := d.Bytes
	cut := d.Status == Cut
	if len(b) > limit {
		b, cut = b[:limit], true
	}
	dst = appendQuoted(dst, b)
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// argBuffer writes bytes of the user's, up to the limit.
func argBuffer(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	if v == 0 || a.dir == out && !x.v.succeeded() {
		return appendPointer(dst, v)
	}
	n, known := a.length(x)
	d, ok := x.v.find(a.tag)
	if known && n == 0 {
		return append(dst, `""`...)
	}
	if !ok || d.Status == Unreadable {
		return appendHex(dst, v)
	}
	if !known {
		n = uint64(len(d.Bytes))
		if d.Status == Cut {
			n++
		}
	}
	return x.appendPayload(dst, d.Bytes, n)
}

// argValue writes the value of an extended attribute.
func argValue(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	n, _ := a.length(x)
	d, ok := x.v.find(a.tag)
	if v == 0 || a.dir == out && !x.v.succeeded() || n > 65536 || n > 0 && (!ok || d.Status == Unreadable) {
		return appendPointer(dst, v)
	}
	if n == 0 {
		return append(dst, `""`...)
	}
	if n <= uint64(x.o.limit()) && n == uint64(len(d.Bytes)) && d.Bytes[n-1] == 0 {
		return appendQuoted(dst, d.Bytes[:n-1])
	}
	return appendBytes(dst, d.Bytes, n, x.o.limit())
}

// argList writes names of extended attributes. Without room for them the call only returns their length.
func argList(dst []byte, x ctx, a *Arg, i int) []byte {
	if x.arg(i+1) == 0 {
		return appendPointer(dst, x.arg(i))
	}
	return argBuffer(dst, x, a, i)
}

// argHexBuffer writes random bytes: all of them as \x….
func argHexBuffer(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	n, _ := a.length(x)
	d, ok := x.v.find(a.tag)
	if v == 0 || a.dir == out && !x.v.succeeded() || n > 0 && (!ok || d.Status == Unreadable) {
		return appendPointer(dst, v)
	}
	dst = append(dst, '"')
	limit := uint64(x.o.limit())
	for k := uint64(0); k < min(n, limit) && k < uint64(len(d.Bytes)); k++ {
		dst = append(dst, '\\', 'x', "0123456789abcdef"[d.Bytes[k]>>4], "0123456789abcdef"[d.Bytes[k]&15])
	}
	dst = append(dst, '"')
	if n > limit {
		dst = append(dst, "..."...)
	}
	return dst
}

// appendBytes writes the first bytes of n.
func appendBytes(dst, b []byte, n uint64, limit int) []byte {
	most := min(n, uint64(limit), uint64(len(b)))
	dst = appendQuoted(dst, b[:most])
	if most < n {
		dst = append(dst, "..."...)
	}
	return dst
}

// argCString writes bytes that may end with a zero before the count does.
func argCString(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	d, ok := x.v.find(a.tag)
	if v == 0 || a.dir == out && !x.v.succeeded() || !ok || d.Status == Unreadable {
		return appendPointer(dst, v)
	}
	b, cut := d.Bytes, d.Status == Cut
	if limit := x.o.limit(); len(b) > limit {
		b, cut = b[:limit], true
	}
	for i, c := range b {
		if c == 0 {
			b, cut = b[:i], false
			break
		}
	}
	dst = appendQuoted(dst, b)
	if cut {
		dst = append(dst, "..."...)
	}
	return dst
}

// argStrings writes argv.
func argStrings(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	if v == 0 {
		return append(dst, "NULL"...)
	}
	limit := x.o.limit()
	dst = append(dst, '[')
	start := len(dst)
	n := 0
	for k := range x.v.Data {
		d := &x.v.Data[k]
		if int(d.Tag) != a.tag {
			continue
		}
		if n == 0 && len(d.Bytes) == 0 && d.Status == Unreadable {
			return appendHex(dst[:start-1], v)
		}
		if n > 0 {
			dst = append(dst, ", "...)
		}
		if n >= limit {
			dst = append(dst, "..."...)
			break
		}
		n++
		switch {
		case d.Status == Unreadable:
			dst = append(dst, "???"...)
		case len(d.Bytes) == 0 && d.Status == Cut:
			dst = append(dst, "..."...)
		default:
			dst = appendString(dst, d, limit)
		}
	}
	return append(dst, ']')
}

// argEnv writes where the environment is, and counts its variables.
func argEnv(dst []byte, x ctx, a *Arg, i int) []byte {
	v := x.arg(i)
	dst = appendPointer(dst, v)
	d, ok := x.v.find(a.tag)
	w := x.c.ABI.Width()
	if v == 0 || !ok || len(d.Bytes) < w {
		return dst
	}
	n, ended := 0, false
	for b := d.Bytes; len(b) >= w; b = b[w:] {
		if ended = zero(b[:w]); ended {
			break
		}
		n++
	}
	dst = strconv.AppendInt(append(dst, " /* "...), int64(n), 10)
	dst = append(dst, " var"...)
	if n != 1 {
		dst = append(dst, 's')
	}
	if !ended {
		dst = append(dst, ", unterminated"...)
	}
	return append(dst, " */"...)
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
