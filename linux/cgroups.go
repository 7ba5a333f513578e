package linux

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
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
	Memory      CgroupUsage
	PIDs        CgroupUsage
}

// CgroupUsage is what a controller counts, and where it stops.
type CgroupUsage struct {
	Known    bool
	Now, Max uint64 // Max is ^0 without a limit
}

type cgroupLayout struct {
	rootList, rootCgrp, hierarchy, rootMask, name      kobj.Field
	children, sibling, parent                          kobj.Field
	level, below, control, subsys, freeze, knID, flags kobj.Field
	bstat, lastBstat, percpu, cpuBstat, cpuLastBstat   kobj.Field
	ssName, ssLegacy                                   kobj.Field
	memUsage, memMax, pidsNow, pidsMax                 kobj.Field
	memory, pids                                       int64
	links, linkCgrp, linkNode, live                    kobj.Field
}

func (s *System) cgroupLayout() (*cgroupLayout, error) {
	return kobj.LayoutOf(s.Walker, "control groups", func(r *kobj.Resolver, o *cgroupLayout) {
		r.Prefetch("cgroup_roots", "cgrp_dfl_root", "cgroup_subsys", "cgrp_dfl_inhibit_ss_mask", "cgrp_dfl_implicit_ss_mask")
		const c, root = "cgroup", "cgroup_root"
		o.rootList, o.rootCgrp = r.Field(root, "root_list"), r.Field(root, "cgrp")
		o.hierarchy, o.rootMask, o.name = r.Field(root, "hierarchy_id"), r.Field(root, "subsys_mask"), r.Field(root, "name")
		o.children = r.Field(c, "self.children")
		o.sibling, o.parent = r.Field(c, "self.sibling"), r.Field(c, "self.parent")
		o.level, o.below = r.Field(c, "level"), r.Field(c, "nr_descendants")
		o.control, o.subsys = r.Field(c, "subtree_control"), r.Field(c, "subsys")
		o.flags = r.Field(c, "self.flags")
		o.freeze, o.knID = r.Optional(c, "freezer.freeze"), r.Optional("kernfs_node", "id")
		const spent = ".cputime.sum_exec_runtime"
		o.bstat, o.lastBstat = r.Optional(c, "bstat"+spent), r.Optional(c, "last_bstat"+spent)
		o.percpu = r.Optional(c, "rstat_base_cpu", "rstat_cpu") // 6.16
		o.cpuBstat = r.Optional("cgroup_rstat_base_cpu", "bstat"+spent)
		o.cpuLastBstat = r.Optional("cgroup_rstat_base_cpu", "last_bstat"+spent)
		if !o.cpuBstat.Present() {
			o.cpuBstat = r.Optional("cgroup_rstat_cpu", "bstat"+spent)
			o.cpuLastBstat = r.Optional("cgroup_rstat_cpu", "last_bstat"+spent)
		}
		o.ssName, o.ssLegacy = r.Field("cgroup_subsys", "name"), r.Field("cgroup_subsys", "legacy_name")
		o.memUsage, o.memMax = r.Optional("mem_cgroup", "memory.usage"), r.Optional("mem_cgroup", "memory.max")
		o.pidsNow, o.pidsMax = r.Optional("pids_cgroup", "counter"), r.Optional("pids_cgroup", "limit")
		o.memory, o.pids = subsys(r, "memory_cgrp_id"), subsys(r, "pids_cgrp_id")
		o.links = r.Field("css_set", "cgrp_links")
		o.linkCgrp, o.linkNode = r.Field("cgrp_cset_link", "cgrp"), r.Field("cgrp_cset_link", "cgrp_link")
		o.live = r.Field("signal_struct", "live")
	})
}

// subsys is the number of a controller, -1 if it is not built in.
func subsys(r *kobj.Resolver, name string) int64 {
	n, err := r.Types.EnumValue("cgroup_subsys_id", name)
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
		head, err := s.ListHead("cgroup_roots")
		if err != nil {
			yield(nil, fmt.Errorf("control groups: %w", err))
			return
		}
		w := &cgroupWalk{s: s, o: o, l: s.NewProcessReader(), ctx: ctx, yield: yield, left: maxCgroups}
		if w.counts, err = w.census(); err != nil && !yield(nil, err) {
			return
		}
		w.names()
		for node, err := range s.List(ctx, head, 64) {
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
	l        *ProcessReader
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
	sets, r := map[virt.Addr]int{}, &w.l.r
	for t, err := range w.s.Processes(w.ctx) {
		if err != nil {
			continue // other views report it
		}
		r.Err = nil
		live := r.Uint(r.Ptr(t.Addr+virt.Addr(w.s.o.signal)), w.o.live)
		if set := r.Ptr(t.Addr + virt.Addr(w.s.o.cgroups)); r.Err == nil && set != 0 && live != 0 {
			sets[set]++
		}
	}
	r.Err = nil
	counts := map[virt.Addr]int{}
	var first error
	for set, n := range sets {
		for node, err := range w.s.List(w.ctx, w.o.links.At(set), 64) {
			if err != nil {
				first = fmt.Errorf("groups of css_set %#x: %w", uint64(set), err)
				continue
			}
			link := node - virt.Addr(w.o.linkNode.Offset)
			if c := r.Pointer(link, w.o.linkCgrp); c != 0 && r.Err == nil {
				counts[c] += n
			}
			r.Err = nil
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
	r := &w.l.r
	for i := range int(min(w.o.subsys.Size/8, 32)) {
		r.Err = nil
		if ss := r.Ptr(table + virt.Addr(8*i)); ss != 0 {
			w.modern[i] = r.CString(r.Pointer(ss, w.o.ssName), 32)
			w.legacy[i] = r.CString(r.Pointer(ss, w.o.ssLegacy), 32)
		}
	}
	r.Err = nil
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
	r := &w.l.r
	r.Err = nil
	w.root = Cgroup{Hierarchy: int32(r.Uint(root, w.o.hierarchy)), Version: 1}
	w.root.Name = kobj.CString(r.Bytes(w.o.name.At(root), int(min(w.o.name.Size, 64))))
	w.rootMask = r.Uint(root, w.o.rootMask)
	if w.dfl {
		w.root.Version = 2
		for _, name := range []string{"cgrp_dfl_inhibit_ss_mask", "cgrp_dfl_implicit_ss_mask"} {
			if a, ok := w.s.Address(name); ok {
				width := min(w.o.control.Size, 4) // both have its type
				w.rootMask &^= r.Uint(a, kobj.FieldAt(0, width))
			}
		}
	}
	if err := r.Err; err != nil {
		return w.yield(nil, fmt.Errorf("hierarchy at %#x: %w", uint64(root), err))
	}
	all, errs := w.tree(w.o.rootCgrp.At(root))
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
			return all, append(errs, fmt.Errorf("control groups: %w", kobj.ErrBudget))
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
		for node, err := range w.s.List(w.ctx, w.o.children.At(p.a), w.left) {
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
