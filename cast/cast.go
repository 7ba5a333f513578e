// Package cast records the terminals of a guest as asciicast v2 files, which asciinema and other players play back: one file for
// each terminal from its first byte to its last. It is given the events of a source that sees them ([trace.KindTerminal]).
//
// A file is valid after each event. Its first line, the header, is followed by blanks, so that it can be written again in place
// when more is known: who leads the session, and how long it was.
package cast

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/outsight-vmi/outsight/trace"
)

// headerSize is the length of the first line, with its blanks and line break.
const headerSize = 1024

// Size of a terminal whose size nobody has set.
const (
	defaultColumns = 80
	defaultRows    = 24
)

// header is the first line of a file.
type header struct {
	columns, rows int
	began         time.Time
	duration      time.Duration
	title         string
	leader        *trace.Leader
}

// append appends the header, exactly headerSize bytes of it. Guest text that does not fit is cut.
func (h *header) append(dst []byte) []byte {
	from := len(dst)
	for _, limit := range []int{256, 64, 16, 0} {
		dst = h.appendCut(dst[:from], limit)
		if len(dst)-from < headerSize {
			break
		}
	}
	for len(dst)-from < headerSize-1 {
		dst = append(dst, ' ')
	}
	return append(dst, '\n')
}

// appendCut appends the header with texts of at most limit characters each.
func (h *header) appendCut(dst []byte, limit int) []byte {
	columns, rows := h.columns, h.rows
	if columns <= 0 || rows <= 0 {
		columns, rows = defaultColumns, defaultRows
	}
	dst = strconv.AppendInt(append(dst, `{"version": 2, "width": `...), int64(columns), 10)
	dst = strconv.AppendInt(append(dst, `, "height": `...), int64(rows), 10)
	dst = strconv.AppendInt(append(dst, `, "timestamp": `...), h.began.Unix(), 10)
	if h.duration > 0 {
		dst = appendSeconds(append(dst, `, "duration": `...), h.duration)
	}
	text := func(name, s string) {
		if s = cut(s, limit); s != "" {
			dst = appendString(append(append(append(dst, `, "`...), name...), `": `...), s)
		}
	}
	text("title", h.title)
	l := h.leader
	if l == nil {
		return append(dst, '}')
	}
	text("command", command(l.Args))
	dst = append(dst, `, "env": {`...)
	n := len(dst)
	for _, v := range [2][2]string{{"SHELL", l.Exec}, {"TERM", l.Term}} {
		if s := cut(v[1], limit); s != "" {
			if len(dst) > n {
				dst = append(dst, ", "...)
			}
			dst = appendString(append(appendString(dst, v[0]), ": "...), s)
		}
	}
	return append(dst, "}}"...)
}

// command is a command line as one text.
func command(args []string) (s string) {
	const most = 64
	for i, a := range args[:min(len(args), most)] {
		if i > 0 {
			s += " "
		}
		s += a
	}
	return s
}

// cut is the first n characters of s.
func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// appendEvent appends a line: [0.123456, "o", "text"]. The text is valid UTF-8.
func appendEvent(dst []byte, at time.Duration, kind byte, text []byte) []byte {
	dst = appendSeconds(append(dst, '['), at)
	dst = append(append(append(dst, `, "`...), kind), `", `...)
	return append(appendString(dst, text), "]\n"...)
}

func appendSeconds(dst []byte, d time.Duration) []byte {
	return strconv.AppendFloat(dst, d.Seconds(), 'f', 6, 64)
}

// appendString appends a string of JSON. Control characters are escaped, so that a file that is looked at without a
// player does nothing to a terminal. What is not UTF-8 becomes U+FFFD.
func appendString[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range string(s) {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, '\\', 'n')
		case r == '\r':
			dst = append(dst, '\\', 'r')
		case r == '\t':
			dst = append(dst, '\\', 't')
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			dst = append(dst, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// decoder makes UTF-8 of bytes that come in pieces: a character that is cut by the end of a piece waits for the next.
type decoder struct {
	tail []byte
}

// append appends the characters of b that are whole, behind what was left before. What is not UTF-8 becomes U+FFFD, one for each byte, as
// terminals show it.
func (d *decoder) append(dst, b []byte) []byte {
	d.tail = append(d.tail, b...)
	rest := d.tail
	for len(rest) > 0 && utf8.FullRune(rest) {
		r, n := utf8.DecodeRune(rest)
		dst = utf8.AppendRune(dst, r)
		rest = rest[n:]
	}
	d.tail = d.tail[:copy(d.tail, rest)]
	return dst
}

// end appends what is left at the end.
func (d *decoder) end(dst []byte) []byte {
	for range d.tail {
		dst = utf8.AppendRune(dst, utf8.RuneError)
	}
	d.tail = d.tail[:0]
	return dst
}
