package addrspace

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const (
	pfKthread = 0x200000 // PF_KTHREAD, unchanged since 4.x
	commSize  = 16       // TASK_COMM_LEN
)

// Owners is what is known of a kernel by which spaces have owners.
type Owners struct {
	current uint64 // from a CPU's GS base to its current task
	direct  uint64 // where the kernel has all physical memory
	// of task_struct, mm_struct and cred
	pid, tgid, flags, comm, started, mm, cred, parent, pgd, uid uint32
}

type ownerLayout struct {
	pid, tgid, flags, comm, started, mm, cred, parent, pgd, uid uint32
}

// OwnersOf reads the kernel of a look.
func OwnersOf(l *guest.Look) (*Owners, error) {
	s := l.Linux
	o, err := kobj.LayoutOf(s.Walker, "owners of address spaces", func(r *kobj.Resolver, o *ownerLayout) {
		*o = ownerLayout{
			pid: r.Offset("task_struct", "pid"), tgid: r.Offset("task_struct", "tgid"), flags: r.Offset("task_struct", "flags"), comm: r.Offset("task_struct", "comm"),
			started: r.Offset("task_struct", "start_boottime", "real_start_time"), // renamed in 5.5
			mm:      r.Offset("task_struct", "mm"), cred: r.Offset("task_struct", "cred"), parent: r.Offset("task_struct", "real_parent"),
			pgd: r.Offset("mm_struct", "pgd"), uid: r.Offset("cred", "uid"),
		}
	})
	if err != nil {
		return nil, err
	}
	direct := s.Space.DirectBase()
	if direct == 0 {
		return nil, fmt.Errorf("owners of address spaces: the kernel's map of physical memory was not found")
	}
	if len(s.CPUAreas) == 0 {
		return nil, fmt.Errorf("owners of address spaces: the processors' areas were not found")
	}
	a, err := s.CurrentAt(0)
	if err != nil {
		return nil, fmt.Errorf("owners of address spaces: %w", err)
	}
	return &Owners{
		current: uint64(a - s.CPUAreas[0]), direct: uint64(direct),
		pid: o.pid, tgid: o.tgid, flags: o.flags, comm: o.comm, started: o.started, mm: o.mm, cred: o.cred, parent: o.parent, pgd: o.pgd, uid: o.uid,
	}, nil
}

// Listed are the owners of the address spaces of all processes on the kernel's list of tasks, by root.
func (o *Owners) Listed(ctx context.Context, s *linux.System) (map[uint64]Owner, error) {
	all := map[uint64]Owner{}
	for p, err := range s.Processes(ctx) {
		if err != nil {
			return nil, err
		}
		root, ok := o.rootOf(s, p.Addr)
		for t, err := range p.Threads(ctx) {
			if ok || err != nil { // a leader that has ended has no memory, and its threads have
				break
			}
			root, ok = o.rootOf(s, t.Addr)
		}
		if ok {
			all[root] = o.owner(s, p.Addr)
		}
	}
	return all, ctx.Err()
}

// rootOf is the root of a task's page tables; false if it has none.
func (o *Owners) rootOf(s *linux.System, task virt.Addr) (uint64, bool) {
	mm, err := s.Space.U64(task + virt.Addr(o.mm))
	if err != nil || mm == 0 {
		return 0, false
	}
	pgd, err := s.Space.U64(virt.Addr(mm) + virt.Addr(o.pgd))
	if err != nil || pgd < o.direct {
		return 0, false
	}
	return pgd - o.direct, true
}

func (o *Owners) owner(s *linux.System, task virt.Addr) (w Owner) {
	r := s.Reader()
	w.Task = uint64(task)
	w.PID, w.TID = int32(r.U32(task+virt.Addr(o.tgid))), int32(r.U32(task+virt.Addr(o.pid)))
	w.Started = r.U64(task + virt.Addr(o.started))
	w.UID = r.U32(r.Ptr(task+virt.Addr(o.cred)) + virt.Addr(o.uid))
	w.PPID = int32(r.U32(r.Ptr(task+virt.Addr(o.parent)) + virt.Addr(o.tgid)))
	var b [commSize]byte
	if _, err := s.Space.ReadAt(b[:], task+virt.Addr(o.comm)); err == nil {
		w.Comm = commOf(b[:])
	}
	return w
}
