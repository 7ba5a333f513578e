package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/planted"
)

const probeLong = `Plant probes in a guest, list and remove them.

A probe is a BPF program that the guest's own kernel verifies and runs at full speed, with any monitor (KVM, too). It is
planted by writes to the guest's memory: nothing is installed, and the guest is not stopped. It is the only thing by which outsight
changes a guest, and it is never done unasked. What is written, what the guest sees of it, and when not to use it:
docs/planted.md.`

func newProbeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "probe",
		Short:   "Plant probes in a guest, list and remove them",
		Long:    probeLong,
		Example: "  outsight probe plant vm1 --dry-run\n  outsight probe list vm1\n  outsight probe remove vm1",
		GroupID: groupAsk,
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownVerb(c, args[0])
		}
		return c.Help()
	}
	c.AddCommand(newProbePlantCommand(), newProbeListCommand(), newProbeRemoveCommand())
	return c
}

const probePlantLong = `Plant probes in a guest: programs that report each fork, execution, exit and module, and a few system calls that matter.

"outsight trace --plant" reads what they report, also later, from another session. They stay until "outsight probe remove", or until the guest boots
again. What is written, and where, is printed before.

Exit status: 0 they are planted; 3 they are not: the message says why.`

func newProbePlantCommand() *cobra.Command {
	var access guestFlags
	var calls, tracepoints []string
	var exec, dry bool
	c := &cobra.Command{
		Use:   "plant [TARGET]",
		Short: "Plant probes in a guest",
		Long:  probePlantLong,
		Example: `  outsight probe plant vm1 --dry-run
  outsight probe plant vm1
  outsight probe plant vm1 --exec
  outsight probe plant vm1 --syscalls openat,connect
  outsight probe plant vm1 --tracepoint 'signal_generate sig task->pid task->comm'`,
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
	}
	c.Flags().BoolVar(&exec, "exec", false, "only processes that begin, run a program, or end")
	c.Flags().StringSliceVar(&calls, "syscalls", nil, "these system calls instead: `names` with commas between them, or all; default "+strings.Join(planted.DefaultCalls, ","))
	c.Flags().StringArrayVar(&tracepoints, "tracepoint", nil, "this tracepoint, too, with arguments by name and members behind: `'NAME ARG[->MEMBER]...'`; may be repeated")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be written, and where")
	c.Flags().BoolVar(&access.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if exec && calls != nil {
			return usagef("--exec and --syscalls exclude each other")
		}
		o := plantedOptions(calls, exec)
		o.Tracepoints = tracepoints
		g, err := access.session(c.Context(), optionalTarget(args))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		plan, err := preparePlanting(c.Context(), g, o)
		if err != nil {
			return plantingFailed(g, err)
		}
		describe(c.ErrOrStderr(), g, plan)
		if dry {
			return nil
		}
		p, err := plan.Plant(c.Context())
		if err != nil {
			return plantingFailed(g, err)
		}
		fmt.Fprintf(c.ErrOrStderr(), "outsight: planted %s; outsight trace %s --plant reads them, outsight probe remove %[2]s removes them\n", counted(len(plan.Programs()), "program"), sentence(g.Target()))
		return reportProblems(p)
	}
	return c
}

// plantedOptions are those of a planting, by the flags.
func plantedOptions(calls []string, exec bool) (o planted.Options) {
	switch {
	case exec:
		o.Calls, o.Kinds = []string{}, []trace.Kind{trace.KindFork, trace.KindExec, trace.KindExit}
	case slices.Contains(calls, "all"):
		o.All = true
	case calls != nil:
		o.Calls = calls
	}
	return o
}

func preparePlanting(ctx context.Context, g *guest.Guest, o planted.Options) (*plant.Plan, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	load, err := planted.Compile(ctx, l, o)
	if err != nil {
		return nil, err
	}
	return plant.Prepare(ctx, g, *load)
}

// describe says what is about to be written into a guest.
func describe(w io.Writer, g *guest.Guest, plan *plant.Plan) {
	fmt.Fprintf(w, "outsight: into the memory of %s:\n", sentence(g.Target()))
	for _, piece := range plan.Writes {
		fmt.Fprintf(w, "  %#x  %6d bytes  %s\n", uint64(piece.At), piece.Size, piece.What)
	}
	if plan.Note != "" {
		fmt.Fprintf(w, "outsight: %s\n", sentence(plan.Note))
	}
}

// plantingFailed says of which guest it is that nothing was planted, and that it is not for a fault.
func plantingFailed(g *guest.Guest, err error) error {
	var refused *plant.RefusedError
	if errors.As(err, &refused) {
		return fmt.Errorf("nothing is written into %s: %w", g.Target(), err)
	}
	return fmt.Errorf("plant probes in %s: %w", g.Target(), err)
}

func reportProblems(p *plant.Planting) error {
	for _, problem := range p.Problems {
		warn("not as it was planted: " + problem)
	}
	if len(p.Problems) > 0 {
		return errFound
	}
	return nil
}

const probeListLong = `List the probes that outsight has planted in a guest, by whomever and whenever, and what is not as it was planted.

Exit status: 0 all is as it was planted, or nothing is; 1 something differs.`

func newProbeListCommand() *cobra.Command {
	var access guestFlags
	var out outputFlags
	c := &cobra.Command{
		Use:               "list [TARGET]",
		Short:             "List the probes in a guest",
		Long:              probeListLong,
		Example:           "  outsight probe list vm1\n  outsight probe list vm1 -o json",
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
	}
	out.add(c, probeView(nil).Columns())
	c.Flags().BoolVar(&access.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		o, err := out.parse(c.OutOrStdout(), probeView(nil).Columns())
		if err != nil {
			return err
		}
		g, err := access.session(c.Context(), optionalTarget(args))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		p, err := plant.Find(c.Context(), g)
		if err != nil && !errors.Is(err, plant.ErrNothing) {
			return err
		}
		var rows []*probeRow
		if p == nil {
			warn(err)
			p = &plant.Planting{}
		}
		for i := range p.Objects {
			rows = append(rows, &probeRow{&p.Objects[i], p})
		}
		if len(rows) > 0 || o.format != table.Table {
			if err := showList(c, o, probeView(slices.Values(rows))); err != nil {
				return err
			}
		}
		if p.State != "" && p.State != "done" {
			warn(fmt.Sprintf("the last job is %s", p.State))
		}
		return reportProblems(p)
	}
	return c
}

// probeRow is an object that is planted.
type probeRow struct {
	*plant.Object
	of *plant.Planting
}

func probeView(rows iter.Seq[*probeRow]) table.View {
	return listView(table.Spec{Name: "probe", Doc: "Show what is planted.", Host: true, Key: []string{"kind", "id"}}, probeColumns, rows)
}

var probeColumns = table.Columns[probeRow]{
	{Name: "kind", Type: table.Text, Doc: "Kind of the BPF object: map, program or link.", Get: func(p *probeRow) table.Value { return table.TextValue(p.Kind) }},
	{Name: "id", Type: table.Uint, Doc: "Its number in the guest, as bpftool shows it; missing if it is gone.", Get: func(p *probeRow) table.Value {
		if p.ID == 0 {
			return table.Value{}
		}
		return table.UintValue(uint64(p.ID))
	}},
	{Name: "name", Type: table.Text, Doc: "Its name; of a link, that of its program.", Get: func(p *probeRow) table.Value { return textOrMissing(p.Name) }},
	{Name: "fd", Type: table.Int, Doc: "Descriptor in the files of the kernel's threads (/proc/2/fd).", Get: func(p *probeRow) table.Value {
		if p.FD < 0 {
			return table.Value{}
		}
		return table.IntValue(int64(p.FD))
	}},
	{Name: "planted", Type: table.Time, Doc: "When it was planted, by the clock of the host that did.", Get: func(p *probeRow) table.Value { return table.TimeValue(p.of.When) }},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the object; missing if it is gone.", Get: func(p *probeRow) table.Value {
		if p.Addr == 0 {
			return table.Value{}
		}
		return table.AddrValue(uint64(p.Addr))
	}},
	{Name: "planting", Type: table.Text, Extra: true, Doc: "Number of the planting, in hex.", Get: func(p *probeRow) table.Value { return table.TextValue(p.of.ID) }},
}

const probeRemoveLong = `Remove the probes that outsight has planted in a guest, and make its memory what it was before.

It works for whatever was planted by whomever: after the process that planted was killed, and in a restored snapshot.`

func newProbeRemoveCommand() *cobra.Command {
	var access guestFlags
	c := &cobra.Command{
		Use:               "remove [TARGET]",
		Short:             "Remove the probes from a guest",
		Long:              probeRemoveLong,
		Example:           "  outsight probe remove vm1",
		Args:              oneTarget,
		ValidArgsFunction: completeTarget,
	}
	c.Flags().BoolVar(&access.noCache, "no-cache", false, "analyze the kernel again, without the profiles kept on disk")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		g, err := access.session(c.Context(), optionalTarget(args))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		p, err := plant.Find(c.Context(), g)
		if errors.Is(err, plant.ErrNothing) {
			warn(err)
			return nil
		}
		if err != nil {
			return err
		}
		if err := p.Remove(c.Context()); err != nil {
			return fmt.Errorf("remove the probes from %s: %w", g.Target(), err)
		}
		fmt.Fprintf(c.ErrOrStderr(), "outsight: the probes are removed from %s, and its memory is as before\n", sentence(g.Target()))
		return nil
	}
	return c
}
