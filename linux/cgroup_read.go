package linux

import (
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// read fills n of the group at its address, in which the controllers of mask are
// available.
func (w *cgroupWalk) read(n *cgroupNode, mask uint64) (err error) {
	r, o, a := &w.l.r, w.o, n.Addr
	r.Err = nil
	n.Path = w.l.groupPath(a)
	n.Level, n.Below = int32(r.Uint(a, o.level)), int32(r.Uint(a, o.below))
	n.ID = r.Uint(r.Ptr(a+virt.Addr(w.s.o.cgroupKn)), o.knID)
	n.Controllers = w.controllers(mask)
	n.control = r.Uint(a, o.control)
	n.Processes = w.counts[a]
	n.Frozen = r.Uint(a, o.freeze) != 0
	const online = 1 << 1 // CSS_ONLINE, which rmdir takes away
	n.Removed = r.Uint(a, o.flags)&online == 0
	css := func(id int64) virt.Addr {
		if id < 0 || uint64(id)*8 >= uint64(o.subsys.Size) {
			return 0
		}
		return r.Ptr(o.subsys.At(a) + virt.Addr(8*id))
	}
	// The css is the first member of what each controller keeps. Nothing is limited
	// in a root, and /sys shows no usage there.
	if n.above >= 0 || !w.dfl {
		if m := css(o.memory); m != 0 && mask&(1<<o.memory) != 0 && o.memUsage.Present() && o.memMax.Present() {
			n.Memory = CgroupUsage{Known: true, Now: r.Uint(m, o.memUsage) * phys.PageSize, Max: ^uint64(0)}
			// PAGE_COUNTER_MAX stands for none.
			if limit := r.Uint(m, o.memMax); limit < 1<<63/phys.PageSize-1 {
				n.Memory.Max = limit * phys.PageSize
			}
		}
		if p := css(o.pids); p != 0 && n.above >= 0 && mask&(1<<o.pids) != 0 && o.pidsNow.Present() && o.pidsMax.Present() {
			n.PIDs = CgroupUsage{Known: true, Now: r.Uint(p, o.pidsNow), Max: ^uint64(0)}
			if limit := r.Uint(p, o.pidsMax); limit <= maxTasks { // PIDS_MAX is one more
				n.PIDs.Max = limit
			}
		}
	}
	n.spent, n.handed = int64(r.Uint(a, o.bstat)), int64(r.Uint(a, o.lastBstat))
	n.HasCPU = w.dfl && n.above >= 0 && o.bstat.Present() && o.lastBstat.Present()
	if n.HasCPU {
		n.spent += w.pending(a)
	}
	if r.Err != nil {
		return fmt.Errorf("control group at %#x: %w", uint64(a), r.Err)
	}
	return nil
}

// pending is the time that processors have accounted to a group, and that was not
// added up yet (cgroup_base_stat_flush).
func (w *cgroupWalk) pending(a virt.Addr) (sum int64) {
	r, o := &w.l.r, w.o
	area := r.Pointer(a, o.percpu)
	if area == 0 || !o.cpuBstat.Present() || !o.cpuLastBstat.Present() {
		return 0
	}
	for _, cpu := range w.s.CPUAreas {
		sum += int64(r.Uint(area+cpu, o.cpuBstat)) - int64(r.Uint(area+cpu, o.cpuLastBstat))
	}
	return sum
}

// sum adds to each group what those below it spent and did not hand up yet.
func (w *cgroupWalk) sum(all []*cgroupNode) {
	for i := len(all) - 1; i >= 0; i-- {
		n := all[i]
		n.CPUTime = time.Duration(max(n.spent, 0))
		if n.above >= 0 {
			all[n.above].spent += n.spent - n.handed
		}
	}
}
