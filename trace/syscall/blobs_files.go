package syscall

import (
	"strconv"
	"time"
)

// blobStat writes struct stat, which ia32 has with 32-bit words.
func blobStat(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	if x.c.ABI == ABI32 {
		return stat(dst, x, uint64(le.Uint16(b[8:])), uint64(le.Uint32(b[16:])), uint64(le.Uint32(b[20:])))
	}
	return stat(dst, x, uint64(le.Uint32(b[24:])), le.Uint64(b[40:]), le.Uint64(b[48:]))
}

// blobStat64 is ia32's struct stat64.
func blobStat64(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	return stat(dst, x, uint64(le.Uint32(b[16:])), le.Uint64(b[32:]), le.Uint64(b[44:]))
}

func stat(dst []byte, x ctx, mode, rdev, size uint64) []byte {
	dst = styleMode(append(dst, "{st_mode="...), x, mode)
	if kind := mode & 0o170000; kind == 0o020000 || kind == 0o060000 {
		dst = styleDevice(append(dst, ", st_rdev="...), x, rdev)
	} else {
		dst = strconv.AppendUint(append(dst, ", st_size="...), size, 10)
	}
	return append(dst, ", ...}"...)
}

func blobStatx(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	mask := le.Uint32(b)
	dst = setOf("statxmask").flags(append(dst, "{stx_mask="...), uint64(mask))
	dst = setOf("statxattr").flags(append(dst, ", stx_attributes="...), le.Uint64(b[8:]))
	if mask&3 != 0 {
		dst = styleMode(append(dst, ", stx_mode="...), x, uint64(le.Uint16(b[28:])))
	}
	if mask&0x200 != 0 {
		dst = strconv.AppendUint(append(dst, ", stx_size="...), le.Uint64(b[40:]), 10)
	}
	return append(dst, ", ...}"...)
}

// blobStatfs writes struct statfs: words of the ABI's width.
func blobStatfs(dst []byte, x ctx, _ *Arg, b []byte) []byte {
	w := x.c.ABI.Width()
	at := func(i int) uint64 { // words before f_fsid; then two less
		if w == 4 {
			return uint64(le.Uint32(b[4*i:]))
		}
		return le.Uint64(b[8*i:])
	}
	fsid := b[7*w:]
	after := (7*w + 8) / w
	return statfs(dst, at(0), at(1), [5]uint64{at(2), at(3), at(4), at(5), at(6)}, le.Uint32(fsid), le.Uint32(fsid[4:]), at(after), at(after+1), at(after+2))
}

// blobStatfs64 is ia32's struct statfs64, which is packed.
func blobStatfs64(dst []byte, _ ctx, _ *Arg, b []byte) []byte {
	word := func(at int) uint64 { return uint64(le.Uint32(b[at:])) }
	return statfs(dst, word(0), word(4), [5]uint64{le.Uint64(b[8:]), le.Uint64(b[16:]), le.Uint64(b[24:]), le.Uint64(b[32:]), le.Uint64(b[40:])},
		le.Uint32(b[48:]), le.Uint32(b[52:]), word(56), word(60), word(64))
}

func statfs(dst []byte, kind, block uint64, n [5]uint64, id0, id1 uint32, name, fragment, flags uint64) []byte {
	dst = append(dst, "{f_type="...)
	if s := setOf("fsmagic").name(kind & 0xffffffff); s != "" {
		dst = append(dst, s...)
	} else {
		dst = appendHex(dst, kind)
	}
	dst = strconv.AppendUint(append(dst, ", f_bsize="...), block, 10)
	for i, field := range [...]string{", f_blocks=", ", f_bfree=", ", f_bavail=", ", f_files=", ", f_ffree="} {
		dst = strconv.AppendUint(append(dst, field...), n[i], 10)
	}
	dst = appendHex(append(dst, ", f_fsid={val=["...), uint64(id0))
	dst = appendHex(append(dst, ", "...), uint64(id1))
	dst = strconv.AppendUint(append(dst, "]}, f_namelen="...), name, 10)
	dst = strconv.AppendUint(append(dst, ", f_frsize="...), fragment, 10)
	if flags&0x20 != 0 {
		dst = setOf("statfsflags").flags(append(dst, ", f_flags="...), flags)
	}
	return append(dst, '}')
}

// blobUtimens writes a timespec for utimensat, in which two nanoseconds have a meaning.
func blobUtimens(dst []byte, x ctx, a *Arg, b []byte) []byte {
	var sec, nsec int64
	if x.c.ABI == ABI32 && a.t.size == 8 {
		sec, nsec = int64(int32(le.Uint32(b))), int64(int32(le.Uint32(b[4:])))
	} else {
		sec, nsec = int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
	}
	switch nsec {
	case 1<<30 - 1:
		return append(dst, "UTIME_NOW"...)
	case 1<<30 - 2:
		return append(dst, "UTIME_OMIT"...)
	}
	dst = strconv.AppendInt(append(dst, "{tv_sec="...), sec, 10)
	dst = strconv.AppendUint(append(dst, ", tv_nsec="...), uint64(nsec), 10)
	return appendDate(append(dst, '}'), sec, nsec, 9)
}

// blobUtime writes a timeval for utimes.
func blobUtime(dst []byte, x ctx, a *Arg, b []byte) []byte {
	var sec, usec int64
	if x.c.ABI == ABI32 {
		sec, usec = int64(int32(le.Uint32(b))), int64(int32(le.Uint32(b[4:])))
	} else {
		sec, usec = int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
	}
	dst = strconv.AppendInt(append(dst, "{tv_sec="...), sec, 10)
	dst = strconv.AppendUint(append(dst, ", tv_usec="...), uint64(usec), 10)
	return appendDate(append(dst, '}'), sec, usec, 6)
}

// appendDate adds a time as a date, in UTC, with a fraction of so many digits.
func appendDate(dst []byte, sec, fraction int64, digits int) []byte {
	most := int64(1e9)
	if digits == 6 {
		most = 1e6
	}
	const yearMillion = 31556889864403199
	if sec == 0 && fraction == 0 || fraction < 0 || fraction >= most || sec > yearMillion || sec < -yearMillion {
		return dst
	}
	dst = time.Unix(sec, 0).UTC().AppendFormat(append(dst, " /* "...), "2006-01-02T15:04:05")
	if fraction > 0 {
		dst = append(dst, '.')
		for most /= 10; most > 0; most /= 10 {
			dst = append(dst, '0'+byte(fraction/most%10))
		}
	}
	return append(dst, "+0000 */"...)
}

var termiosFlags = [...]string{"c_iflag", "c_oflag", "c_cflag", "c_lflag"}

func blobTermios(dst []byte, _ ctx, _ *Arg, b []byte) []byte {
	dst = append(dst, '{')
	for i, name := range termiosFlags {
		dst = append(append(dst, name...), '=')
		dst = setOf(name).flags(dst, uint64(le.Uint32(b[4*i:])))
		dst = append(dst, ", "...)
	}
	return append(dst, "...}"...)
}
