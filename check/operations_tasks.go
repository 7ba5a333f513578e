package check

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// tasks judges by which functions tasks are scheduled, and go on with a system call that a signal interrupted.
func (w *opsWalk) tasks(ctx context.Context, o *opsLayout) {
	ts, err := w.s.Tasks()
	if err != nil {
		w.fail(err)
		return
	}
	for _, a := range slices.Sorted(maps.Keys(ts.all)) {
		n := ts.all[a]
		if n.ended || ctx.Err() != nil || !w.spend() {
			continue
		}
		name := func() string { return fmt.Sprintf("task %d (%s)", n.pid, n.comm) }
		there := func() bool {
			r := w.linux.Fresh().Reader()
			return int32(r.Uint(a, ts.o.pid)) == n.pid && r.Pointer(a, ts.o.leader) == n.leader && r.Err == nil
		}
		w.judgePassing(there, func() {
			w.r.Err = nil
			class, restart := w.r.Pointer(a, o.class), virt.Addr(0)
			if o.restart.Present() {
				restart = w.r.Pointer(a, o.restart)
			}
			if w.r.Err != nil {
				return // who reads tasks reports it
			}
			if o.class.Present() {
				w.judge(&classOps, class, name)
			}
			w.restarts(a, restart, name)
		})
	}
}

// restarting stands for the function that a task has itself.
var restarting = operations{structure: "task_struct"}

// restarts judges the function by which a task goes on with a system call that was interrupted: the kernel's own, whichever call it is.
// Whoever calls restart_syscall has it called.
func (w *opsWalk) restarts(task, f virt.Addr, name func() string) {
	if f == 0 {
		return
	}
	switch owner := w.owners.OwnerAt(f); owner.Kind {
	case linux.OwnerKernel:
	case linux.OwnerNone:
		w.found(&restarting, task, name(), "goes on after a signal by a function restart_block.fn whose owner is unknown", "a function of the kernel itself", fmt.Sprintf("%#x", uint64(f)), f, "restart_block.fn")
	default:
		who := describeOwner(w.owners, f)
		w.found(&restarting, task, name(), "goes on after a signal by "+who, "a function of the kernel itself", fmt.Sprintf("%s (%#x)", who, uint64(f)), f, "restart_block.fn")
	}
}

// mappings judges who serves the memory of processes.
func (w *opsWalk) mappings(ctx context.Context, o *opsLayout) {
	ps, err := w.s.Programs()
	if err != nil {
		w.fail(err)
		return
	}
	vma, err := mappingLayoutOf(w.s.Linux)
	if err != nil {
		w.fail(err)
		return
	}
	type served struct{ file, ops virt.Addr }
	seen := map[served]bool{}
	for _, p := range ps.all {
		for _, m := range p.maps {
			if m.Ops == 0 || seen[served{m.File, m.Ops}] {
				continue
			}
			seen[served{m.File, m.Ops}] = true
			if ctx.Err() != nil || !w.spend() {
				return
			}
			name := func() string { return fmt.Sprintf("memory of process %d (%s) at %s", p.PID, p.Comm, m.Start) }
			there := func() bool {
				r := w.linux.Fresh().Reader()
				return r.Pointer(m.Addr, vma.start) == m.Start && r.Pointer(m.Addr, vma.mm) == m.MM && r.Pointer(m.Addr, vma.ops) == m.Ops && r.Err == nil
			}
			w.judgePassing(there, func() {
				w.r.Err = nil
				w.judge(&mappingOps, m.Ops, name)
				if m.File == 0 {
					return
				}
				inode := w.r.Pointer(m.File, o.inodeOf)
				mode, fs := w.r.Uint(inode, o.mode), w.fileSystem(o, w.r.Pointer(inode, o.super))
				if w.r.Err == nil && plain(mode) {
					w.served(&mappingOps, m.Ops, fs, name)
				}
			})
		}
	}
}

// mappingLayout is where a mapping has what says that it is still the same.
type mappingLayout struct{ start, mm, ops kobj.Field }

func mappingLayoutOf(s *linux.System) (*mappingLayout, error) {
	return kobj.LayoutOf(s.Walker, "mappings that are judged", func(r *kobj.Resolver, o *mappingLayout) {
		const vma = "vm_area_struct"
		o.start, o.mm, o.ops = r.Field(vma, "vm_start"), r.Field(vma, "vm_mm"), r.Field(vma, "vm_ops")
	})
}
