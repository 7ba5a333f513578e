package views

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "stacks",
		Doc: `Show where threads stand in the kernel: the calls in which they wait.

The innermost call is first, as in /proc/PID/stack: the scheduler's own functions are left
out. The kernel's own notes for unwinding (ORC) are followed, so frames are not guessed.
Where a running thread is, is not in memory but in its CPU's registers: with --running, of
a guest that stands still (--pause, or a dump that was taken with it and has registers), its stack
is walked too, from the function that it is in; it is empty while the program itself runs. An
idle CPU runs none of the threads that are listed. A thread that has ended has no stack.`,
		Source:  "task_struct.thread, the kernel stacks, the unwinding tables (__orc_unwind); registers from the monitor or the dump with --running",
		Key:     []string{"pid", "tid"},
		Example: "lab:demo --where 'state == \"D\"'",
	}, stackColumns, stacks))
}

var stackColumns = table.Columns[threadStack]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(s *threadStack) table.Value { return integer(s.PID) }},
	{Name: "tid", Type: table.Int, Doc: "Thread.", Get: func(s *threadStack) table.Value { return integer(s.TID) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the thread.", Get: func(s *threadStack) table.Value { return table.TextValue(s.Comm) }},
	{Name: "state", Type: table.Text, Doc: stateDoc, Get: func(s *threadStack) table.Value { return table.TextValue(s.State.String()) }},
	{Name: "running", Type: table.Bool, Extra: true, Doc: "Whether it is on a CPU.", Get: func(s *threadStack) table.Value { return table.BoolValue(s.Running) }},
	{Name: "wchan", Type: table.Text, Doc: "Function that it waits in, or runs in: the innermost of its stack.", Get: (*threadStack).wchan},
	{
		Name: "stack", Type: table.List, Doc: "Functions with the offset that the call returns to, the module in brackets; an address where no symbol covers it.",
		Get: (*threadStack).frames,
	},
	{Name: "owners", Type: table.List, Extra: true, Doc: "Owners of code on the stack other than the kernel: [module], bpf:program, trampoline.", Get: (*threadStack).others},
	{
		Name: "cut", Type: table.Text, Extra: true, Doc: "Why the outermost calls are missing; missing for a whole stack.",
		Get: func(s *threadStack) table.Value {
			if s.Cut == nil {
				return none
			}
			return table.TextValue(s.Cut.Error())
		},
	},
	{Name: "task", Type: table.Addr, Extra: true, Doc: "Address of the task_struct.", Get: func(s *threadStack) table.Value { return address(s.Task.Addr) }},
	{Name: "with_running", Type: table.Bool, Option: true, Doc: "Walk the stacks of running threads too, from the CPUs' registers."},
}

// threadStack is a row of stacks.
type threadStack struct {
	*linux.Stack
	owners *linux.Owners
}

// call is whose code frame i is in, and where.
func (s *threadStack) call(i int) linux.Owner {
	a := s.Frames[i]
	if i == 0 && s.Running {
		return s.owners.CodeAt(a)
	}
	w := s.owners.CodeAt(a - 1) // the call, not what follows it
	w.Offset++
	return w
}

func (s *threadStack) wchan() table.Value {
	if len(s.Frames) == 0 {
		return none
	}
	return text(s.call(0).Symbol)
}

func (s *threadStack) frames() table.Value {
	var frames []string
	for i, a := range s.Frames {
		w := s.call(i)
		name := w.Function()
		if name == "" {
			name = table.AddrValue(uint64(a)).String()
		}
		if w.Kind == linux.OwnerModule {
			name += " " + w.String()
		}
		frames = append(frames, name)
	}
	return list(frames)
}

func (s *threadStack) others() table.Value {
	var others []string
	for i := range s.Frames {
		if w := s.call(i); w.Kind != linux.OwnerKernel && !slices.Contains(others, w.String()) {
			others = append(others, w.String())
		}
	}
	return list(others)
}

func stacks(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*threadStack, error] {
	return func(yield func(*threadStack, error) bool) {
		u, err := l.Linux.Unwinder(ctx)
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		if r.Option("with_running") {
			states, err := cpuStates(ctx, l)
			if err != nil {
				yield(nil, err)
				return
			}
			u.SetCPUStates(states)
		}
		row := threadStack{owners: u.Owners()}
		for t, err := range chosen(ctx, l, l.Linux.NewProcessReader(), r, true) {
			if err == nil {
				row.Stack, err = u.StackOf(t)
			}
			if err != nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			if !yield(&row, nil) {
				return
			}
		}
	}
}

// cpuStates are where the CPUs of a guest that stands still are.
func cpuStates(ctx context.Context, l *guest.Look) (all []linux.CPUState, err error) {
	if !l.Still() {
		return nil, table.Failure(errors.New("running threads move on while they are read: add --pause"))
	}
	for _, r := range registers(ctx, l) {
		const bp, user = 7, 3 // of vm.Registers.General; the ring of programs
		all = append(all, linux.CPUState{IP: virt.Addr(r.RIP), SP: virt.Addr(r.RSP), BP: virt.Addr(r.General[bp]), User: r.CPL == user})
	}
	if all == nil {
		why := "its monitor does not show them, or is busy with another client"
		if !l.Machine.Live() {
			why = "the dump has none; those in ELF and kdump format have them"
		}
		return nil, table.Failure(errors.New("the registers of the guest's CPUs are unavailable: " + why))
	}
	return all, nil
}
