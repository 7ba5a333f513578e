package syscall

// appendQuoted writes b as a string of C, as strace does.
func appendQuoted(dst, b []byte) []byte {
	dst = append(dst, '"')
	for i, c := range b {
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ' && c < 0x7f:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		case c == '\v':
			dst = append(dst, `\v`...)
		default:
			dst = appendOctal(dst, c, i+1 < len(b) && b[i+1] >= '0' && b[i+1] <= '7')
		}
	}
	return append(dst, '"')
}

// appendOctal writes an escape: with all its digits if a digit follows.
func appendOctal(dst []byte, c byte, whole bool) []byte {
	dst = append(dst, '\\')
	if whole || c >= 0o100 {
		dst = append(dst, '0'+c>>6)
	}
	if whole || c >= 0o10 {
		dst = append(dst, '0'+c>>3&7)
	}
	return append(dst, '0'+c&7)
}

// appendChars writes the text in a field of fixed size, up to its zero.
func appendChars(dst, b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return appendQuoted(dst, b[:i])
		}
	}
	return append(appendQuoted(dst, b), "..."...)
}

// appendHex writes 0x…, and 0 as 0.
func appendHex(dst []byte, v uint64) []byte {
	if v == 0 {
		return append(dst, '0')
	}
	return appendHexDigits(append(dst, "0x"...), v)
}

func appendHexDigits(dst []byte, v uint64) []byte {
	shift := 60
	for shift > 0 && v>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[v>>shift&15])
	}
	return dst
}

// appendPointer writes an address.
func appendPointer(dst []byte, v uint64) []byte {
	if v == 0 {
		return append(dst, "NULL"...)
	}
	return appendHex(dst, v)
}
