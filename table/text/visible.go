package text

import (
	"strings"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// Visible returns s with everything escaped that does not show as itself. The
// result is printable UTF-8 on one line. [FromVisible] undoes it: a backslash in
// s that would read as the start of an escape is written \x5c, and all others
// stay as they are.
func Visible(s string) string {
	if isVisible(s) {
		return s
	}
	return string(AppendVisible(nil, s))
}

func isVisible(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return true
}

// AppendVisible appends the [Visible] form of s to dst.
func AppendVisible(dst []byte, s string) []byte {
	marks := newState()
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = appendByte(dst, s[i])
			marks.marks = 0
		case r == '\\' && escapeLen(s[i:]) > 0:
			dst = appendByte(dst, '\\')
			marks.marks = 0
		case marks.shows(r):
			dst = append(dst, s[i:i+n]...)
		default:
			dst = AppendEscape(dst, r)
		}
		i += n
	}
	return dst
}

func appendByte(dst []byte, c byte) []byte {
	return append(dst, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
}

// AppendEscape appends the escape of r, whether it needs one or not: \xNN below
// U+0080, \uNNNN or \UNNNNNNNN above.
func AppendEscape(dst []byte, r rune) []byte {
	if r < utf8.RuneSelf {
		return appendByte(dst, byte(r))
	}
	letter, shift := byte('u'), 12
	if r > 0xffff {
		letter, shift = 'U', 28
	}
	dst = append(dst, '\\', letter)
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hexDigits[r>>shift&15])
	}
	return dst
}

// escapeLen is the length of the escape that s begins with, 0 if none: \xNN,
// \uNNNN or \UNNNNNNNN, digits in lower case.
func escapeLen(s string) int {
	if len(s) < 4 || s[0] != '\\' {
		return 0
	}
	n := 0
	switch s[1] {
	case 'x':
		n = 4
	case 'u':
		n = 6
	case 'U':
		n = 10
	}
	if len(s) < n {
		return 0
	}
	for i := 2; i < n; i++ {
		if strings.IndexByte(hexDigits, s[i]) < 0 {
			return 0
		}
	}
	return n
}

// FromVisible returns the text of which s is the [Visible] form.
func FromVisible(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		n := escapeLen(s[i:])
		switch n {
		case 0:
			out = append(out, s[i])
			n = 1
		case 4:
			out = append(out, byte(unhex(s[i+2:i+n])))
		default:
			out = utf8.AppendRune(out, rune(unhex(s[i+2:i+n])))
		}
		i += n
	}
	return string(out)
}

// unhex reads digits that escapeLen has checked.
func unhex(s string) uint32 {
	var v uint32
	for i := range len(s) {
		v = v<<4 | uint32(strings.IndexByte(hexDigits, s[i]))
	}
	return v
}
