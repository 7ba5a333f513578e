package syscall

import "strconv"

func init() {
	for name, f := range map[string]func(dst []byte, x ctx, v uint64) []byte{
		"mount":      styleMount,
		"swap":       styleSwap,
		"fanotify":   styleFanotify,
		"syslog":     styleSyslog,
		"mpol":       stylePolicy,
		"key":        styleKey,
		"keyring":    styleKeyring,
		"shmget":     styleShmget,
		"ipcget":     func(dst []byte, x ctx, v uint64) []byte { return ipcFlags(dst, x, v, "ipcflags") },
		"shmctl":     func(dst []byte, _ ctx, v uint64) []byte { return ipcCommand(dst, v, "shmctl") },
		"msgctl":     func(dst []byte, _ ctx, v uint64) []byte { return ipcCommand(dst, v, "msgctl") },
		"semctl":     func(dst []byte, _ ctx, v uint64) []byte { return ipcCommand(dst, v, "semctl") },
		"ptr":        func(dst []byte, _ ctx, v uint64) []byte { return appendPointer(dst, v) },
		"oldset":     func(dst []byte, _ ctx, v uint64) []byte { return appendSet(dst, v, 4) },
		"socketcall": styleSocketCall,
		"fandfd":     styleNoDirectory,
		"spec":       styleSpeculation,
		"qcmd":       styleQuota,
		"ambientcap": styleAmbient,
		"kversion":   styleKernelVersion,
	} {
		styles[name] = f
	}
}

func styleMount(dst []byte, _ ctx, v uint64) []byte {
	const magic = 0xc0ed0000
	if v&0xffff0000 != magic {
		return setOf("mount").flags(dst, v)
	}
	dst = append(dst, "MS_MGC_VAL"...)
	if v&^0xffff0000 != 0 {
		dst = setOf("mount").flags(append(dst, '|'), v&^0xffff0000)
	}
	return dst
}

func styleSwap(dst []byte, _ ctx, v uint64) []byte {
	if flags := v &^ 0x7fff; flags != 0 {
		dst = append(setOf("swap").flags(dst, flags), '|')
	}
	return strconv.AppendUint(dst, v&0x7fff, 10)
}

func styleFanotify(dst []byte, _ ctx, v uint64) []byte {
	dst = setOf("fanclass").enum(dst, v&12)
	if v&^12 != 0 {
		dst = setOf("fanotify").flags(append(dst, '|'), v&^12)
	}
	return dst
}

// styleSyslog writes a number with its name beside it.
func styleSyslog(dst []byte, _ ctx, v uint64) []byte {
	s := setOf("syslog")
	name := s.name(v & 0xffffffff)
	if name == "" {
		name = s.unknown
	}
	dst = append(strconv.AppendInt(dst, int64(int32(v)), 10), " /* "...)
	return append(append(dst, name...), " */"...)
}

func stylePolicy(dst []byte, _ ctx, v uint64) []byte {
	const flags = 0xe000
	names := setOf("mpol")
	if v&flags == 0 || names.name(v&^flags) == "" {
		return names.enum(dst, v)
	}
	return setOf("mpolflags").flags(append(names.enum(dst, v&^flags), '|'), v&flags)
}

func styleKey(dst []byte, _ ctx, v uint64) []byte {
	if v == 0 {
		return append(dst, "IPC_PRIVATE"...)
	}
	return appendHex(dst, v)
}

// styleKeyring writes the number of a key, or the name of one that every process has.
func styleKeyring(dst []byte, _ ctx, v uint64) []byte {
	if name := setOf("keyring").name(v & 0xffffffff); name != "" {
		return append(dst, name...)
	}
	return strconv.AppendInt(dst, int64(int32(v)), 10)
}

func styleShmget(dst []byte, x ctx, v uint64) []byte {
	const huge = 63 << 26
	size := v & huge >> 26
	if size == 0 {
		return ipcFlags(dst, x, v, "shmflags")
	}
	if flags := v &^ (huge | 0o777); flags != 0 {
		dst = append(setOf("shmflags").flags(dst, flags), '|')
	}
	dst = append(strconv.AppendUint(dst, size, 10), "<<SHM_HUGE_SHIFT|"...)
	return stylePermissions(dst, x, v&0o777)
}

// ipcFlags writes flags, and the permissions in the low bits.
func ipcFlags(dst []byte, x ctx, v uint64, names string) []byte {
	if flags := v &^ 0o777; flags != 0 {
		dst = append(setOf(names).flags(dst, flags), '|')
	}
	return stylePermissions(dst, x, v&0o777)
}

func ipcCommand(dst []byte, v uint64, names string) []byte {
	if v&0x100 != 0 {
		dst = append(dst, "IPC_64|"...)
	}
	return setOf(names).enum(dst, v&^0x100)
}

func styleAmbient(dst []byte, x ctx, v uint64) []byte {
	if op := x.arg(1); op >= 1 && op <= 3 {
		return setOf("cap").enum(dst, v)
	}
	return appendHex(dst, v)
}

func styleKernelVersion(dst []byte, _ ctx, v uint64) []byte {
	dst = strconv.AppendUint(append(dst, "KERNEL_VERSION("...), v>>16, 10)
	dst = strconv.AppendUint(append(dst, ", "...), v>>8&0xff, 10)
	return append(strconv.AppendUint(append(dst, ", "...), v&0xff, 10), ')')
}

func styleNoDirectory(dst []byte, x ctx, v uint64) []byte {
	if uint32(v) == 0xffffffff {
		return append(dst, "FAN_NOFD"...)
	}
	return styleDirectory(dst, x, v)
}

func styleSpeculation(dst []byte, x ctx, v uint64) []byte {
	if x.arg(1) > 2 {
		return appendHex(dst, v)
	}
	return setOf("prspecset").enum(dst, v)
}

func styleQuota(dst []byte, _ ctx, v uint64) []byte {
	dst = setOf("quota").enum(append(dst, "QCMD("...), v>>8&0xffffff)
	return append(setOf("quotatype").enum(append(dst, ", "...), v&0xff), ')')
}

func styleSocketCall(dst []byte, _ ctx, v uint64) []byte {
	if name := setOf("socketcall").name(v & 0xffffffff); name != "" {
		return append(dst, name...)
	}
	return strconv.AppendUint(dst, v, 10)
}
