package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
)

// newViewCommand makes a verb of a view: its help, flags and work all come from
// the registry.
func newViewCommand(v table.View) *cobra.Command {
	spec := table.SpecOf(v)
	c := &cobra.Command{
		Use:     v.Name() + " [TARGET]",
		Short:   strings.TrimSuffix(table.Summary(v), "."),
		Example: "  outsight " + strings.TrimSpace(v.Name()+" "+spec.Example),
		Args:    oneTarget,
		GroupID: string(cmp.Or(spec.Group, table.Processes)),
	}
	var out outputFlags
	var access guestFlags
	filter := newFilterFlags(spec)
	out.add(c, v.Columns())
	filter.add(c)
	if spec.Host {
		c.Use, c.Args, c.GroupID = v.Name(), noTarget, groupHost
	} else {
		access.add(c)
		c.ValidArgsFunction = completeTarget
	}
	setLongHelp(c, v)

	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o, err := out.parse(c.OutOrStdout(), v.Columns(), filter.on()...)
		if err != nil {
			return err
		}
		o.options.Single, o.live = spec.Single, spec.Live
		where, err := filter.expression()
		if err != nil {
			return err
		}
		g, done, err := access.openFor(c.Context(), spec, args)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		var report table.Report
		rows, err := filter.noted(c.Context(), g, table.Rows(c.Context(), v, g, filter.request(o.options.Columns, where, o.order), &report))
		if err != nil {
			return err
		}
		var failed error
		if err := o.write(c.OutOrStdout(), v.Columns(), filtered(rows, where, &failed)); err != nil {
			return err
		}
		if absent := filter.absent(); len(absent) > 0 && report.Err == nil {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: %s: no rows for process %s: it does not exist, or has none\n", v.Name(), absent.String())
		}
		return errors.Join(failed, finish(c.ErrOrStderr(), v, &report))
	}
	return c
}

// finish prints what a view could not read, and returns why it ended early, or that it is
// incomplete.
func finish(stderr io.Writer, v table.View, r *table.Report) error {
	for _, line := range r.Diagnostics(v) {
		fmt.Fprintln(stderr, "outsight: "+sentence(line))
	}
	if r.Err == nil && r.Absent > 0 {
		return errIncomplete{}
	}
	return r.Err
}

// setLongHelp derives the description of a verb when it is asked for: most runs
// never show it.
func setLongHelp(c *cobra.Command, v table.View) {
	help := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		c.Long = viewHelp(v)
		help(c, args)
	})
}

// viewHelp is a view's documentation with its columns.
func viewHelp(v table.View) string {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(v.Doc()))
	b.WriteString("\n\nColumns (those with a star are in the table form only with --columns):\n")
	width := 0
	for _, col := range v.Columns() {
		width = max(width, len(col.Name))
	}
	for _, col := range v.Columns() {
		if col.Option {
			continue
		}
		star := " "
		if col.Extra {
			star = "*"
		}
		fmt.Fprintf(&b, "  %-*s%s %-8s  %s\n", width, col.Name, star, col.Type, col.Doc)
	}
	if spec := table.SpecOf(v); spec.Source != "" {
		b.WriteString("\nRead from " + wrapped(spec.Source+".", 80, len("Read from ")))
	}
	return strings.TrimRight(b.String(), "\n")
}

// wrapped is s in lines of so many characters, of which the first has some already.
func wrapped(s string, width, taken int) string {
	var b strings.Builder
	for i, word := range strings.Fields(s) {
		if n := len([]rune(word)); taken+1+n > width {
			b.WriteByte('\n')
			taken = n
		} else {
			if i > 0 {
				b.WriteByte(' ')
			}
			taken += 1 + n
		}
		b.WriteString(word)
	}
	return b.String()
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
