package check

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

// hooking is a function that the kernel calls on an event, or in place of another, and what for.
type hooking struct {
	at   virt.Addr
	name string
}

// hookSources are those of what modules intercept that no view has a column for.
var hookSources = []struct {
	foreign bool // only of modules that did not come with the kernel
	of      func(context.Context, *Subject) iter.Seq2[hooking, error]
}{
	{of: fprobesOf},
	{of: userProbesOf},
	{foreign: true, of: inputHandlersOf},
	{foreign: true, of: keyboardInterrupts},
}

// fprobesOf are the functions behind the kernel's common ones for probes of function tracing: a user of tracing is known by the common one alone.
func fprobesOf(ctx context.Context, s *Subject) iter.Seq2[hooking, error] {
	return func(yield func(hooking, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(hooking{}, err)
			return
		}
		for p, err := range hooks.Fprobes(ctx, s.Linux) {
			if err != nil {
				if !yield(hooking{}, err) {
					return
				}
				continue
			}
			name := "fprobe"
			if len(p.Functions) > 0 {
				name += " " + owners.CodeAt(p.Functions[0]).Symbol
			}
			if n := len(p.Functions); n > 1 {
				name += fmt.Sprintf(" and %d functions", n-1)
			}
			for _, at := range []virt.Addr{p.Entry, p.Exit} {
				if at != 0 && !yield(hooking{at, name}, nil) {
					return
				}
			}
		}
	}
}

// userProbesOf are the functions that are called when a program comes to an instruction. Those of perf, ftrace and BPF are the kernel's own.
func userProbesOf(ctx context.Context, s *Subject) iter.Seq2[hooking, error] {
	return func(yield func(hooking, error) bool) {
		for p, err := range hooks.UserProbes(ctx, s.Linux) {
			if err != nil {
				if !yield(hooking{}, err) {
					return
				}
				continue
			}
			for _, at := range []virt.Addr{p.Handler, p.Return} {
				if at != 0 && !yield(hooking{at, fmt.Sprintf("uprobe at %#x of the file with the inode at %#x", p.Offset, uint64(p.Inode))}, nil) {
					return
				}
			}
		}
	}
}

// inputHandlersOf are the functions that take what is typed.
func inputHandlersOf(ctx context.Context, s *Subject) iter.Seq2[hooking, error] {
	return func(yield func(hooking, error) bool) {
		for h, err := range hooks.InputHandlers(ctx, s.Linux) {
			if err != nil {
				if !yield(hooking{}, err) {
					return
				}
				continue
			}
			for _, at := range h.Functions {
				if !yield(hooking{at, fmt.Sprintf("input events, as handler %q", h.Name)}, nil) {
					return
				}
			}
		}
	}
}

// keyboardInterrupts are the functions that share the interrupts of the keyboard's controller with its driver.
func keyboardInterrupts(ctx context.Context, s *Subject) iter.Seq2[hooking, error] {
	return func(yield func(hooking, error) bool) {
		v, ok := table.Lookup("interrupts")
		if !ok {
			return
		}
		columns := v.Columns()
		var wanted table.Selection
		for _, name := range []string{"kind", "number", "handler", "handler_symbol"} {
			i := table.ColumnIndex(columns, name)
			if i < 0 {
				return
			}
			wanted = append(wanted, i)
		}
		keyboard, others := map[uint64]bool{}, map[uint64][]virt.Addr{}
		for row := range table.Rows(ctx, v, s.Look, table.Request{Columns: wanted}, &table.Report{}) { // code-pointer reports what cannot be read
			if row[wanted[0]].Text() != "irq" || row[wanted[2]].IsNull() {
				continue
			}
			line := uint64(row[wanted[1]].Int())
			if row[wanted[3]].Text() == "i8042_interrupt" {
				keyboard[line] = true
			} else {
				others[line] = append(others[line], virt.Addr(row[wanted[2]].Uint()))
			}
		}
		for line := range keyboard {
			for _, at := range others[line] {
				if !yield(hooking{at, fmt.Sprintf("interrupt %d, of the keyboard's controller", line)}, nil) {
					return
				}
			}
		}
	}
}

// hookedByModules yields what modules intercept that no view shows, by the module.
func hookedByModules(ctx context.Context, s *Subject, byOwner map[string]*linux.Module, signing bool, found func(owner string, m *linux.Module, h hooking)) error {
	owners, err := s.Owners()
	if err != nil {
		return err
	}
	var failed []error
	for _, source := range hookSources {
		for h, err := range source.of(ctx, s) {
			switch {
			case errors.Is(err, kobj.ErrUnsupported):
			case err != nil:
				failed = append(failed, err)
			default:
				owner := owners.OwnerAt(h.at).String()
				if m := byOwner[owner]; m != nil && (!source.foreign || foreignTaint(m, signing) != "") {
					found(owner, m, h)
				}
			}
		}
	}
	return errors.Join(failed...)
}
