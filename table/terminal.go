package table

import (
	"io"
	"strings"

	"github.com/outsight-vmi/outsight/table/text"
)

const (
	// sampleRows set the widths of the columns: all the rows of most views, and
	// a bound on what is held back for the others.
	sampleRows = 1000
	// maxWidth is the widest that a column is made, the last one excepted.
	maxWidth = 40
)

// tableEncoder writes aligned columns.
type tableEncoder struct {
	w       io.Writer
	columns []Column
	o       Options
	held    [][]string
	widths  []int // set when the held rows are written
	out     []byte
}

func newTableEncoder(w io.Writer, columns []Column, o Options) *tableEncoder {
	e := &tableEncoder{w: w, columns: columns, o: o}
	if !o.NoHeader {
		names := make([]string, len(o.Columns))
		for place, i := range o.Columns {
			names[place] = strings.ToUpper(columns[i].Name)
		}
		e.held = append(e.held, names)
	}
	return e
}

func (e *tableEncoder) Row(r Row) error {
	cells := make([]string, len(e.o.Columns))
	for place, i := range e.o.Columns {
		cells[place] = e.o.cell(r[i])
	}
	if e.widths != nil {
		e.grow(cells)
		return e.write(cells)
	}
	e.held = append(e.held, cells)
	if len(e.held) < sampleRows {
		return nil
	}
	return e.release()
}

func (o Options) cell(v Value) string {
	if v.kind == Time && o.Zone != nil {
		return string(appendTime(nil, v, o.Zone))
	}
	return v.String()
}

func (e *tableEncoder) Close() error { return e.Flush() }

func (e *tableEncoder) Flush() error {
	if e.widths == nil {
		if err := e.release(); err != nil {
			return err
		}
	}
	_, err := e.w.Write(e.out)
	e.out = e.out[:0]
	return err
}

// grow makes columns as wide as the cells of a row.
func (e *tableEncoder) grow(cells []string) {
	for i, c := range cells {
		e.widths[i] = min(max(e.widths[i], text.Width(c)), maxWidth)
	}
}

// release sets the widths and writes the rows that were held back for them.
func (e *tableEncoder) release() error {
	e.widths = make([]int, len(e.o.Columns))
	for _, cells := range e.held {
		e.grow(cells)
	}
	for _, cells := range e.held {
		if err := e.write(cells); err != nil {
			return err
		}
	}
	e.held = nil
	return nil
}

func (e *tableEncoder) write(cells []string) error {
	var line strings.Builder
	last := len(cells) - 1
	for i, c := range cells {
		if e.o.Width > 0 && i < last {
			c = text.Cut(c, e.widths[i])
		}
		pad := strings.Repeat(" ", max(0, e.widths[i]-text.Width(c)))
		switch {
		case alignRight(e.columns[e.o.Columns[i]].Type):
			line.WriteString(pad + c)
		case i < last:
			line.WriteString(c + pad)
		default:
			line.WriteString(c)
		}
		if i < last {
			line.WriteString("  ")
		}
	}
	s := line.String()
	if e.o.Width > 0 {
		s = text.Cut(s, e.o.Width)
	}
	e.out = append(append(e.out, s...), '\n')
	if len(e.out) < flushAt {
		return nil
	}
	return e.Flush()
}

func alignRight(t Type) bool {
	switch t {
	case Int, Uint, Float, Addr, Size, Duration:
		return true
	}
	return false
}

// recordEncoder writes a row as lines of name and value.
type recordEncoder struct {
	w       io.Writer
	columns []Column
	o       Options
	width   int // of the names, with the space behind them
	rows    int
}

func newRecordEncoder(w io.Writer, columns []Column, o Options) *recordEncoder {
	e := &recordEncoder{w: w, columns: columns, o: o}
	for _, i := range o.Columns {
		e.width = max(e.width, len(columns[i].Name)+2)
	}
	return e
}

func (e *recordEncoder) Row(r Row) error {
	var out strings.Builder
	if e.rows++; e.rows > 1 {
		out.WriteByte('\n')
	}
	for _, i := range e.o.Columns {
		line := e.o.cell(r[i])
		if !e.o.NoHeader {
			name := e.columns[i].Name
			line = name + strings.Repeat(" ", e.width-len(name)) + line
		}
		if e.o.Width > 0 {
			line = text.Cut(line, e.o.Width)
		}
		out.WriteString(line + "\n")
	}
	_, err := io.WriteString(e.w, out.String())
	return err
}

func (e *recordEncoder) Close() error { return nil }

func (e *recordEncoder) Flush() error { return nil }
