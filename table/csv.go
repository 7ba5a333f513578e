package table

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/outsight-vmi/outsight/table/text"
)

// csvEncoder writes RFC 4180 with two promises more. A record is one line of
// printable characters, as text is in the Visible form. And no cell with text is
// a formula to a spreadsheet: a first character that would make it one is
// escaped like those that do not print.
type csvEncoder struct {
	w       io.Writer
	columns Selection
	line    []byte
	cell    []byte
}

func newCSVEncoder(w io.Writer, columns []Column, o Options) *csvEncoder {
	e := &csvEncoder{w: w, columns: o.Columns}
	if o.NoHeader {
		return e
	}
	for place, i := range o.Columns {
		if place > 0 {
			e.line = append(e.line, ',')
		}
		e.line = append(e.line, columns[i].Name...)
	}
	e.endLine()
	return e
}

func (e *csvEncoder) endLine() { e.line = append(e.line, '\r', '\n') }

func (e *csvEncoder) Row(r Row) error {
	for place, i := range e.columns {
		if place > 0 {
			e.line = append(e.line, ',')
		}
		e.appendCell(r[i])
	}
	e.endLine()
	if len(e.line) < flushAt {
		return nil
	}
	return e.Flush()
}

func (e *csvEncoder) Close() error { return e.Flush() }

func (e *csvEncoder) Flush() error {
	_, err := e.w.Write(e.line)
	e.line = e.line[:0]
	return err
}

func (e *csvEncoder) appendCell(v Value) {
	switch v.Type() {
	case Null:
	case Text:
		e.cell = appendInert(e.cell[:0], v.text)
		e.appendQuoted(e.cell)
	case List, Numbers:
		e.cell = AppendJSON(e.cell[:0], v)
		e.appendQuoted(e.cell)
	default:
		e.line = appendPlain(e.line, v)
	}
}

// appendQuoted quotes where it has to, and an empty text, which is thus distinguished
// from a missing one.
func (e *csvEncoder) appendQuoted(cell []byte) {
	if len(cell) > 0 && !bytes.ContainsAny(cell, `",`) && cell[0] != ' ' && cell[len(cell)-1] != ' ' {
		e.line = append(e.line, cell...)
		return
	}
	e.line = append(e.line, '"')
	for _, c := range cell {
		if c == '"' {
			e.line = append(e.line, '"')
		}
		e.line = append(e.line, c)
	}
	e.line = append(e.line, '"')
}

// formulaStarts are the characters that begin a formula, in their full-width
// shapes too, which some spreadsheets accept.
const formulaStarts = "=+-@＝＋－＠"

func appendInert(dst []byte, s string) []byte {
	r, n := utf8.DecodeRuneInString(s)
	if n > 0 && strings.ContainsRune(formulaStarts, r) && r != utf8.RuneError {
		dst = text.AppendEscape(dst, r)
		s = s[n:]
	}
	return text.AppendVisible(dst, s)
}
