package linux

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"runtime/debug"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Cgroup is one control group of one hierarchy.
type Cgroup struct {
	Addr        virt.Addr
	Path        string // from the root of its hierarchy
	Hierarchy   int32  // number, as in /proc/PID/cgroup; 0 is the unified one
	Name        string // of a version 1 hierarchy that has one
	Version     int    // 1 or 2
	Level       int32
	ID          uint64   // inode number of its folder
	Controllers []string // that are available in it
	Processes   int      // in the group itself, not below
	Below       int32    // number of groups below it
	Frozen      bool
	Removed     bool          // its folder is gone; something still holds the group
	CPUTime     time.Duration // with that of groups below it; see HasCPU
	HasCPU      bool
	Memory      Usage
	PIDs        Usage
}

// Usage is what a controller counts, and where it stops.
type Usage struct {
	Known    bool
	Now, Max uint64 // Max is ^0 without a limit
}

type cgroupLayout struct {
	rootList, rootCgrp, hierarchy, rootMask, name      Field
	children, sibling, parent                          Field
	level, below, control, subsys, freeze, knID, flags Field
	bstat, lastBstat, percpu, cpuBstat, cpuLastBstat   Field
	ssName, ssLegacy                                   Field
	memUsage, memMax, pidsNow, pidsMax                 Field
	memory, pids                                       int64
	links, linkCgrp, linkNode, live                    Field
}

func (s *System) cgroupLayout() (*cgroupLayout, error) {
	return layoutOf(s.Walker, "control groups", func(r *resolver, o *cgroupLayout) {
		r.symbols("cgroup_roots", "cgrp_dfl_root", "cgroup_subsys", "cgrp_dfl_inhibit_ss_mask", "cgrp_dfl_implicit_ss_mask")
		const c, root = "cgroup", "cgroup_root"
		o.rootList, o.rootCgrp = r.field(root, "root_list"), r.field(root, "cgrp")
		o.hierarchy, o.rootMask, o.name = r.field(root, "hierarchy_id"), r.field(root, "subsys_mask"), r.field(root, "name")
		o.children = r.field(c, "self.children")
		o.sibling, o.parent = r.field(c, "self.sibling"), r.field(c, "self.parent")
		o.level, o.below = r.field(c, "level"), r.field(c, "nr_descendants")
		o.control, o.subsys = r.field(c, "subtree_control"), r.field(c, "subsys")
		o.flags = r.field(c, "self.flags")
		o.freeze, o.knID = r.optional(c, "freezer.freeze"), r.optional("kernfs_node", "id")
		const spent = ".cputime.sum_exec_runtime"
		o.bstat, o.lastBstat = r.optional(c, "bstat"+spent), r.optional(c, "last_bstat"+spent)
		o.percpu = r.optional(c, "rstat_base_cpu", "rstat_cpu") // 6.16
		o.cpuBstat = r.optional("cgroup_rstat_base_cpu", "bstat"+spent)
		o.cpuLastBstat = r.optional("cgroup_rstat_base_cpu", "last_bstat"+spent)
		if !has(o.cpuBstat) {
			o.cpuBstat = r.optional("cgroup_rstat_cpu", "bstat"+spent)
			o.cpuLastBstat = r.optional("cgroup_rstat_cpu", "last_bstat"+spent)
		}
		o.ssName, o.ssLegacy = r.field("cgroup_subsys", "name"), r.field("cgroup_subsys", "legacy_name")
		o.memUsage, o.memMax = r.optional("mem_cgroup", "memory.usage"), r.optional("mem_cgroup", "memory.max")
		o.pidsNow, o.pidsMax = r.optional("pids_cgroup", "counter"), r.optional("pids_cgroup", "limit")
		o.memory, o.pids = r.subsys("memory_cgrp_id"), r.subsys("pids_cgrp_id")
		o.links = r.field("css_set", "cgrp_links")
		o.linkCgrp, o.linkNode = r.field("cgrp_cset_link", "cgrp"), r.field("cgrp_cset_link", "cgrp_link")
		o.live = r.field("signal_struct", "live")
	})
}

// subsys is the number of a controller, -1 if it is not built in.
func (r *resolver) subsys(name string) int64 {
	n, err := r.types.EnumValue("cgroup_subsys_id", name)
	if err != nil {
		return -1
	}
	return n
}

// maxCgroups bounds how many control groups are looked at.
const maxCgroups = 1 << 18

// Cgroups yields all control groups, hierarchy by hierarchy, a group before those
// below it.
func (s *System) Cgroups(ctx context.Context) iter.Seq2[*Cgroup, error] {
	return func(yield func(*Cgroup, error) bool) {
		o, err := s.cgroupLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		head, err := s.listHead("cgroup_roots")
		if err != nil {
			yield(nil, fmt.Errorf("control groups: %w", err))
			return
		}
		w := &cgroupWalk{s: s, o: o, l: s.NewLister(), ctx: ctx, yield: yield, left: maxCgroups}
		if w.counts, err = w.census(); err != nil && !yield(nil, err) {
			return
		}
		w.names()
		for node, err := range s.list(ctx, head, 64) {
			if err != nil {
				if !yield(nil, fmt.Errorf("hierarchies: %w", err)) {
					return
				}
				continue
			}
			if !w.hierarchy(node - virt.Addr(o.rootList.Offset)) {
				return
			}
		}
	}
}

type cgroupWalk struct {
	s        *System
	o        *cgroupLayout
	l        *Lister
	ctx      context.Context
	yield    func(*Cgroup, error) bool
	left     int
	counts   map[virt.Addr]int // processes by cgroup
	modern   map[int]string    // names of controllers
	legacy   map[int]string
	root     Cgroup
	dfl      bool
	rootMask uint64
}

// census counts the processes of every control group, by way of the sets of groups
// that they share. One that ended, but was not waited for, is in none.
func (w *cgroupWalk) census() (_ map[virt.Addr]int, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	sets, r := map[virt.Addr]int{}, &w.l.r
	for t, err := range w.s.Processes(w.ctx) {
		if err != nil {
			continue // other views tell
		}
		r.err = nil
		live := r.num(r.ptr(t.Addr+virt.Addr(w.s.o.signal)), w.o.live)
		if set := r.ptr(t.Addr + virt.Addr(w.s.o.cgroups)); r.err == nil && set != 0 && live != 0 {
			sets[set]++
		}
	}
	r.err = nil
	counts := map[virt.Addr]int{}
	var first error
	for set, n := range sets {
		for node, err := range w.s.list(w.ctx, at(set, w.o.links), 64) {
			if err != nil {
				first = fmt.Errorf("groups of css_set %#x: %w", uint64(set), err)
				continue
			}
			link := node - virt.Addr(w.o.linkNode.Offset)
			if c := r.pointer(link, w.o.linkCgrp); c != 0 && r.err == nil {
				counts[c] += n
			}
			r.err = nil
		}
	}
	return counts, first
}

// names reads the names of the controllers.
func (w *cgroupWalk) names() {
	w.modern, w.legacy = map[int]string{}, map[int]string{}
	table, ok := w.s.Address("cgroup_subsys")
	if !ok {
		return
	}
	_ = phys.Guard(func() error {
		r := &w.l.r
		for i := range int(min(w.o.subsys.Size/8, 32)) {
			r.err = nil
			if ss := r.ptr(table + virt.Addr(8*i)); ss != 0 {
				w.modern[i] = r.cString(r.pointer(ss, w.o.ssName), 32)
				w.legacy[i] = r.cString(r.pointer(ss, w.o.ssLegacy), 32)
			}
		}
		r.err = nil
		return nil
	})
}

func (w *cgroupWalk) controllers(mask uint64) []string {
	names := w.legacy
	if w.dfl {
		names = w.modern
	}
	var list []string
	for ; mask != 0; mask &= mask - 1 {
		if name := names[bits.TrailingZeros64(mask)]; name != "" {
			list = append(list, name)
		}
	}
	return list
}

// hierarchy walks one; it returns false when the consumer wants no more.
func (w *cgroupWalk) hierarchy(root virt.Addr) bool {
	dfl, _ := w.s.Address("cgrp_dfl_root")
	w.dfl = root == dfl
	err := phys.Guard(func() error {
		r := &w.l.r
		r.err = nil
		w.root = Cgroup{Hierarchy: int32(r.num(root, w.o.hierarchy)), Version: 1}
		w.root.Name = cString(r.bytes(at(root, w.o.name), int(min(w.o.name.Size, 64))))
		w.rootMask = r.num(root, w.o.rootMask)
		if w.dfl {
			w.root.Version = 2
			for _, name := range []string{"cgrp_dfl_inhibit_ss_mask", "cgrp_dfl_implicit_ss_mask"} {
				if a, ok := w.s.Address(name); ok {
					width := min(w.o.control.Size, 4) // both have its type
					w.rootMask &^= r.num(a, FieldAt(0, width))
				}
			}
		}
		return r.err
	})
	if err != nil {
		return w.yield(nil, fmt.Errorf("hierarchy at %#x: %w", uint64(root), err))
	}
	all, errs := w.tree(at(root, w.o.rootCgrp))
	w.sum(all)
	for _, n := range all {
		if !w.yield(&n.Cgroup, n.err) {
			return false
		}
	}
	for _, err := range errs {
		if !w.yield(nil, err) {
			return false
		}
	}
	return true
}

// cgroupNode is a group with its place in the tree.
type cgroupNode struct {
	Cgroup
	err     error
	above   int // index of its parent, -1 for the root
	control uint64
	handed  int64 // ns that its parent has got of its time
	spent   int64
}

// tree reads a group and all below it, each before those below it.
func (w *cgroupWalk) tree(root virt.Addr) (all []*cgroupNode, errs []error) {
	type place struct {
		a     virt.Addr
		above int
	}
	todo, seen := []place{{root, -1}}, map[virt.Addr]bool{root: true}
	for len(todo) > 0 && w.ctx.Err() == nil {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if w.left--; w.left < 0 {
			return all, append(errs, fmt.Errorf("control groups: %w", errBudget))
		}
		n := &cgroupNode{Cgroup: w.root, above: p.above}
		n.Addr = p.a
		mask := w.rootMask
		if p.above >= 0 && w.dfl {
			mask = all[p.above].control
		}
		n.err = w.read(n, mask)
		all = append(all, n)
		var below []place
		for node, err := range w.s.list(w.ctx, at(p.a, w.o.children), w.left) {
			c := node - virt.Addr(w.o.sibling.Offset)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("groups below %s: %w", n.Path, err))
			case !seen[c]:
				seen[c] = true
				below = append(below, place{c, len(all) - 1})
			}
		}
		for i := len(below) - 1; i >= 0; i-- {
			todo = append(todo, below[i])
		}
	}
	return all, errs
}
