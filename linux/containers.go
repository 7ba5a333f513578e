package linux

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// ContainerInfo is one container: what runs under one container's control group.
type ContainerInfo struct {
	Container
	Cgroup    string // of its root process
	Pod       string // UID of the Kubernetes pod; empty outside one
	RootPID   int32  // its first process
	RootComm  string
	Processes int
	Hostname  string // of its UTS namespace
	Started   time.Time
	Root      string // its root folder, seen from the root of its mount namespace
	RootType  string // type of the file system that it is in: overlay, ext4 …
	RootFrom  string // what is mounted there: a device, or what the runtime called it
	PIDNS     uint64
}

type containerLayout struct {
	root, mnt, dentry, sb, sbType, typeName, dev, uts, nodename kernel.Field
}

func (s *System) containerLayout() (*containerLayout, error) {
	return layoutOf(s, "containers", func(r *resolver, o *containerLayout) {
		o.root = r.field("fs_struct", "root")
		o.mnt, o.dentry = r.field("path", "mnt"), r.field("path", "dentry")
		o.sb, o.sbType = r.field("vfsmount", "mnt_sb"), r.field("super_block", "s_type")
		o.typeName, o.dev = r.field("file_system_type", "name"), r.field("mount", "mnt_devname")
		o.uts, o.nodename = r.field("nsproxy", "uts_ns"), r.field("uts_namespace", "name.nodename")
	})
}

// Containers yields the containers of the guest, in the order in which they started.
// They are told by the names of control groups, which every runtime chooses in its
// own way; see [ContainerOf].
func (s *System) Containers(ctx context.Context) iter.Seq2[*ContainerInfo, error] {
	return func(yield func(*ContainerInfo, error) bool) {
		o, err := s.containerLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		l := s.NewLister()
		type first struct {
			info   *ContainerInfo
			task   Task
			inside bool // it is number 1 of a PID namespace
		}
		found := map[Container]*first{}
		for t, err := range s.Processes(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			m, err := l.member(t)
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if m.id == (Container{}) {
				continue
			}
			f := found[m.id]
			if f == nil {
				f = &first{info: &ContainerInfo{Container: m.id}}
				found[m.id] = f
			}
			f.info.Processes++
			// A runtime's own monitor may share the group: the one that is number 1 inside counts.
			if f.info.RootPID == 0 || m.init && !f.inside {
				f.task, f.inside, f.info.RootPID = t, m.init, m.pid
			}
		}
		errs := map[*ContainerInfo]error{}
		var all []*ContainerInfo
		for _, id := range slices.SortedFunc(maps.Keys(found), func(a, b Container) int {
			return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Runtime, b.Runtime))
		}) {
			f := found[id]
			errs[f.info] = l.container(f.task, f.info, o)
			all = append(all, f.info)
		}
		slices.SortStableFunc(all, func(a, b *ContainerInfo) int { return a.Started.Compare(b.Started) })
		for _, c := range all {
			if !yield(c, errs[c]) {
				return
			}
		}
	}
}

type containerMember struct {
	id   Container
	pid  int32
	init bool
}

// member says whose container t is in.
func (l *Lister) member(t Task) (m containerMember, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	o, r := l.s.o, &l.r
	r.err = nil
	m.pid = int32(r.u32(t.Addr + virt.Addr(o.tgid)))
	m.id = l.group(t.Addr).container
	if m.id != (Container{}) {
		p := Process{}
		l.namespaces(&p, t.Addr)
		m.init = p.NSPID == 1 && m.pid != 1
	}
	if r.err != nil {
		return m, fmt.Errorf("container of task %#x: %w", uint64(t.Addr), r.err)
	}
	return m, nil
}

// container fills c from its root process t.
func (l *Lister) container(t Task, c *ContainerInfo, o *containerLayout) (err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	so, r, a := l.s.o, &l.r, t.Addr
	r.err = nil
	c.Cgroup = l.group(a).path
	c.Pod = podOf(c.Cgroup)
	c.RootComm = l.comm(a, r.u32(a+virt.Addr(so.flags)))
	c.Started = l.s.started(r.u64(a + virt.Addr(so.startBoottime)))
	p := Process{}
	l.namespaces(&p, a)
	c.PIDNS = p.NS.PID
	if proxy := r.ptr(a + virt.Addr(so.nsproxy)); proxy != 0 {
		c.Hostname = cString(r.bytes(at(r.pointer(proxy, o.uts), o.nodename), 65))
	}
	if fs := r.ptr(a + virt.Addr(so.fs)); fs != 0 {
		mnt := r.pointer(at(fs, o.root), o.mnt)
		c.Root, _ = l.path(mnt, r.pointer(at(fs, o.root), o.dentry))
		c.RootType = r.cString(r.pointer(r.pointer(r.pointer(mnt, o.sb), o.sbType), o.typeName), 32)
		c.RootFrom = r.cString(r.pointer(mnt-virt.Addr(so.mountMnt), o.dev), maxPath)
	}
	if r.err != nil {
		return fmt.Errorf("container %s: %w", c.ID, r.err)
	}
	return nil
}

var podName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`/(?:kubepods-?[a-z]*-)?pod([0-9a-f]{8}[-_][0-9a-f_-]{20,40})(?:\.slice)?(?:/|$)`)
})

// podOf is the UID of the Kubernetes pod that the path of a control group names.
func podOf(cgroup string) string {
	m := podName().FindStringSubmatch(cgroup)
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(m[1], "_", "-")
}
