package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/text"
	"github.com/outsight-vmi/outsight/table/where"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// notWithCR3 are flags about system calls, or places in the kernel.
var notWithCR3 = []string{"syscalls", "probe", "write", "hold-exec", "hold-calls", "hold-limit", "hold-stop", "string-limit"}

// cr3Target is a machine whose address spaces are traced: with its guest, or as long as no kernel is known in it, without.
type cr3Target struct {
	m     *vm.Machine
	g     *guest.Guest
	close []func() error
}

// openCR3 opens a TARGET, whatever runs in it.
func (f *guestFlags) openCR3(ctx context.Context, target string) (t *cr3Target, o addrspace.Options, err error) {
	t = &cr3Target{}
	var unknown error
	if t.g, unknown = f.session(ctx, target); unknown == nil {
		t.m, o.Guest = t.g.Machine(), t.g
		t.close = append(t.close, t.g.Close)
		return t, o, tcg.Available(t.m)
	}
	if t.m, err = local.Host().Open(ctx, target, vm.Options{}); err != nil {
		return nil, o, unknown // it says more
	}
	t.close = append(t.close, t.m.Close)
	if err := tcg.Available(t.m); err != nil {
		return t, o, err
	}
	warn(fmt.Sprintf("no kernel is known yet (%v): address spaces are shown without names until one is", unknown))
	o.Identify = func(ctx context.Context) (*guest.Guest, error) {
		options := f.options()
		options.Warn = nil // it is tried again
		g, err := guest.Open(ctx, target, options)
		if err != nil {
			return nil, err
		}
		t.g = g
		l, err := g.Look(ctx)
		if err != nil {
			return nil, errors.Join(err, g.Close())
		}
		warn(l.Profile())
		return g, l.Close()
	}
	return t, o, nil
}

// Close closes what was opened.
func (t *cr3Target) Close() (err error) {
	if t.g != nil && len(t.close) > 0 && t.m != t.g.Machine() {
		err = t.g.Close()
	}
	for _, c := range t.close {
		err = errors.Join(err, c())
	}
	return err
}

// runCR3 traces address spaces.
func (f *traceFlags) runCR3(c *cobra.Command, access *guestFlags, target string, o output, where *where.Filter) (err error) {
	for _, name := range notWithCR3 {
		if c.Flags().Changed(name) {
			return usagef("--%s does not go with --cr3, which shows address spaces", name)
		}
	}
	t, options, err := access.openCR3(c.Context(), target)
	if t != nil {
		defer func() { err = errors.Join(err, t.Close()) }()
	}
	if err != nil {
		return err
	}
	options.Switches = f.switches
	for _, i := range o.options.Columns {
		options.Fields = options.Fields || trace.Documented()[i].Name == "fields"
	}
	s, err := addrspace.Start(c.Context(), t.m, options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := f.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), s, o, where); err != nil {
		return err
	}
	if f.summary {
		return writeSpaces(c.OutOrStdout(), s.Summary())
	}
	return nil
}

// spaceLines are lines for people.
type spaceLines struct {
	held
	out  *bufio.Writer
	zone *time.Location
	line []byte
}

func newSpaceLines(w io.Writer, zone *time.Location) *spaceLines {
	s := &spaceLines{out: bufio.NewWriterSize(w, 64<<10), zone: zone}
	_, _ = s.out.WriteString("TIME             EVENT   SPACE              PID  COMM             WHAT\n") // an error comes again with the first line
	s.flush, s.after = s.out.Flush, liveFor
	return s
}

func (s *spaceLines) Event(e *trace.Event, _ table.Row) error {
	pid, comm := "-", "-"
	if e.Process != nil {
		pid, comm = strconv.Itoa(int(e.Process.PID)), text.Visible(e.Process.Comm)
	}
	what := e.Args
	if e.Note != "" {
		what += "  # " + e.Note
	}
	b := e.Time.In(s.zone).AppendFormat(s.line[:0], "15:04:05.000000")
	b = fmt.Appendf(b, "  %-6s  %-14s %7s  %-15s  %s", strings.TrimPrefix(string(e.Kind), "addrspace-"), e.Object, pid, comm, what)
	s.line = append(trimRight(b), '\n')
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(s.line); err != nil {
		return err
	}
	return errors.Join(s.err, s.written())
}

func trimRight(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return b
}

func (s *spaceLines) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
	return errors.Join(s.err, s.out.Flush())
}

// nothing shows no events: they are only counted.
type nothing struct{}

func (nothing) Event(*trace.Event, table.Row) error { return nil }
func (nothing) Close() error                        { return nil }

// summaryRows is how many address spaces a summary shows.
const summaryRows = 50

// writeSpaces writes what ran, as top does.
func writeSpaces(out io.Writer, sum addrspace.Summary) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%d address spaces created, %d ended; processors idle for %.1f %% of the time, in the kernel alone for %.1f %%\n\n",
		sum.Created, sum.Ended, 100*sum.Share(sum.Idle), 100*sum.Share(sum.Kernel))
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "CPU%\tSECONDS\tTURNS\tSPACE\tPID\tCOMM\tSTATE")
	rest := sum.Others
	for i := range sum.Spaces {
		s := &sum.Spaces[i]
		if i >= summaryRows {
			rest += s.CPU
			continue
		}
		pid, comm, state := "-", "-", "there"
		if s.Owner.Known() {
			pid, comm = strconv.Itoa(int(s.Owner.PID)), text.Visible(s.Owner.Comm)
		}
		if !s.Ended.IsZero() {
			state = "ended"
		}
		fmt.Fprintf(t, "%.2f\t%.6f\t%d\t%#x\t%s\t%s\t%s\n", 100*sum.Share(s.CPU), s.CPU.Seconds(), s.Turns, s.Root, pid, comm, state)
	}
	if rest > 0 {
		fmt.Fprintf(t, "%.2f\t%.6f\t\tall others\t\t\t\n", 100*sum.Share(rest), rest.Seconds())
	}
	return errors.Join(t.Flush(), w.Flush())
}
