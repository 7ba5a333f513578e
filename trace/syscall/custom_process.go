package syscall

import "strconv"

// clonePieces is where the child's number goes: the third argument.
func clonePieces(abi ABI, _ int) []Piece {
	return []Piece{{Arg: 2, When: Return, Size: 4, Count: Count{From: Fixed, N: 1}, Limit: 4}}
}

// argClone writes all arguments of clone.
func argClone(dst []byte, x ctx, a *Arg, _ int) []byte {
	flags, stack, parent, tls, child := x.arg(0), x.arg(1), x.arg(2), x.arg(4), x.arg(3)
	if x.c.ABI == ABI32 { // CONFIG_CLONE_BACKWARDS
		tls, child = child, tls
	}
	dst = appendPointer(append(dst, "child_stack="...), stack)
	dst = append(dst, ", flags="...)
	signal := flags & 0xff
	flags &^= 0xff
	if flags != 0 {
		dst = setOf("clone").flags(dst, flags)
		if signal != 0 {
			dst = styleSignal(append(dst, '|'), x, signal)
		}
	} else {
		dst = styleSignal(dst, x, signal)
	}
	if flags&(0x00100000|0x00001000) != 0 { // CLONE_PARENT_SETTID, CLONE_PIDFD
		dst = append(dst, ", parent_tid="...)
		if b := a.bytes(x, 0, 4); b != nil && x.v.succeeded() {
			dst = append(strconv.AppendInt(append(dst, '['), int64(int32(le.Uint32(b))), 10), ']')
		} else {
			dst = appendPointer(dst, parent)
		}
	}
	if flags&0x00080000 != 0 { // CLONE_SETTLS
		dst = appendPointer(append(dst, ", tls="...), tls)
	}
	if flags&(0x01000000|0x00200000) != 0 { // CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
		dst = appendPointer(append(dst, ", child_tidptr="...), child)
	}
	return dst
}

// clone3Pieces are struct clone_args, and where the pidfd and the child's number go.
func clone3Pieces(_ ABI, arg int) []Piece {
	word := Count{From: Fixed, N: 1}
	return []Piece{
		{Arg: arg, Size: 1, Count: Count{From: Argument, N: 1}, Limit: 88},
		{Arg: arg, When: Return, Deref: []uint32{8}, Size: 4, Count: word, Limit: 4},  // pidfd
		{Arg: arg, When: Return, Deref: []uint32{24}, Size: 4, Count: word, Limit: 4}, // parent_tid
		{Arg: arg, Deref: []uint32{64}, Size: 4, Count: Count{From: Member, N: 72, Width: 8}, Limit: 4 * 32},
	}
}

func argClone3(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 64)
	if b == nil {
		return appendPointer(dst, x.arg(i))
	}
	member := func(at int) uint64 {
		if at+8 > len(b) {
			return 0
		}
		return le.Uint64(b[at:])
	}
	flags := member(0)
	const pidfd, settls, parentTID = 0x1000, 0x80000, 0x100000
	dst = setOf("clone3").flags(append(dst, "{flags="...), flags)
	if flags&pidfd != 0 {
		dst = appendPointer(append(dst, ", pidfd="...), member(8))
	}
	if flags&(0x01000000|0x00200000) != 0 {
		dst = appendPointer(append(dst, ", child_tid="...), member(16))
	}
	if flags&parentTID != 0 {
		dst = appendPointer(append(dst, ", parent_tid="...), member(24))
	}
	dst = append(dst, ", exit_signal="...)
	if signal := member(32); signal < 1<<31-1 {
		dst = styleSignal(dst, x, signal)
	} else {
		dst = strconv.AppendUint(dst, signal, 10)
	}
	dst = appendPointer(append(dst, ", stack="...), member(40))
	dst = appendHex(append(dst, ", stack_size="...), member(48))
	if flags&settls != 0 {
		dst = appendPointer(append(dst, ", tls="...), member(56))
	}
	if set, n := member(64), member(72); set != 0 || n != 0 {
		dst = append(dst, ", set_tid="...)
		if tids := a.bytes(x, 3, 4); tids != nil && set != 0 && n > 0 && n <= 32 {
			dst = append(dst, '[')
			for k := 0; k < int(n) && 4*k+4 <= len(tids); k++ {
				if k > 0 {
					dst = append(dst, ", "...)
				}
				dst = strconv.AppendInt(dst, int64(int32(le.Uint32(tids[4*k:]))), 10)
			}
			dst = append(dst, ']')
		} else {
			dst = appendPointer(dst, set)
		}
		dst = strconv.AppendUint(append(dst, ", set_tid_size="...), n, 10)
	}
	if cgroup := member(80); cgroup != 0 || flags&0x200000000 != 0 && len(b) > 80 {
		dst = strconv.AppendUint(append(dst, ", cgroup="...), cgroup, 10)
	}
	dst = append(dst, '}')
	if !x.v.succeeded() || flags&(pidfd|parentTID) == 0 {
		return dst
	}
	dst = append(dst, " => {"...)
	if flags&pidfd != 0 {
		dst = appendIndirect(append(dst, "pidfd="...), a.bytes(x, 1, 4), member(8))
	}
	if flags&parentTID != 0 {
		if flags&pidfd != 0 {
			dst = append(dst, ", "...)
		}
		dst = appendIndirect(append(dst, "parent_tid="...), a.bytes(x, 2, 4), member(24))
	}
	return append(dst, '}')
}

// appendIndirect writes the int at an address, or the address.
func appendIndirect(dst, b []byte, address uint64) []byte {
	if b == nil {
		return appendPointer(dst, address)
	}
	return append(strconv.AppendInt(append(dst, '['), int64(int32(le.Uint32(b))), 10), ']')
}

// argStatus writes how a child ended.
func argStatus(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, 4)
	if b == nil || !x.v.succeeded() || x.v.Result == 0 {
		return appendPointer(dst, x.arg(i))
	}
	s := le.Uint32(b)
	dst = append(dst, '[')
	switch sig := s & 0x7f; {
	case s&0xff == 0x7f: // stopped
		stop := s >> 8 & 0xff
		dst = styleSignal(append(dst, "{WIFSTOPPED(s) && WSTOPSIG(s) == "...), x, uint64(stop&0x7f))
		if stop&0x80 != 0 {
			dst = append(dst, " | 0x80"...)
		}
		dst = append(dst, '}')
		s &^= 0xffff
	case s&0xffff == 0xffff:
		dst = append(dst, "{WIFCONTINUED(s)}"...)
		s &^= 0xffff
	case sig != 0:
		dst = styleSignal(append(dst, "{WIFSIGNALED(s) && WTERMSIG(s) == "...), x, uint64(sig))
		if s&0x80 != 0 {
			dst = append(dst, " && WCOREDUMP(s)"...)
		}
		dst = append(dst, '}')
		s &^= 0xff
	default:
		dst = strconv.AppendUint(append(dst, "{WIFEXITED(s) && WEXITSTATUS(s) == "...), uint64(s>>8&0xff), 10)
		dst = append(dst, '}')
		s &^= 0xff00
	}
	if event := s >> 16; event != 0 {
		dst = setOf("ptraceevents").enum(append(dst, '|'), uint64(event))
		dst = append(dst, "<<16"...)
		s &= 0xffff
	}
	if s != 0 {
		dst = appendHex(append(dst, '|'), uint64(s))
	}
	return append(dst, ']')
}

func argWaitUsage(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, int(a.t.size))
	if b == nil || !x.v.succeeded() || x.v.Result == 0 {
		return appendPointer(dst, x.arg(i))
	}
	return a.t.append(dst, x, a, b)
}

// argRemaining writes the time that is left of a sleep that was interrupted.
func argRemaining(dst []byte, x ctx, a *Arg, i int) []byte {
	b := a.bytes(x, 0, int(a.t.size))
	if r := x.v.Result; b == nil || !x.v.Returned || r > -512 || r < -516 {
		return appendPointer(dst, x.arg(i))
	}
	return a.t.append(dst, x, a, b)
}
