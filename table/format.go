package table

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Format is a form that rows are written in.
type Format string

// The formats. docs/output.md describes them for users.
const (
	Table Format = "table" // for people
	JSON  Format = "json"  // one object a line
	CSV   Format = "csv"   // RFC 4180
)

// Formats is all of them, the default first.
var Formats = []Format{Table, JSON, CSV}

// ParseFormat finds a format by its name.
func ParseFormat(name string) (Format, error) {
	var names []string
	for _, f := range Formats {
		if string(f) == name {
			return f, nil
		}
		names = append(names, string(f))
	}
	return "", fmt.Errorf("no output format %q; there are %s", name, strings.Join(names, ", "))
}

// Options are the ways in which output can differ.
type Options struct {
	// Columns is what to show; nil is the default of the format.
	Columns Selection
	// NoHeader leaves the line of column names out (JSON has none).
	NoHeader bool
	// Width is how many cells a line of the terminal has: longer lines are cut.
	// 0 means that the output is not a terminal, and nothing is cut.
	Width int
	// Single writes the table form as lines of name and value, for a view of one
	// row.
	Single bool
	// Zone is for times in the table form; nil is UTC. The other forms always
	// use UTC.
	Zone *time.Location
}

// Encoder writes rows. Output may be held back until Flush or Close.
type Encoder interface {
	// Row writes one row. It does not keep it.
	Row(r Row) error
	// Flush writes what is held back, so that a stream shows each row at once. The table
	// form takes the widths of its columns from the rows that came before the first Flush;
	// afterwards a column grows with a wider cell, and never shrinks.
	Flush() error
	// Close writes what is left. It does not close the writer below.
	Close() error
}

// NewEncoder makes an encoder for rows of the given columns.
func NewEncoder(w io.Writer, f Format, columns []Column, o Options) (Encoder, error) {
	if o.Columns == nil {
		o.Columns, _ = Select(columns, "", f) // the default cannot fail
	}
	switch {
	case f == JSON:
		return newJSONEncoder(w, columns, o), nil
	case f == CSV:
		return newCSVEncoder(w, columns, o), nil
	case f == Table && o.Single:
		return newRecordEncoder(w, columns, o), nil
	case f == Table:
		return newTableEncoder(w, columns, o), nil
	}
	_, err := ParseFormat(string(f))
	return nil, err
}
