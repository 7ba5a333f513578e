package linux

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxDepth bounds how deep control groups nest.
const maxDepth = 128

// group is the control group of the task at a: its path in the unified hierarchy,
// or, if it is in that one's root, in the version 1 hierarchy where it is deepest.
func (l *ProcessReader) group(a virt.Addr) groupName {
	o, r := l.s.o, &l.r
	if o.cgroups == kobj.NoOffset {
		return groupName{}
	}
	set := r.Ptr(a + virt.Addr(o.cgroups))
	if set == 0 || r.Err != nil {
		return groupName{}
	}
	if g, ok := l.cgroups[set]; ok {
		return g
	}
	path := l.groupPath(r.Ptr(set + virt.Addr(o.dflCgrp)))
	if path == "/" {
		for i := range o.subsysLen {
			css := r.Ptr(set + virt.Addr(o.cssSubsys+8*i))
			if css == 0 || r.Err != nil {
				continue
			}
			if p := l.groupPath(r.Ptr(css + virt.Addr(o.cssCgroup))); strings.Count(p, "/") > strings.Count(path, "/") || path == "/" {
				path = p
			}
		}
	}
	g := groupName{path: path, container: ContainerOf(path)}
	if r.Err == nil {
		l.cgroups[set] = g
	}
	return g
}

// CgroupPathOf is the path of a control group (a struct cgroup) in its hierarchy; empty
// for 0.
func (l *ProcessReader) CgroupPathOf(cgroup virt.Addr) (string, error) {
	return kobj.Read(&l.r, func() string { return l.groupPath(cgroup) })
}

// groupPath joins the names of a control group's folders.
func (l *ProcessReader) groupPath(cgroup virt.Addr) string {
	o, r := l.s.o, &l.r
	if cgroup == 0 {
		return ""
	}
	comps, size := l.comps[:0], 0
	node := r.Ptr(cgroup + virt.Addr(o.cgroupKn))
	for depth := 0; node != 0 && r.Err == nil; depth++ {
		if depth > maxDepth || size > MaxPath {
			r.Err = fmt.Errorf("path of the control group at %#x: %w: longer than %d bytes", uint64(cgroup), kobj.ErrBroken, MaxPath)
			break
		}
		parent := r.Ptr(node + virt.Addr(o.knParent))
		if parent == 0 {
			break // the root has no name
		}
		name := r.CString(r.Ptr(node+virt.Addr(o.knName)), MaxName+1)
		comps, size = append(comps, name), size+len(name)+1
		node = parent
	}
	l.comps = comps
	if r.Err != nil {
		return ""
	}
	if len(comps) == 0 {
		return "/"
	}
	if !l.spend(size) {
		r.Err = kobj.ErrBudget
		return ""
	}
	var b strings.Builder
	for i := len(comps) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(comps[i])
	}
	return b.String()
}
