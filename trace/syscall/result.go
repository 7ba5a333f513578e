package syscall

import "strconv"

// resultStyle is how a result is written if the call did not fail.
type resultStyle uint8

const (
	resultNumber resultStyle = iota
	resultHex
	resultOctal
	resultUnsigned
	resultNever
	resultFDFlags   // F_GETFD
	resultFileFlags // F_GETFL
	resultPoll
	resultSelect
	resultLease
	resultPersonality
	resultTimeout
	resultNoError // every value is one: no errors
	resultIoprio
	resultSeals
	resultScheduler
	resultClock
	resultMembarrier
	resultDumpable
	resultSecurebits
	resultSpeculation
	resultSig
)

var resultNames = map[string]resultStyle{
	"": resultNumber, "hex": resultHex, "octal": resultOctal, "unsigned": resultUnsigned, "never": resultNever,
	"fdflags": resultFDFlags, "fileflags": resultFileFlags, "poll": resultPoll, "select": resultSelect,
	"lease": resultLease, "personality": resultPersonality, "timeout": resultTimeout, "noerror": resultNoError,
	"ioprio": resultIoprio, "seals": resultSeals, "sig": resultSig, "sched": resultScheduler,
	"adjtime": resultClock, "membarrier": resultMembarrier, "dumpable": resultDumpable, "securebits": resultSecurebits, "speculation": resultSpeculation,
}

func resultStyles(name string) resultStyle {
	s, ok := resultNames[name]
	if !ok {
		fail("invalid result %q", name)
	}
	return s
}

// AppendResult writes what the call returned: 3, -1 ENOENT (No such file or directory).
func (c *Call) AppendResult(dst []byte, v *Values) []byte {
	if !v.Returned {
		return append(dst, '?')
	}
	if sub, in := c.inner(v); sub != nil {
		c, v = sub, in
	}
	x := ctx{c, v, Options{}}
	args, style := x.variantOf()
	r := v.Result
	if c.ABI == ABI32 {
		r = int64(int32(r))
	}
	if r < 0 && r >= -4095 && style != resultNoError {
		return appendError(dst, int(-r))
	}
	switch style {
	case resultNever:
		return append(dst, '?')
	case resultHex:
		if c.ABI == ABI32 {
			return appendHex(dst, uint64(uint32(r)))
		}
		return appendHex(dst, uint64(r))
	case resultOctal:
		return stylePermissions(dst, x, uint64(r))
	case resultUnsigned:
		return strconv.AppendUint(dst, uint64(r), 10)
	case resultFDFlags:
		return comment(setOf("fdflags"), appendHex(dst, uint64(r)), "flags ", uint64(r))
	case resultFileFlags:
		dst = append(appendHex(dst, uint64(r)), " (flags "...)
		return append(setOf("open").flags(dst, uint64(r)), ')')
	case resultSeals:
		return comment(setOf("seals"), appendHex(dst, uint64(r)), "seals ", uint64(r))
	case resultLease:
		dst = append(appendHex(dst, uint64(r)), " ("...)
		return append(setOf("lease").enum(dst, uint64(r)), ')')
	case resultPersonality:
		dst = append(appendHex(dst, uint64(r)), " ("...)
		return append(setOf("personality").flags(dst, uint64(r)), ')')
	case resultIoprio:
		dst = append(strconv.AppendInt(dst, r, 10), " ("...)
		return append(styleIoprio(dst, x, uint64(r)), ')')
	case resultSig:
		return append(styleSignal(append(strconv.AppendInt(dst, r, 10), " ("...), x, uint64(r)), ')')
	case resultScheduler:
		return named(setOf("sched"), dst, r)
	case resultClock:
		return named(setOf("adjtime"), dst, r)
	case resultDumpable:
		return named(setOf("dumpable"), dst, r)
	case resultMembarrier:
		if x.arg(0) != 0 || r == 0 {
			break
		}
		return comment(setOf("membarrier"), appendHex(dst, uint64(r)), "", uint64(r))
	case resultSecurebits:
		return comment(setOf("secbits"), appendHex(dst, uint64(r)), "", uint64(r))
	case resultSpeculation:
		dst = append(appendHex(dst, uint64(r)), " ("...)
		return append(setOf("prspecget").flags(dst, uint64(r)), ')')
	case resultTimeout:
		return x.timeLeft(strconv.AppendInt(dst, r, 10), args)
	case resultPoll:
		return x.polled(strconv.AppendInt(dst, r, 10), args)
	case resultSelect:
		return x.selected(strconv.AppendInt(dst, r, 10), args)
	}
	return strconv.AppendInt(dst, r, 10)
}

// named adds the name of a number, if it has one.
func named(s *set, dst []byte, r int64) []byte {
	dst = strconv.AppendInt(dst, r, 10)
	if name := s.name(uint64(r)); name != "" {
		dst = append(append(append(dst, " ("...), name...), ')')
	}
	return dst
}

// comment adds the names of bits; nothing if there are none.
func comment(s *set, dst []byte, what string, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = append(append(dst, " ("...), what...)
	return append(s.flags(dst, v), ')')
}

// appendError writes an error.
func appendError(dst []byte, e int) []byte {
	name, text := ErrnoName(e)
	if e >= 512 && e <= 516 { // the kernel's own: the call begins again, or ends with EINTR
		dst = append(append(dst, "? "...), name...)
	} else {
		dst = append(append(dst, "-1 "...), name...)
	}
	if text != "" {
		dst = append(append(append(dst, " ("...), text...), ')')
	}
	return dst
}

// ErrnoName returns the name of an error and the sentence that the C library has for it.
func ErrnoName(e int) (name, text string) {
	if e > 0 && e < len(errnos) && errnos[e].name != "" {
		return errnos[e].name, errnos[e].text
	}
	switch e {
	case 512:
		return "ERESTARTSYS", "To be restarted if SA_RESTART is set"
	case 513:
		return "ERESTARTNOINTR", "To be restarted"
	case 514:
		return "ERESTARTNOHAND", "To be restarted if no handler"
	case 515:
		return "ENOIOCTLCMD", "No ioctl command"
	case 516:
		return "ERESTART_RESTARTBLOCK", "Interrupted by signal"
	case 517:
		return "EPROBE_DEFER", ""
	case 524:
		return "ENOTSUPP", "Operation is not supported"
	}
	return "ERRNO_" + strconv.Itoa(e), "Unknown error " + strconv.Itoa(e)
}
