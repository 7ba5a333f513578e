package text

import (
	"strings"
	"unicode/utf8"
)

// Lossless returns s as valid UTF-8 from which [FromLossless] gets s back. A
// byte that is not part of valid UTF-8 becomes U+FFFD, the replacement
// character, and two lower-case hex digits; a U+FFFD in s is written as its
// three bytes in the same way. Everything else, backslashes included, stays as
// it is, so honest text is never changed.
func Lossless(s string) string {
	if utf8.ValidString(s) && !strings.ContainsRune(s, utf8.RuneError) {
		return s
	}
	out := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError {
			out = append(out, s[i:i+n]...)
			i += n
			continue
		}
		for _, c := range []byte(s[i : i+n]) {
			out = utf8.AppendRune(out, utf8.RuneError)
			out = append(out, hexDigits[c>>4], hexDigits[c&15])
		}
		i += n
	}
	return string(out)
}

// FromLossless returns the bytes of which s is the [Lossless] form. A U+FFFD
// that no two hex digits follow stays as it is.
func FromLossless(s string) string {
	const mark = string(utf8.RuneError)
	if !strings.Contains(s, mark) {
		return s
	}
	out := make([]byte, 0, len(s))
	for {
		before, after, found := strings.Cut(s, mark)
		out = append(out, before...)
		if !found {
			return string(out)
		}
		if len(after) >= 2 && isHex(after[0]) && isHex(after[1]) {
			out = append(out, byte(unhex(after[:2])))
			after = after[2:]
		} else {
			out = append(out, mark...)
		}
		s = after
	}
}

func isHex(c byte) bool { return strings.IndexByte(hexDigits, c) >= 0 }

// AppendJSON appends s to dst as a JSON string: the [Lossless] form, in which
// all that is not [Plain] is written as a JSON escape. A JSON parser sees no
// difference, and the output is safe to look at on a terminal.
func AppendJSON(dst []byte, s string) []byte {
	dst = append(dst, '"')
	marks := newState()
	// Most text is ASCII that shows: it is copied in runs.
	for from, to := 0, 0; ; to++ {
		if to < len(s) && s[to] >= ' ' && s[to] < 0x7f {
			if s[to] == '"' || s[to] == '\\' {
				dst = append(append(dst, s[from:to]...), '\\')
				from = to
			}
			continue
		}
		dst = append(dst, s[from:to]...)
		if to == len(s) {
			return append(dst, '"')
		}
		if to > 0 {
			marks.marks = 0
		}
		s = s[to:]
		break
	}
	for _, r := range Lossless(s) {
		switch {
		case r == '"' || r == '\\':
			marks.shows(r)
			dst = append(dst, '\\', byte(r))
		case r == utf8.RuneError || !marks.shows(r):
			dst = appendJSONEscape(dst, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

func appendJSONEscape(dst []byte, r rune) []byte {
	switch r {
	case '\n':
		return append(dst, '\\', 'n')
	case '\t':
		return append(dst, '\\', 't')
	case '\r':
		return append(dst, '\\', 'r')
	}
	if r > 0xffff { // JSON escapes are UTF-16
		r -= 0x10000
		dst = appendUnit(dst, 0xd800+uint16(r>>10))
		return appendUnit(dst, 0xdc00+uint16(r&0x3ff))
	}
	return appendUnit(dst, uint16(r))
}

func appendUnit(dst []byte, u uint16) []byte {
	return append(dst, '\\', 'u',
		hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}
