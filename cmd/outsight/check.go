package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/table"
)

const checkLong = `Judge a guest: find what lies, what is hidden, and what was changed. Nothing is needed in
the guest, and nothing has to be prepared: what must agree in a healthy kernel is compared.

Each line is a finding: something that a guest which nobody tampered with does not show. The
columns say what was expected and what is there, with addresses and bytes; show is the
command that shows it by hand, next what to do about it. A guest that runs is looked at again before a
finding counts, so that what is just being made or ended is not one.

Exit status: 0 nothing was found; 1 something was found; 3 something could not be checked,
and nothing was found in the rest.`

type checkFlags struct {
	guest      guestFlags
	out        outputFlags
	only, skip []string
	list       bool
}

func newCheckCommand() *cobra.Command {
	var f checkFlags
	c := &cobra.Command{
		Use:   "check [TARGET]",
		Short: "Judge a guest: find what lies, what is hidden, and what was changed",
		Long:  checkLong,
		Example: `  outsight check lab:demo
  outsight check memory.raw -o json
  outsight check vm1 --only hidden-process,hidden-module
  outsight check --list`,
		GroupID:           groupAsk,
		ValidArgsFunction: completeTarget,
		Args:              oneTarget,
		RunE:              func(c *cobra.Command, args []string) error { return f.run(c, optionalTarget(args)) },
	}
	f.guest.add(c)
	f.out.add(c, check.View(nil).Columns())
	c.Flags().StringSliceVar(&f.only, "only", nil, "run only these `checks`, with commas between them")
	c.Flags().StringSliceVar(&f.skip, "skip", nil, "leave these `checks` out")
	c.Flags().BoolVar(&f.list, "list", false, "describe the checks instead of running them")
	var ids []string
	for _, k := range check.All() {
		ids = append(ids, k.ID)
	}
	complete := cobra.FixedCompletions(ids, cobra.ShellCompDirectiveNoFileComp)
	_ = c.RegisterFlagCompletionFunc("only", complete) // the flags were defined above
	_ = c.RegisterFlagCompletionFunc("skip", complete)
	return c
}

func (f *checkFlags) run(c *cobra.Command, target string) (err error) {
	checks, err := check.Select(f.only, f.skip)
	if err != nil {
		return usagef("%w", err)
	}
	if f.list {
		return listChecks(c.OutOrStdout(), checks)
	}
	if len(checks) == 0 {
		return usagef("no check is left to run")
	}
	o, err := f.out.parse(c.OutOrStdout(), check.View(nil).Columns())
	if err != nil {
		return err
	}
	g, err := f.guest.session(c.Context(), target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	result, err := check.Run(c.Context(), g, checks)
	if err != nil {
		return err
	}
	for _, found := range result.Findings {
		found.Show = strings.ReplaceAll(found.Show, "{}", shellQuote([]string{g.Target()}))
	}
	v := check.View(result.Findings)
	var report table.Report
	if err := o.write(c.OutOrStdout(), v.Columns(), table.Rows(c.Context(), v, nil, table.Request{}, &report)); err != nil {
		return err
	}
	return f.conclude(c.ErrOrStderr(), result)
}

// conclude says what was done, and what could not be.
func (f *checkFlags) conclude(stderr io.Writer, r *check.Result) error {
	for _, gap := range r.Gaps {
		fmt.Fprintln(stderr, "outsight: not checked: "+sentence(gap.String()))
	}
	if f.guest.verbose {
		for _, gap := range r.Unsupported {
			fmt.Fprintln(stderr, "outsight: nothing to check: "+sentence(gap.String()))
		}
	}
	switch n := len(r.Findings); {
	case n > 0:
		fmt.Fprintf(stderr, "outsight: %s by %s\n", counted(n, "finding"), counted(r.Ran, "check"))
		return errFound
	case len(r.Gaps) > 0:
		fmt.Fprintf(stderr, "outsight: nothing found by %s, but not everything could be checked\n", counted(r.Ran, "check"))
		return errIncomplete{}
	}
	fmt.Fprintf(stderr, "outsight: nothing found by %s\n", counted(r.Ran, "check"))
	return nil
}

// counted is a number with its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func listChecks(w io.Writer, checks []*check.Check) error {
	for i, k := range checks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		_, err := fmt.Fprintf(w, "%s (%s, %s)\n  %s.\n\n  compares  %s\n  proves    %s\n  blind to  %s\n  next      %s\n",
			k.ID, k.Severity, k.Technique, k.Title, k.Source, folded(k.Proves), folded(k.Blind), folded(k.Next))
		if err != nil {
			return err
		}
	}
	return nil
}

// folded joins the lines of a text and breaks it where a terminal would.
func folded(s string) string {
	const width = 78
	var b strings.Builder
	n := 12
	for word := range strings.FieldsSeq(s) {
		if n > 12 && n+len(word) > width {
			b.WriteString("\n            ")
			n = 12
		} else if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
		n += len(word) + 1
	}
	return b.String()
}
