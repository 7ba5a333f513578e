package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/outsight-vmi/outsight/table"
)

// outputFlags are the flags of every command that shows rows.
type outputFlags struct {
	format   string
	columns  string
	sort     string
	noHeader bool
	single   bool // one row, as lines of name and value
}

func (f *outputFlags) add(c *cobra.Command, columns []table.Column) {
	var names, formats []string
	for _, col := range columns {
		if !col.Option {
			names = append(names, col.Name)
		}
	}
	for _, format := range table.Formats {
		formats = append(formats, string(format))
	}
	c.Flags().StringVarP(&f.format, "output", "o", string(table.Formats[0]), "output `format`: "+strings.Join(formats, ", "))
	c.Flags().StringVar(&f.columns, "columns", "", "the `columns` to show: names, or all, or +names for these too")
	c.Flags().StringVar(&f.sort, "sort", "", "sort by these `columns`; -name for descending")
	c.Flags().BoolVar(&f.noHeader, "no-header", false, "leave the column names out")
	fixed := func(values []string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	}
	// The flags were defined above: this cannot fail.
	_ = c.RegisterFlagCompletionFunc("output", fixed(formats))
	_ = c.RegisterFlagCompletionFunc("columns", fixed(names))
	_ = c.RegisterFlagCompletionFunc("sort", fixed(names))
}

// output is outputFlags, read.
type output struct {
	format  table.Format
	options table.Options
	order   table.Order
	live    bool // each row is shown at once
}

// parse reads the flags; options are the option columns that are on.
func (f *outputFlags) parse(w io.Writer, columns []table.Column, options ...string) (out output, err error) {
	if out.format, err = table.ParseFormat(f.format); err != nil {
		return out, usagef("%w", err)
	}
	out.options = table.Options{NoHeader: f.noHeader, Width: terminalWidth(w), Zone: time.Local, Single: f.single}
	if out.options.Columns, err = table.Select(columns, f.columns, out.format, options...); err != nil {
		return out, usagef("--columns: %w", err)
	}
	if out.order, err = table.ParseOrder(columns, f.sort); err != nil {
		return out, usagef("--sort: %w", err)
	}
	return out, nil
}

// terminalWidth is how many cells a line of w has; 0 where w is not a terminal.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 20 {
		return 80
	}
	return width
}

// write encodes rows, sorted if the user wants it.
func (out output) write(w io.Writer, columns []table.Column, rows iter.Seq[table.Row]) error {
	enc, err := table.NewEncoder(w, out.format, columns, out.options)
	if err != nil {
		return err
	}
	if out.order != nil {
		rows = sorted(rows, out.order)
	}
	f := &flusher{Encoder: enc}
	switch {
	case out.live:
		f.held = held{flush: enc.Flush}
	case out.options.Width > 0:
		f.held = held{flush: enc.Flush, after: flushAfter}
	}
	for row := range rows {
		if err := f.Row(row); err != nil {
			return fmt.Errorf("write the output: %w", err)
		}
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	return nil
}

// flushAfter is how long a terminal shows less than was read. Most views end sooner, and so
// have columns that are as wide as their widest cells.
const flushAfter = 250 * time.Millisecond

// held is output that is shown in time: what is written at once, or what has waited for a while, also where
// more takes long to come.
type held struct {
	flush func() error  // nil: it is shown when it ends
	after time.Duration // 0: each at once

	mu    sync.Mutex
	timer *time.Timer // made once
	runs  bool        // the timer does: something is held back
	err   error       // of a flush that the timer began
}

// written is called with what h guards locked, when something was written.
func (h *held) written() error {
	if h.flush == nil {
		return nil
	}
	if h.after == 0 {
		return h.flush()
	}
	if !h.runs {
		h.runs = true
		if h.timer == nil {
			h.timer = time.AfterFunc(h.after, h.due)
		} else {
			h.timer.Reset(h.after)
		}
	}
	return nil
}

func (h *held) due() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs {
		h.runs, h.err = false, h.flush()
	}
}

// end stops the timer.
func (h *held) end() {
	h.runs = false
	if h.timer != nil {
		h.timer.Stop()
	}
}

// flusher shows rows in time.
type flusher struct {
	table.Encoder
	held
}

func (f *flusher) Row(r table.Row) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.err, f.Encoder.Row(r)); err != nil {
		return err
	}
	return f.written()
}

func (f *flusher) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
	return errors.Join(f.err, f.Encoder.Close())
}

func collect(rows iter.Seq[table.Row]) []table.Row {
	var all []table.Row
	for row := range rows {
		all = append(all, row.Clone())
	}
	return all
}

func sorted(rows iter.Seq[table.Row], o table.Order) iter.Seq[table.Row] {
	return func(yield func(table.Row) bool) {
		all := collect(rows)
		o.Sort(all)
		for _, row := range all {
			if !yield(row) {
				return
			}
		}
	}
}
