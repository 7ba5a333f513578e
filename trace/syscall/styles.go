package syscall

import (
	"math/bits"
	"strconv"
)

// styles are the ways to write numbers that calls.txt and structs.txt name.
var styles map[string]func(dst []byte, x ctx, v uint64) []byte

func init() {
	styles = map[string]func(dst []byte, x ctx, v uint64) []byte{
		"dfd":         styleDirectory,
		"uid":         styleID,
		"sig":         styleSignal,
		"perm":        stylePermissions,
		"mode":        styleMode,
		"dev":         styleDevice,
		"ticks":       styleTicks,
		"rlim":        styleLimit,
		"rlim64":      styleLimit64,
		"mmap":        styleMmap,
		"pages":       func(dst []byte, _ ctx, v uint64) []byte { return appendHex(dst, v<<12) },
		"personality": stylePersonality,
		"wakeop":      styleWakeOp,
		"handler":     styleHandler,
		"ioprio":      styleIoprio,
		"be16": func(dst []byte, _ ctx, v uint64) []byte {
			return appendSwapped(dst, "htons(", uint64(bits.ReverseBytes16(uint16(v))))
		},
		"be64": func(dst []byte, _ ctx, v uint64) []byte {
			return appendSwapped(dst, "htobe64(", bits.ReverseBytes64(v))
		},
		"ether": func(dst []byte, _ ctx, v uint64) []byte {
			return setOf("ethertype").enum(dst, uint64(bits.ReverseBytes16(uint16(v))))
		},
		"ip4": func(dst []byte, _ ctx, v uint64) []byte {
			return appendAddress(dst, le.AppendUint32(nil, uint32(v)))
		},
	}
}

func appendSwapped(dst []byte, how string, v uint64) []byte {
	return append(strconv.AppendUint(append(dst, how...), v, 10), ')')
}

func styleDirectory(dst []byte, x ctx, v uint64) []byte {
	fd := int64(int32(v))
	if fd == -100 {
		dst = append(dst, "AT_FDCWD"...)
	} else {
		dst = strconv.AppendInt(dst, fd, 10)
	}
	if x.v.Path == nil {
		return dst
	}
	path := x.v.Path(fd)
	if path == "" {
		return dst
	}
	quoted := len(dst)
	dst = appendQuoted(dst, []byte(path))
	dst[quoted], dst[len(dst)-1] = '<', '>'
	return dst
}

// styleID writes a user or group: -1 is nobody.
func styleID(dst []byte, _ ctx, v uint64) []byte {
	if uint32(v) == 0xffffffff {
		return append(dst, "-1"...)
	}
	return strconv.AppendUint(dst, v&0xffffffff, 10)
}

var signals = [...]string{
	"0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
	"TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

func styleSignal(dst []byte, _ ctx, v uint64) []byte {
	switch n := int32(v); {
	case n > 0 && int(n) < len(signals):
		return append(append(dst, "SIG"...), signals[n]...)
	case n == 32:
		return append(dst, "SIGRTMIN"...)
	case n > 32 && n <= 64:
		return strconv.AppendInt(append(dst, "SIGRT_"...), int64(n)-32, 10)
	default:
		return strconv.AppendInt(dst, int64(n), 10)
	}
}

// appendSet writes a set of signals; one that is nearly full by what it lacks.
func appendSet(dst []byte, mask uint64, width int) []byte {
	bits := 0
	for m := mask; m != 0; m &= m - 1 {
		bits++
	}
	if bits >= width*8*2/3 {
		dst = append(dst, '~')
		mask = ^mask
		if width < 8 {
			mask &= 1<<(8*width) - 1
		}
	}
	dst = append(dst, '[')
	first := true
	for n := 1; n <= 64; n++ {
		if mask>>(n-1)&1 == 0 {
			continue
		}
		if !first {
			dst = append(dst, ' ')
		}
		first = false
		switch {
		case n < len(signals):
			dst = append(dst, signals[n]...)
		case n == 32:
			dst = append(dst, "RTMIN"...)
		default:
			dst = strconv.AppendInt(append(dst, "RT_"...), int64(n)-32, 10)
		}
	}
	return append(dst, ']')
}

func stylePermissions(dst []byte, _ ctx, v uint64) []byte {
	v &= 0xffff
	if v < 0o100 {
		dst = append(dst, '0')
		if v < 0o10 {
			dst = append(dst, '0')
		}
	}
	if v != 0 {
		if v >= 0o100 {
			dst = append(dst, '0')
		}
		return strconv.AppendUint(dst, v, 8)
	}
	return append(dst, '0')
}

// styleMode writes a file's type and permissions.
func styleMode(dst []byte, x ctx, v uint64) []byte {
	names := setOf("ft")
	kind := v & 0o170000
	name := names.name(kind)
	if name == "" {
		if kind != 0 {
			dst = strconv.AppendUint(append(dst, '0'), kind, 8)
			dst = append(dst, '|')
		}
	} else {
		dst = append(append(dst, name...), '|')
	}
	for _, bit := range []struct {
		bit  uint64
		name string
	}{{0o4000, "S_ISUID|"}, {0o2000, "S_ISGID|"}, {0o1000, "S_ISVTX|"}} {
		if v&bit.bit != 0 {
			dst = append(dst, bit.name...)
		}
	}
	return stylePermissions(dst, x, v&0o777)
}

// styleDevice writes a device number as user space has it.
func styleDevice(dst []byte, _ ctx, v uint64) []byte {
	major := v>>8&0xfff | v>>32&^0xfff
	minor := v&0xff | v>>12&^0xff&0xffffffff
	dst = appendHex(append(dst, "makedev("...), major)
	return append(appendHex(append(dst, ", "...), minor), ')')
}

// styleTicks writes hundredths of seconds.
func styleTicks(dst []byte, _ ctx, v uint64) []byte {
	dst = strconv.AppendUint(dst, v, 10)
	if v == 0 {
		return dst
	}
	dst = strconv.AppendUint(append(dst, " /* "...), v/100, 10)
	return append(dst, '.', '0'+byte(v%100/10), '0'+byte(v%10), ' ', 's', ' ', '*', '/')
}

func styleLimit64(dst []byte, _ ctx, v uint64) []byte {
	return limit(dst, v, ^uint64(0), "RLIM64_INFINITY")
}

func styleLimit(dst []byte, x ctx, v uint64) []byte {
	if x.c.ABI == ABI32 {
		return limit(dst, v, 0xffffffff, "RLIM_INFINITY")
	}
	return styleLimit64(dst, x, v)
}

func limit(dst []byte, v, infinity uint64, name string) []byte {
	switch {
	case v == infinity:
		return append(dst, name...)
	case v > 1024 && v%1024 == 0:
		return append(strconv.AppendUint(dst, v/1024, 10), "*1024"...)
	}
	return strconv.AppendUint(dst, v, 10)
}

func styleMmap(dst []byte, _ ctx, v uint64) []byte {
	const huge = 63 << 26
	dst = setOf("map").flags(dst, v&^huge)
	if size := v & huge; size != 0 {
		dst = strconv.AppendUint(append(dst, '|'), size>>26, 10)
		dst = append(dst, "<<MAP_HUGE_SHIFT"...)
	}
	return dst
}

func stylePersonality(dst []byte, _ ctx, v uint64) []byte {
	if uint32(v) == 0xffffffff {
		return append(dst, "0xffffffff"...)
	}
	return setOf("personality").flags(dst, v&0xffffffff)
}

func styleWakeOp(dst []byte, _ ctx, v uint64) []byte {
	op, cmp := setOf("futexop"), setOf("futexcmp")
	if v>>28&8 != 0 {
		dst = append(dst, "FUTEX_OP_OPARG_SHIFT<<28|"...)
	}
	part := func(s *set, n uint64, shift string) {
		name := s.name(n)
		if name == "" {
			dst = append(appendHex(dst, n), shift...)
			dst = append(append(append(dst, " /* "...), s.unknown...), " */"...)
			return
		}
		dst = append(append(dst, name...), shift...)
	}
	part(op, v>>28&7, "<<28")
	dst = append(appendHex(append(dst, '|'), v>>12&0xfff), "<<12|"...)
	part(cmp, v>>24&15, "<<24")
	return appendHex(append(dst, '|'), v&0xfff)
}

func styleHandler(dst []byte, x ctx, v uint64) []byte {
	if name := setOf("sighandler").name(v); name != "" && x.c.ABI == ABI64 || v < 2 {
		return append(dst, name...)
	}
	if x.c.ABI == ABI32 && v == 0xffffffff {
		return append(dst, "SIG_ERR"...)
	}
	return appendPointer(dst, v)
}

func styleIoprio(dst []byte, _ ctx, v uint64) []byte {
	class, data := v>>13&7, v&0x1fff
	dst = append(dst, "IOPRIO_PRIO_VALUE("...)
	switch class {
	case 0, 1, 2, 3:
		dst = append(dst, [...]string{"IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"}[class]...)
	default:
		dst = append(appendHex(dst, class), " /* IOPRIO_CLASS_??? */"...)
	}
	return append(strconv.AppendUint(append(dst, ", "...), data, 10), ')')
}
