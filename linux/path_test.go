package linux

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

// pathOf is the path of the file at name once the guest was changed.
func pathOf(t *testing.T, name string, change func(g *synth.Guest, file uint64)) (string, bool, error) {
	t.Helper()
	g := synth.New(synth.Options{})
	file := g.File(name)
	if change != nil {
		change(g, file)
	}
	l := open(t, g).NewProcessReader()
	path, deleted := l.filePath(virt.Addr(file))
	again, deletedAgain := l.filePath(virt.Addr(file))
	if l.r.Err == nil && (again != path || deletedAgain != deleted) {
		t.Errorf("%.40q, deleted: %v; a second time %.40q, %v", path, deleted, again, deletedAgain)
	}
	return path, deleted, l.r.Err
}

// TestLongPath: directories may be nested deeper than PATH_MAX. The kernel shows such a
// path whole where its buffer grows (/proc/PID/maps); it never shows the end as if it were
// the whole.
func TestLongPath(t *testing.T) {
	name := strings.Repeat("/"+strings.Repeat("d", 120), 100) + "/file"
	if path, deleted, err := pathOf(t, name, nil); path != name || deleted || err != nil {
		t.Errorf("%d bytes, want %d; deleted: %v, %v", len(path), len(name), deleted, err)
	}
	short := strings.Repeat("/d", 6000)
	if path, _, err := pathOf(t, short, nil); path != short || err != nil {
		t.Errorf("%d bytes, want %d: %v", len(path), len(short), err)
	}
	fuse := "/mnt/" + strings.Repeat("n", 1000) // FUSE_NAME_MAX is 1024
	if path, _, err := pathOf(t, fuse, nil); path != fuse || err != nil {
		t.Errorf("%d bytes, want %d: %v", len(path), len(fuse), err)
	}
	for what, change := range map[string]func(g *synth.Guest, file uint64){
		"a loop":      func(g *synth.Guest, _ uint64) { g.Set(g.Dentry("/a"), "dentry", "d_parent", g.Dentry("/a/b")) },
		"mounts":      func(g *synth.Guest, _ uint64) { mountLoop(g) },
		"a long name": func(g *synth.Guest, _ uint64) { g.Set(g.Dentry("/a/b"), "dentry", "d_name.len", 5000) },
	} {
		if path, _, err := pathOf(t, "/a/b/c", change); path != "" || !errors.Is(err, kobj.ErrBroken) {
			t.Errorf("%s: %.40q, %v", what, path, err)
		}
	}
}

// mountLoop mounts two file systems on each other.
func mountLoop(g *synth.Guest) {
	m := g.Object("mount")
	g.Set(m, "mount", "mnt_parent", g.Mounts[0])
	g.Set(m, "mount", "mnt_mountpoint", g.Dentry("/"))
	g.Set(m, "mount", "mnt.mnt_root", g.Dentry("/"))
	g.Set(g.Mounts[0], "mount", "mnt_parent", m)
}

// TestEscapedPath: /src/a was bind-mounted on /mnt, and the open file moved out of it, to
// /src/out. Its way up never meets the root of its mount.
func TestEscapedPath(t *testing.T) {
	bind := func(file func(g *synth.Guest) uint64) func(g *synth.Guest, f uint64) {
		return func(g *synth.Guest, f uint64) {
			m := g.Object("mount")
			g.Set(m, "mount", "mnt_parent", g.Mounts[0])
			g.Set(m, "mount", "mnt_mountpoint", g.Dentry("/mnt"))
			g.Set(m, "mount", "mnt.mnt_root", g.Dentry("/src/a"))
			g.Set(f, "file", "f_path.mnt", m+g.Member("mount", "mnt"))
			g.Set(f, "file", "f_path.dentry", file(g))
		}
	}
	for want, at := range map[string]func(g *synth.Guest) uint64{
		"/mnt":                         func(g *synth.Guest) uint64 { return g.Dentry("/src/a") },
		"/mnt/c/file":                  func(g *synth.Guest) uint64 { return g.Dentry("/src/a/c/file") },
		"(unreachable)/src/out/c/file": func(g *synth.Guest) uint64 { return g.Dentry("/src/out/c/file") },
		"(unreachable)/":               func(g *synth.Guest) uint64 { return g.Dentry("/") },
	} {
		path, deleted, err := pathOf(t, "/x", bind(at))
		if path != want || deleted || err != nil {
			t.Errorf("%q, deleted: %v, %v; want %q", path, deleted, err, want)
		}
	}
	path, deleted, err := pathOf(t, "/x", bind(func(g *synth.Guest) uint64 {
		d := g.Dentry("/src/out/file")
		g.Set(d, "dentry", "d_hash.pprev", 0)
		return d
	}))
	if path != "(unreachable)/src/out/file" || !deleted || err != nil {
		t.Errorf("unlinked: %q, deleted: %v, %v", path, deleted, err)
	}
}

// TestLongGroup: a control group's path is whole or missing.
func TestLongGroup(t *testing.T) {
	for _, n := range []int{100, 300} {
		name := strings.Repeat("/"+strings.Repeat("g", 19), n)
		g := synth.New(synth.Options{})
		l := open(t, g).NewProcessReader()
		set := g.CSSSet(name)
		path := l.groupPath(virt.Addr(g.Get(set, "css_set", "dfl_cgrp")))
		if n == 100 && (path != name || l.r.Err != nil) || n == 300 && (path != "" || !errors.Is(l.r.Err, kobj.ErrBroken)) {
			t.Error(fmt.Sprintf("%d bytes", len(path)), len(name), l.r.Err)
		}
	}
}
