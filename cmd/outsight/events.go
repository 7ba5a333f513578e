package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
)

// eventFilter is the --where of commands that show events.
type eventFilter struct {
	where *where.Filter // nil: all
	row   table.Row
}

// pass says whether an event is wanted. The row is nil unless it had to be made for that; then it has every column.
func (f *eventFilter) pass(e *trace.Event) (row table.Row, ok bool, err error) {
	if f.where == nil {
		return nil, true, nil
	}
	if f.row == nil {
		f.row = make(table.Row, len(trace.Columns))
	}
	trace.Fill(f.row, e, nil)
	if ok, err = f.where.Matches(f.row); err != nil {
		return nil, false, usagef("--where: %w", err)
	}
	return f.row, ok, nil
}

// shower shows events.
type shower interface {
	// Event shows one. Its row is nil if nobody has made it yet.
	Event(e *trace.Event, row table.Row) error
	Close() error
}

// liveFor is how long an event is held back while more come: a system call of the host's for each would be slower than what
// is shown.
const liveFor = 20 * time.Millisecond

// straceLines are lines as strace -f writes them.
type straceLines struct {
	held
	out  *bufio.Writer
	zone *time.Location
	line []byte
}

func newStraceLines(w io.Writer, zone *time.Location) *straceLines {
	s := &straceLines{out: bufio.NewWriterSize(w, 64<<10), zone: zone}
	s.flush, s.after = s.out.Flush, liveFor
	return s
}

func (s *straceLines) Event(e *trace.Event, _ table.Row) error {
	p := e.Process
	b := e.Time.In(s.zone).AppendFormat(s.line[:0], "15:04:05.000000")
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(e.TID), 10)
	if p != nil && p.Comm != "" {
		b = text.AppendVisible(append(b, ' '), p.Comm)
	}
	b = append(b, "  "...)
	switch {
	case e.Name == "" || e.Kind == trace.KindFinding: // no call: a process, a module, what is found
		b = text.AppendVisible(append(append(b, string(e.Kind)...), ' '), e.What())
	case e.Kind == trace.KindWrite:
		b = append(b, callName(e)...)
		b = append(append(b, ": "...), e.Object...)
		b = append(append(b, ' '), e.Args...)
	case e.Kind != trace.KindSyscall && e.Kind != trace.KindIOURing:
		b = append(append(append(b, callName(e)...), ' '), e.Args...)
	default:
		b = append(append(append(append(b, callName(e)...), '('), e.Args...), ')')
		if e.Returned {
			b = append(append(b, " = "...), e.Result...)
		} else {
			b = append(b, " = ?"...)
		}
	}
	if e.Note != "" {
		b = append(append(append(b, "  <"...), e.Note...), '>')
	}
	s.line = append(b, '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(s.line); err != nil {
		return err
	}
	return errors.Join(s.err, s.written())
}

// callName is the name of a system call, or io_uring's of an operation.
func callName(e *trace.Event) string {
	if e.Kind == trace.KindIOURing {
		return "io_uring:" + e.Name
	}
	return e.Name
}

func (s *straceLines) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	return errors.Join(s.err, s.out.Flush())
}

// eventRows are events in one of the output forms.
type eventRows struct {
	flusher
	wanted table.Selection
	row    table.Row
}

// newEventRows shows events at most after so long.
func newEventRows(w io.Writer, o output, after time.Duration) (*eventRows, error) {
	enc, err := table.NewEncoder(w, o.format, trace.Documented(), o.options)
	if err != nil {
		return nil, err
	}
	r := &eventRows{wanted: o.options.Columns, row: make(table.Row, len(trace.Columns))}
	r.Encoder, r.flush, r.after = enc, enc.Flush, after
	return r, nil
}

func (r *eventRows) Event(e *trace.Event, row table.Row) error {
	if row == nil {
		row = r.row
		trace.Fill(row, e, r.wanted)
	}
	return r.Row(row)
}

// eventLines are events as lines for people, each at once.
type eventLines struct {
	w    io.Writer
	line []byte
}

func newEventLines(w io.Writer, header bool) (*eventLines, error) {
	if header {
		if _, err := fmt.Fprintln(w, trace.LineHeader); err != nil {
			return nil, err
		}
	}
	return &eventLines{w: w}, nil
}

func (l *eventLines) Event(e *trace.Event, _ table.Row) error {
	l.line = append(e.AppendLine(l.line[:0], time.Local), '\n')
	_, err := l.w.Write(l.line)
	return err
}

func (l *eventLines) Close() error { return nil }
