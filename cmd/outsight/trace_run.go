package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
)

// run shows events until the user or the machine ends it.
func (f *traceFlags) run(ctx context.Context, stdout, stderr io.Writer, s trace.Stream, o output, where *where.Filter) (err error) {
	show, err := f.shower(stdout, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.sessions.Close(), show.Close()) }()
	f.sessions.show = show.Event
	var e trace.Event
	row := make(table.Row, len(trace.Columns))
	began, shown := time.Now(), uint64(0)
	for {
		switch err := s.Next(ctx, &e); {
		case errors.Is(err, trace.ErrEnded):
			warn(err)
			return f.report(stderr, s, began, shown)
		case ctx.Err() != nil: // Ctrl-C is how a trace ends
			return f.report(stderr, s, began, shown)
		case err != nil:
			return err
		}
		if e.Kind == trace.KindTerminal {
			if err := f.sessions.event(&e, s.Lost()); err != nil {
				return err
			}
			continue
		}
		if !f.wants(&e) {
			continue
		}
		if where != nil {
			trace.Fill(row, &e, nil)
			ok, err := where.Matches(row)
			if err != nil {
				return usagef("--where: %w", err)
			}
			if !ok {
				continue
			}
		}
		shown++
		if err := show.Event(&e); err != nil {
			return fmt.Errorf("write the output: %w", err)
		}
	}
}

// report says at the end how much was seen, and what was lost.
func (f *traceFlags) report(stderr io.Writer, s trace.Stream, began time.Time, shown uint64) error {
	lost := s.Lost()
	err := f.sessions.Close()
	fmt.Fprintf(stderr, "outsight: %d events in %v, %d lost\n", shown+f.sessions.events, time.Since(began).Round(time.Millisecond), lost)
	if lost > 0 || f.sessions.dropped > 0 {
		err = errors.Join(err, errIncomplete{})
	}
	return err
}

// shower shows events.
type shower interface {
	Event(e *trace.Event) error
	Close() error
}

func (f *traceFlags) shower(w io.Writer, o output) (shower, error) {
	if f.summary {
		return &summary{w: w, calls: map[string]*callCount{}}, nil
	}
	out := bufio.NewWriterSize(w, 64<<10)
	l := live{out: out, last: time.Now()}
	if f.strace {
		return &straceLines{live: l, zone: o.options.Zone}, nil
	}
	enc, err := table.NewEncoder(out, o.format, trace.Documented(), o.options)
	if err != nil {
		return nil, err
	}
	return &rows{live: l, enc: enc, wanted: o.options.Columns, row: make(table.Row, len(trace.Columns))}, nil
}

// live is output that is held back for a moment only while more comes: a system call for each line would be slower than
// what is shown.
type live struct {
	out  *bufio.Writer
	last time.Time
	n    int
}

const (
	liveLines = 256
	liveFor   = 20 * time.Millisecond
)

// due says whether what is held back is to be shown now. e is what was written last.
func (l *live) due(e *trace.Event) bool {
	l.n++
	now := time.Now()
	if l.n < liveLines && now.Sub(l.last) < liveFor && now.Sub(e.Time) > liveFor && e.Kind != trace.KindSession {
		return false
	}
	l.n, l.last = 0, now
	return true
}

// straceLines are lines as strace -f writes them.
type straceLines struct {
	live
	zone *time.Location
	line []byte
}

func (s *straceLines) Event(e *trace.Event) error {
	p := e.Process
	b := e.Time.In(s.zone).AppendFormat(s.line[:0], "15:04:05.000000")
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(e.TID), 10)
	if p.Comm != "" {
		b = text.AppendVisible(append(b, ' '), p.Comm)
	}
	b = append(append(b, "  "...), e.Name...)
	switch {
	case e.Kind == trace.KindWrite:
		b = append(append(b, ": "...), e.Object...)
		b = append(append(b, ' '), e.Args...)
	case e.Kind != trace.KindSyscall:
		b = append(append(b, ' '), e.Args...)
	default:
		b = append(append(append(b, '('), e.Args...), ')')
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
	if _, err := s.out.Write(s.line); err != nil {
		return err
	}
	if s.due(e) {
		return s.out.Flush()
	}
	return nil
}

func (s *straceLines) Close() error { return s.out.Flush() }

// rows are events in one of the output forms.
type rows struct {
	live
	enc    table.Encoder
	wanted table.Selection
	row    table.Row
}

func (r *rows) Event(e *trace.Event) error {
	trace.Fill(r.row, e, r.wanted)
	if err := r.enc.Row(r.row); err != nil {
		return err
	}
	if r.due(e) {
		return errors.Join(r.enc.Flush(), r.out.Flush())
	}
	return nil
}

func (r *rows) Close() error { return errors.Join(r.enc.Close(), r.out.Flush()) }

// summary counts, as strace -c does.
type summary struct {
	w     io.Writer
	calls map[string]*callCount
}

type callCount struct {
	name          string
	calls, errors int
	time          time.Duration
}

func (s *summary) Event(e *trace.Event) error {
	c := s.calls[e.Name]
	if c == nil {
		c = &callCount{name: e.Name}
		s.calls[c.name] = c
	}
	c.calls++
	c.time += e.Duration
	if e.Errno != "" {
		c.errors++
	}
	return nil
}

func (s *summary) Close() error {
	all := make([]*callCount, 0, len(s.calls))
	total := callCount{name: "total"}
	for _, c := range s.calls {
		all = append(all, c)
		total.calls += c.calls
		total.errors += c.errors
		total.time += c.time
	}
	slices.SortFunc(all, func(a, b *callCount) int { return int(b.time - a.time) })
	t := tabwriter.NewWriter(s.w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "% time\tseconds\tusecs/call\tcalls\terrors\t  syscall\t")
	for _, c := range append(all, &total) {
		share := 0.0
		if total.time > 0 {
			share = 100 * float64(c.time) / float64(total.time)
		}
		failed := ""
		if c.errors > 0 {
			failed = strconv.Itoa(c.errors)
		}
		fmt.Fprintf(t, "%.2f\t%.6f\t%d\t%d\t%s\t  %s\t\n", share, c.time.Seconds(), c.time.Microseconds()/int64(max(c.calls, 1)), c.calls, failed, c.name)
	}
	return t.Flush()
}
