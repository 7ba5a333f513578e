package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/outsight-vmi/outsight/table"
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
	f.sessions.show = func(e *trace.Event) error { return show.Event(e, nil) }
	var e trace.Event
	filter := eventFilter{where: where}
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
		row, ok, err := filter.pass(&e)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		shown++
		if err := show.Event(&e, row); err != nil {
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

func (f *traceFlags) shower(w io.Writer, o output) (shower, error) {
	switch {
	case f.summary && f.cr3:
		return nothing{}, nil // it is written at the end
	case f.summary:
		return &summary{w: w, calls: map[string]*callCount{}}, nil
	case f.strace && f.cr3:
		return newSpaceLines(w, o.options.Zone), nil
	case f.strace:
		return newStraceLines(w, o.options.Zone), nil
	}
	return newEventRows(w, o, liveFor)
}

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

func (s *summary) Event(e *trace.Event, _ table.Row) error {
	name := callName(e)
	c := s.calls[name]
	if c == nil {
		c = &callCount{name: name}
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
