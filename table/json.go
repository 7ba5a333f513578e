package table

import (
	"encoding/hex"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/outsight-vmi/outsight/table/text"
)

type jsonEncoder struct {
	w       io.Writer
	columns Selection
	keys    []string // `"pid":`, by place in columns
	line    []byte
}

// flushAt is how much output is gathered before it is written, in bytes.
const flushAt = 64 << 10

func newJSONEncoder(w io.Writer, columns []Column, o Options) *jsonEncoder {
	e := &jsonEncoder{w: w, columns: o.Columns}
	for _, i := range o.Columns {
		e.keys = append(e.keys, string(text.AppendJSON(nil, columns[i].Name))+":")
	}
	return e
}

func (e *jsonEncoder) Row(r Row) error {
	e.line = append(e.line, '{')
	for place, i := range e.columns {
		if place > 0 {
			e.line = append(e.line, ',')
		}
		e.line = append(e.line, e.keys[place]...)
		e.line = AppendJSON(e.line, r[i])
	}
	e.line = append(e.line, '}', '\n')
	if len(e.line) < flushAt {
		return nil
	}
	return e.Flush()
}

func (e *jsonEncoder) Close() error { return e.Flush() }

func (e *jsonEncoder) Flush() error {
	_, err := e.w.Write(e.line)
	e.line = e.line[:0]
	return err
}

// AppendJSON appends v to dst as JSON, in the form that [Type] gives for each
// type.
func AppendJSON(dst []byte, v Value) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(dst, v.Bool())
	case Int:
		return strconv.AppendInt(dst, v.Int(), 10)
	case Uint, Size:
		return strconv.AppendUint(dst, v.num, 10)
	case Float:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(dst, "null"...)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case Duration:
		return appendSeconds(dst, v.Duration())
	case Addr, Time, Bytes:
		dst = append(dst, '"')
		return append(appendPlain(dst, v), '"')
	case Text:
		return text.AppendJSON(dst, v.text)
	case List:
		dst = append(dst, '[')
		for i, s := range v.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = text.AppendJSON(dst, s)
		}
		return append(dst, ']')
	case Numbers:
		dst = append(dst, '[')
		for i, s := range v.list {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, s...)
		}
		return append(dst, ']')
	}
	return append(dst, "null"...)
}

// appendPlain writes the values that JSON and CSV write alike but for quotes.
func appendPlain(dst []byte, v Value) []byte {
	switch v.kind {
	case Addr:
		return appendAddr(dst, v.num)
	case Time:
		return v.Time().AppendFormat(dst, time.RFC3339Nano)
	case Bytes:
		return hex.AppendEncode(dst, []byte(v.text))
	}
	return AppendJSON(dst, v)
}

func appendAddr(dst []byte, a uint64) []byte {
	return strconv.AppendUint(append(dst, "0x"...), a, 16)
}

// appendSeconds writes d exactly: through a float, long times would lose their
// last digits.
func appendSeconds(dst []byte, d time.Duration) []byte {
	n := uint64(d)
	if d < 0 {
		dst = append(dst, '-')
		n = -n
	}
	dst = strconv.AppendUint(dst, n/1e9, 10)
	frac := n % 1e9
	if frac == 0 {
		return dst
	}
	start := len(dst)
	dst = strconv.AppendUint(dst, 1e9+frac, 10) // the 1 keeps the zeros, and becomes the point
	dst[start] = '.'
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}
