package syscall

import "strconv"

func pollPieces(_ ABI, arg int) []Piece {
	p := Piece{Arg: arg, Size: 8, Count: Count{From: Argument, N: uint32(arg + 1)}, Limit: 8 * 256}
	after := p
	after.When = Return
	return []Piece{p, after}
}

// argPoll writes what poll waits for.
func argPoll(dst []byte, x ctx, a *Arg, i int) []byte {
	n := x.arg(i+1) & 0xffffffff
	v := x.arg(i)
	if v == 0 {
		return append(dst, "NULL"...)
	}
	if n == 0 {
		return append(dst, "[]"...)
	}
	b := a.bytes(x, 0, 8)
	if b == nil {
		return appendHex(dst, v)
	}
	dst = append(dst, '[')
	for k := 0; uint64(k) < n; k++ {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if len(b) < 8 || k >= x.o.limit() {
			dst = append(dst, "..."...)
			break
		}
		dst = strconv.AppendInt(append(dst, "{fd="...), int64(int32(le.Uint32(b))), 10)
		if int32(le.Uint32(b)) >= 0 {
			dst = setOf("poll").flags(append(dst, ", events="...), uint64(le.Uint16(b[4:])))
		}
		dst = append(dst, '}')
		b = b[8:]
	}
	return append(dst, ']')
}

// polled adds what poll has found.
func (x ctx) polled(dst []byte, args []Arg) []byte {
	if x.v.Result == 0 {
		return append(dst, " (Timeout)"...)
	}
	start := len(dst)
	shown := 0
	for b := args[0].bytes(x, 1, 8); len(b) >= 8; b = b[8:] {
		events := uint64(le.Uint16(b[6:]))
		if events == 0 {
			continue
		}
		if shown == 0 {
			dst = append(dst, " (["...)
		} else {
			dst = append(dst, ", "...)
		}
		if shown >= maxElements {
			dst = append(dst, "..."...)
			break
		}
		shown++
		dst = strconv.AppendInt(append(dst, "{fd="...), int64(int32(le.Uint32(b))), 10)
		dst = append(setOf("poll").flags(append(dst, ", revents="...), events), '}')
	}
	if shown > 0 {
		dst = append(dst, ']')
	}
	return x.left(dst, start, args, 2)
}

// left adds how much of the timeout is left, and closes the comment that began behind start.
func (x ctx) left(dst []byte, start int, args []Arg, timeout int) []byte {
	if timeout < len(args) && args[timeout].fn != nil && x.arg(timeout) != 0 {
		a := &args[timeout]
		if len(dst) == start {
			dst = append(dst, " (left "...)
		} else {
			dst = append(dst, ", left "...)
		}
		if b := a.bytes(x, 1, int(a.t.size)); b != nil {
			dst = a.t.append(dst, x, a, b)
		} else {
			dst = appendHex(dst, x.arg(timeout))
		}
	}
	if len(dst) > start {
		dst = append(dst, ')')
	}
	return dst
}

// argTimeLeft writes a timeout that the call changes: as it was before.
func argTimeLeft(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, int(a.t.size))
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	return a.t.append(dst, x, a, b)
}

// descriptors is how many bits of the sets count.
func (x ctx) descriptors() int { return int(min(max(int32(x.arg(0)), 0), 1024)) }

func argFDSet(dst []byte, x ctx, a *Arg, i int) []byte {
	n := x.descriptors()
	b := a.bytes(x, 0, (n+7)/8)
	if n == 0 || b == nil {
		return appendPointer(dst, x.arg(i))
	}
	dst = append(dst, '[')
	first := true
	for fd := range n {
		if b[fd/8]>>(fd%8)&1 == 0 {
			continue
		}
		if !first {
			dst = append(dst, ' ')
		}
		first = false
		dst = strconv.AppendInt(dst, int64(fd), 10)
	}
	return append(dst, ']')
}

// selected adds what select has found.
func (x ctx) selected(dst []byte, args []Arg) []byte {
	if x.v.Result == 0 {
		return append(dst, " (Timeout)"...)
	}
	start := len(dst)
	ready := x.v.Result
	n := x.descriptors()
	for i := 1; i <= 3 && ready > 0; i++ {
		b := args[i].bytes(x, 1, (n+7)/8)
		first := true
		for fd := 0; b != nil && fd < n && ready > 0; fd++ {
			if b[fd/8]>>(fd%8)&1 == 0 {
				continue
			}
			if first {
				if len(dst) == start {
					dst = append(dst, " ("...)
				} else {
					dst = append(dst, ", "...)
				}
				dst = append(append(dst, [...]string{"in", "out", "except"}[i-1]...), " ["...)
			} else {
				dst = append(dst, ' ')
			}
			first = false
			dst = strconv.AppendInt(dst, int64(fd), 10)
			ready--
		}
		if !first {
			dst = append(dst, ']')
		}
	}
	return x.left(dst, start, args, 4)
}

// selectMaskPieces are the pair of a set and its size, and the set.
func selectMaskPieces(abi ABI, arg int) []Piece {
	w := uint32(abi.Width())
	return []Piece{
		{Arg: arg, Size: 2 * w, Count: Count{From: Fixed, N: 1}, Limit: 2 * w},
		{Arg: arg, Deref: []uint32{0}, Size: 8, Count: Count{From: Fixed, N: 1}, Limit: 8},
	}
}

func argSelectMask(dst []byte, x ctx, a *Arg, i int) []byte {
	w := x.c.ABI.Width()
	b := a.bytes(x, 0, 2*w)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	set, size := number(b[:w]), number(b[w:2*w])
	dst = append(dst, "{sigmask="...)
	if m := a.bytes(x, 1, 8); m != nil && set != 0 && size == 8 {
		dst = appendSet(dst, le.Uint64(m), 8)
	} else {
		dst = appendPointer(dst, set)
	}
	return append(strconv.AppendUint(append(dst, ", sigsetsize="...), size, 10), '}')
}

// timeLeft adds what is left of a timeout.
func (x ctx) timeLeft(dst []byte, args []Arg) []byte { return x.left(dst, len(dst), args, 4) }
