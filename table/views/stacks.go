package views

import (
	"context"
	"errors"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "stacks",
		Doc: `Show where threads stand in the kernel: the calls in which they wait.

The innermost call is first, as in /proc/PID/stack: the scheduler's own functions are left
out. The kernel's own notes for unwinding (ORC) are followed, so frames are not guessed.
Where a running thread is, is not in memory but in its processor's registers: with --running, of
a guest that stands still (--pause, or a dump that was taken with it and has registers), its stack
is walked too, from the function that it is in; it is empty while the program itself runs. An
idle processor runs none of the threads that are listed. One that has ended has no stack.`,
		Columns: []table.Column{
			{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
			{Name: "tid", Type: table.Int, Doc: "Thread."},
			{Name: "comm", Type: table.Text, Doc: "Name of the thread."},
			{Name: "state", Type: table.Text, Doc: "As in /proc: R running, S sleeping, D waiting, I idle, T stopped, t traced, Z zombie, X dead."},
			{Name: "running", Type: table.Bool, Extra: true, Doc: "Whether it is on a processor."},
			{Name: "wchan", Type: table.Text, Doc: "Function that it waits in, or runs in: the innermost of its stack."},
			{Name: "stack", Type: table.List, Doc: "Functions with the distance to which the call returns, the module in brackets; an address where no symbol covers it."},
			{Name: "owners", Type: table.List, Extra: true, Doc: "Whose code is on the stack beside the kernel's: [module], bpf:program, trampoline."},
			{Name: "cut", Type: table.Text, Extra: true, Doc: "Why the outermost calls are missing; missing for a whole stack."},
			{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct."},
			{Name: "with_running", Type: table.Bool, Option: true, Doc: "Walk the stacks of running threads too, from the processors' registers."},
		},
		Rows:    stackRows,
		Example: "lab:demo --where 'state == \"D\"'",
	}))
}

func stackRows(ctx context.Context, g *guest.Look, where []table.Constraint) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		u, err := g.Linux.Unwinder(ctx)
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		if table.Option(where, "with_running") {
			processors, err := processors(ctx, g)
			if err != nil {
				yield(nil, err)
				return
			}
			u.Run(processors)
		}
		for t, err := range chosen(ctx, g, g.Linux.NewLister(), where, true) {
			var s *linux.Stack
			if err == nil {
				s, err = u.StackOf(t)
			}
			if err != nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			if !yield(stackRow(u.Owners(), s), nil) {
				return
			}
		}
	}
}

// processors are those of a guest that stands still.
func processors(ctx context.Context, g *guest.Look) (all []linux.Execution, err error) {
	if !g.Still() {
		return nil, table.Failure(errors.New("where running threads are changes all the time: add --pause"))
	}
	for _, r := range registers(ctx, g) {
		const bp, user = 7, 3 // of vm.Registers.General; the ring of programs
		all = append(all, linux.Execution{IP: virt.Addr(r.RIP), SP: virt.Addr(r.RSP), BP: virt.Addr(r.General[bp]), User: r.CPL == user})
	}
	if all == nil {
		why := "its monitor does not show them, or is busy with another client"
		if !g.Machine.Live() {
			why = "the dump has none; those in ELF and kdump's format do"
		}
		return nil, table.Failure(errors.New("the registers of the guest's processors cannot be had: " + why))
	}
	return all, nil
}

func stackRow(o *linux.Owners, s *linux.Stack) table.Row {
	wchan, cut := table.Missing(table.None), table.Missing(table.None)
	var frames, others []string
	for i, a := range s.Frames {
		w := o.Of(a - 1) // the call, not what follows it
		w.Offset++
		if i == 0 && s.Running {
			w = o.Of(a)
		}
		if i == 0 {
			wchan = text(w.Symbol)
		}
		name := w.Function()
		if name == "" {
			name = table.AddrValue(uint64(a)).String()
		}
		if w.Kind != linux.OwnerKernel {
			if w.Kind == linux.OwnerModule {
				name += " " + w.String()
			}
			others = appendNew(others, w.String())
		}
		frames = append(frames, name)
	}
	if s.Cut != nil {
		cut = table.TextValue(s.Cut.Error())
	}
	return table.Row{
		table.IntValue(int64(s.PID)), table.IntValue(int64(s.TID)), table.TextValue(s.Comm), table.TextValue(s.State.String()),
		table.BoolValue(s.Running), wchan, list(frames), list(others), cut, address(s.Task.Addr), table.Missing(table.None),
	}
}

// appendNew adds what is not there yet to a short list.
func appendNew(l []string, s string) []string {
	for _, have := range l {
		if have == s {
			return l
		}
	}
	return append(l, s)
}
