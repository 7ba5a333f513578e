package synth

import (
	"path"
	"slices"
	"strings"
)

// buildFiles makes the root of the file system and of the control groups.
func (g *Guest) buildFiles() {
	g.Mounts = []uint64{g.Object("mount")}
	root := g.dentry("/", 0)
	g.setMount(g.Mounts[0], g.Mounts[0], root, root)
	g.shared["mount /"] = g.Mounts[0]
	g.shared["dentry /"] = root
	g.shared["cgroup /"] = g.cgroup("", 0)
}

func (g *Guest) setMount(m, parent, point, root uint64) {
	g.Set(m, "mount", "mnt_parent", parent)
	g.Set(m, "mount", "mnt_mountpoint", point)
	g.Set(m, "mount", "mnt.mnt_root", root)
}

// dentry makes a directory entry below parent; without one it is a root.
func (g *Guest) dentry(name string, parent uint64) uint64 {
	d := g.Object("dentry")
	g.Set(d, "dentry", "d_name.name", g.CString(name))
	g.Set(d, "dentry", "d_name.len", uint64(len(name)))
	if parent == 0 {
		g.Set(d, "dentry", "d_parent", d)
		return d
	}
	g.Set(d, "dentry", "d_parent", parent)
	g.Set(d, "dentry", "d_hash.pprev", parent) // any pointer: it can be looked up
	return d
}

// Dentry is the directory entry of a path, made where it is missing.
func (g *Guest) Dentry(name string) uint64 {
	name = path.Clean(name)
	if d := g.shared["dentry "+name]; d != 0 {
		return d
	}
	d := g.dentry(path.Base(name), g.Dentry(path.Dir(name)))
	g.shared["dentry "+name] = d
	return d
}

// Mount mounts an empty file system at a path. Files below are made in it.
func (g *Guest) Mount(at string) uint64 {
	above := g.mountOf(path.Dir(at))
	point := g.Dentry(at)
	m := g.Object("mount")
	root := g.dentry("/", 0)
	g.setMount(m, above, point, root)
	g.shared["mount "+at], g.shared["dentry "+at] = m, root
	g.Mounts = append(g.Mounts, m)
	return m
}

// mountOf is the mount that a path is in.
func (g *Guest) mountOf(name string) uint64 {
	for ; ; name = path.Dir(name) {
		if m := g.shared["mount "+name]; m != 0 {
			return m
		}
	}
}

// File opens a path: a struct file.
func (g *Guest) File(name string) uint64 {
	f := g.Object("file")
	g.Set(f, "file", "f_path.mnt", g.mountOf(name)+g.Member("mount", "mnt"))
	g.Set(f, "file", "f_path.dentry", g.Dentry(name))
	return f
}

// cgroup makes a control group below the node of another.
func (g *Guest) cgroup(name string, parent uint64) uint64 {
	kn, cg := g.Object("kernfs_node"), g.Object("cgroup")
	g.Set(kn, "kernfs_node", "name", g.CString(name))
	member := "__parent"
	if g.Old {
		member = "parent"
	}
	g.Set(kn, "kernfs_node", member, parent)
	g.Set(cg, "cgroup", "kn", kn)
	return cg
}

// Node is the kernfs_node of a control group's path.
func (g *Guest) Node(group string) uint64 {
	return g.Get(g.controlGroup(group), "cgroup", "kn")
}

func (g *Guest) controlGroup(group string) uint64 {
	group = path.Clean("/" + group)
	if cg := g.shared["cgroup "+group]; cg != 0 {
		return cg
	}
	cg := g.cgroup(path.Base(group), g.Node(path.Dir(group)))
	g.shared["cgroup "+group] = cg
	return cg
}

// CSSSet is the css_set of tasks in a control group: in the unified hierarchy,
// or, where the path begins with "v1:", in one of version 1.
func (g *Guest) CSSSet(group string) uint64 {
	if set := g.Groups[group]; set != 0 {
		return set
	}
	set := g.Object("css_set")
	name, v1 := strings.CutPrefix(group, "v1:")
	unified := name
	if v1 {
		unified = "/"
		css := g.Object("cgroup_subsys_state")
		g.Set(css, "cgroup_subsys_state", "cgroup", g.controlGroup(name))
		g.Put64(set+g.Member("css_set", "subsys")+8*3, css)
	}
	g.Set(set, "css_set", "dfl_cgrp", g.controlGroup(unified))
	g.Groups[group] = set
	return set
}

// Processes are the identifiers of all processes, ascending, the idle task left
// out.
func (g *Guest) Processes() []int32 {
	var pids []int32
	for pid := range g.Tasks {
		if pid != 0 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}
