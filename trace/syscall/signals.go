package syscall

import "strconv"

// blobSigaction writes the kernel's struct sigaction.
func blobSigaction(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	var handler, flags, restorer uint64
	mask := b[12:]
	if x.c.ABI == ABI32 {
		handler, flags, restorer = uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:]))
	} else {
		handler, flags, restorer, mask = le.Uint64(b), le.Uint64(b[8:]), le.Uint64(b[16:]), b[24:]
	}
	dst = styleHandler(append(dst, "{sa_handler="...), x, handler)
	dst = appendSet(append(dst, ", sa_mask="...), le.Uint64(mask), 8)
	dst = setOf("sa").flags(append(dst, ", sa_flags="...), flags)
	if flags&0x04000000 != 0 {
		dst = appendPointer(append(dst, ", sa_restorer="...), restorer)
	}
	return append(dst, '}')
}

// blobOldSigaction writes ia32's first struct sigaction.
func blobOldSigaction(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	flags := uint64(le.Uint32(b[8:]))
	dst = styleHandler(append(dst, "{sa_handler="...), x, uint64(le.Uint32(b)))
	dst = appendSet(append(dst, ", sa_mask="...), uint64(le.Uint32(b[4:])), 4)
	dst = setOf("sa").flags(append(dst, ", sa_flags="...), flags)
	if flags&0x04000000 != 0 {
		dst = appendPointer(append(dst, ", sa_restorer="...), uint64(le.Uint32(b[12:])))
	}
	return append(dst, '}')
}

// siginfoCodes are the sets of codes that belong to a signal.
var siginfoCodes = map[int32]string{4: "si_ill", 5: "si_trap", 7: "si_bus", 8: "si_fpe", 11: "si_segv", 17: "si_chld", 29: "si_poll", 31: "si_sys"}

func blobSiginfo(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	signal, errno, code := int32(le.Uint32(b)), le.Uint32(b[4:]), int32(le.Uint32(b[8:]))
	if signal == 0 {
		return append(dst, "{}"...)
	}
	dst = styleSignal(append(dst, "{si_signo="...), x, uint64(uint32(signal)))
	dst = append(dst, ", si_code="...)
	name := setOf("si").name(uint64(uint32(code)))
	if set := siginfoCodes[signal]; name == "" && set != "" {
		name = setOf(set).name(uint64(uint32(code)))
	}
	if name != "" {
		dst = append(dst, name...)
	} else {
		dst = appendHex(dst, uint64(uint32(code)))
	}
	if errno != 0 {
		dst = append(dst, ", si_errno="...)
		if int(errno) < len(errnos) && errnos[errno].name != "" {
			dst = append(dst, errnos[errno].name...)
		} else {
			dst = strconv.AppendUint(dst, uint64(errno), 10)
		}
	}
	u := b[16:] // the union
	w := 8
	if x.c.ABI == ABI32 {
		u, w = b[12:], 4
	}
	word := func(at int) uint64 {
		if w == 4 {
			return uint64(le.Uint32(u[at:]))
		}
		return le.Uint64(u[at:])
	}
	source := func() {
		dst = strconv.AppendInt(append(dst, ", si_pid="...), int64(int32(le.Uint32(u))), 10)
		dst = styleID(append(dst, ", si_uid="...), x, uint64(le.Uint32(u[4:])))
	}
	value := func() {
		dst = strconv.AppendInt(append(dst, ", si_int="...), int64(int32(le.Uint32(u[8:]))), 10)
		dst = appendPointer(append(dst, ", si_ptr="...), word(8))
	}
	switch {
	case code == 0 || code == -6: // SI_USER, SI_TKILL
		source()
	case code == -2: // SI_TIMER
		dst = appendHex(append(dst, ", si_timerid="...), uint64(le.Uint32(u)))
		dst = strconv.AppendInt(append(dst, ", si_overrun="...), int64(int32(le.Uint32(u[4:]))), 10)
		value()
	case code < 0:
		source()
		if word(8) != 0 {
			value()
		}
	case signal == 17: // SIGCHLD
		source()
		status := le.Uint32(u[8:])
		dst = append(dst, ", si_status="...)
		if code == 1 { // CLD_EXITED
			dst = strconv.AppendInt(dst, int64(int32(status)), 10)
		} else {
			dst = styleSignal(dst, x, uint64(status))
		}
		times := (8 + 4 + w - 1) &^ (w - 1)
		dst = styleTicks(append(dst, ", si_utime="...), x, word(times))
		dst = styleTicks(append(dst, ", si_stime="...), x, word(times+w))
	case signal == 4, signal == 5, signal == 7, signal == 8, signal == 11:
		dst = appendPointer(append(dst, ", si_addr="...), word(0))
	case signal == 31:
		dst = appendPointer(append(dst, ", si_call_addr="...), word(0))
		dst = appendSyscallName(append(dst, ", si_syscall="...), x, le.Uint32(u[w:]))
		dst = setOf("audit_arch").enum(append(dst, ", si_arch="...), uint64(le.Uint32(u[w+4:])))
	case signal == 29:
		dst = strconv.AppendInt(append(dst, ", si_band="...), int64(word(0)), 10)
		dst = strconv.AppendInt(append(dst, ", si_fd="...), int64(int32(le.Uint32(u[w:]))), 10)
	default:
		if le.Uint64(u) != 0 {
			source()
		}
		if word(8) != 0 {
			value()
		}
	}
	return append(dst, '}')
}

func appendSyscallName(dst []byte, x ctx, nr uint32) []byte {
	if t := Table(x.c.ABI); nr < uint32(len(t)) && t[nr] != nil {
		return append(append(dst, "__NR_"...), t[nr].Name...)
	}
	return appendHex(dst, uint64(nr))
}

func blobSigevent(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	value, rest := le.Uint64(b), b[8:]
	if x.c.ABI == ABI32 {
		value, rest = uint64(le.Uint32(b)), b[4:]
	}
	dst = append(dst, '{')
	if value != 0 {
		dst = strconv.AppendInt(append(dst, "sigev_value={sival_int="...), int64(int32(value)), 10)
		dst = append(appendPointer(append(dst, ", sival_ptr="...), value), "}, "...)
	}
	signal, notify := uint64(le.Uint32(rest)), uint64(le.Uint32(rest[4:]))
	dst = append(dst, "sigev_signo="...)
	if notify == 0 || notify == 2 || notify == 4 {
		dst = styleSignal(dst, x, signal)
	} else {
		dst = strconv.AppendUint(dst, signal, 10)
	}
	dst = setOf("sigev").enum(append(dst, ", sigev_notify="...), notify)
	switch notify {
	case 4: // SIGEV_THREAD_ID
		dst = strconv.AppendInt(append(dst, ", sigev_notify_thread_id="...), int64(int32(le.Uint32(rest[8:]))), 10)
	case 2: // SIGEV_THREAD
		f, at := le.Uint64(rest[8:]), le.Uint64(rest[16:])
		if x.c.ABI == ABI32 {
			f, at = uint64(le.Uint32(rest[8:])), uint64(le.Uint32(rest[12:]))
		}
		dst = appendPointer(append(dst, ", sigev_notify_function="...), f)
		dst = appendPointer(append(dst, ", sigev_notify_attributes="...), at)
	}
	return append(dst, '}')
}
