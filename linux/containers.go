package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// ContainerInfo is one container: what runs under one container's control group, or in
// the PID namespace that a runtime made.
type ContainerInfo struct {
	Container
	Name      string // what people call it, where that can be found
	Cgroup    string // of its root process
	Pod       string // UID of the Kubernetes pod; empty outside one
	RootPID   int32  // its first process
	RootComm  string
	Processes int
	Hostname  string // of its UTS namespace
	Started   time.Time
	Root      string   // its root folder, seen from the root of its mount namespace
	RootType  string   // type of the file system that it is in: overlay, ext4 …
	RootFrom  string   // what is mounted there: a device, or what the runtime called it
	Overlay   *Overlay // the folders that an overlay makes its root of; nil for others
	PIDNS     uint64

	OverlayErr error // why Overlay could not be read
}

type containerLayout struct {
	root, mnt, dentry, sb, sbType, typeName, dev, uts, nodename kobj.Field
}

func (s *System) containerLayout() (*containerLayout, error) {
	return kobj.LayoutOf(s.Walker, "containers", func(r *kobj.Resolver, o *containerLayout) {
		o.root = r.Field("fs_struct", "root")
		o.mnt, o.dentry = r.Field("path", "mnt"), r.Field("path", "dentry")
		o.sb, o.sbType = r.Field("vfsmount", "mnt_sb"), r.Field("super_block", "s_type")
		o.typeName, o.dev = r.Field("file_system_type", "name"), r.Field("mount", "mnt_devname")
		o.uts, o.nodename = r.Field("nsproxy", "uts_ns"), r.Field("uts_namespace", "name.nodename")
	})
}

// containerKey is what the processes of a container have in common.
type containerKey struct {
	id Container
	ns virt.Addr // their PID namespace, where no control group shows it
}

// containerGroup is a container as it is being found.
type containerGroup struct {
	info   *ContainerInfo
	task   Task
	inside bool // it is number 1 of a PID namespace
}

// Containers yields the containers of the guest, in the order in which they started.
// They are told by the names of control groups, which every runtime chooses in its
// own way (see [ContainerOf]), else by the monitor above the first process of a PID
// namespace, or by what the runtime put into its environment.
func (s *System) Containers(ctx context.Context) iter.Seq2[*ContainerInfo, error] {
	return func(yield func(*ContainerInfo, error) bool) {
		o, err := s.containerLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		l := s.NewProcessReader()
		found, errs := map[containerKey]*containerGroup{}, []error{}
		for t, err := range s.Processes(ctx) {
			var m containerMember
			if err == nil {
				m, err = l.member(t)
			}
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if m.key != (containerKey{}) {
				m.join(found, t)
			}
		}
		for _, err := range errs {
			if !yield(nil, err) {
				return
			}
		}
		failed := map[*ContainerInfo]error{}
		known := map[Container]*ContainerInfo{}
		for _, k := range sortedContainers(found) {
			g := found[k]
			signs, err := l.signs(g.task)
			if k.id != (Container{}) {
				known[k.id] = g.info
			} else if g.info.Container = signs.Container; signs.Runtime == "" {
				continue // a PID namespace of another use
			} else if other := known[signs.Container]; other != nil && signs.ID != "" {
				other.Processes += g.info.Processes // some of it went to another control group
				continue
			}
			if signs.ID == g.info.ID {
				g.info.Name = signs.name
			}
			failed[g.info] = errors.Join(err, l.container(ctx, g.task, g.info, o))
		}
		all := slices.SortedFunc(maps.Keys(failed), func(a, b *ContainerInfo) int {
			return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.RootPID, b.RootPID))
		})
		for _, c := range all {
			if !yield(c, failed[c]) {
				return
			}
		}
	}
}

// sortedContainers puts those that a control group names first.
func sortedContainers(found map[containerKey]*containerGroup) []containerKey {
	return slices.SortedFunc(maps.Keys(found), func(a, b containerKey) int {
		return cmp.Or(cmp.Compare(a.ns, b.ns), strings.Compare(a.id.ID, b.id.ID), strings.Compare(a.id.Runtime, b.id.Runtime))
	})
}

type containerMember struct {
	key  containerKey
	pid  int32
	init bool // of a PID namespace
}

// join counts t, which m is about, in.
func (m containerMember) join(found map[containerKey]*containerGroup, t Task) {
	g := found[m.key]
	if g == nil {
		g = &containerGroup{info: &ContainerInfo{Container: m.key.id}}
		found[m.key] = g
	}
	g.info.Processes++
	// A runtime's own monitor may share the group: the one that is number 1 inside counts.
	if g.info.RootPID == 0 || m.init && !g.inside {
		g.task, g.inside, g.info.RootPID = t, m.init, m.pid
	}
}

// member says whose container t is in.
func (l *ProcessReader) member(t Task) (m containerMember, err error) {
	o, r := l.s.o, &l.r
	r.Err = nil
	m.pid = int32(r.U32(t.Addr + virt.Addr(o.tgid)))
	m.key.id = l.group(t.Addr).container
	if pid := r.Ptr(t.Addr + virt.Addr(o.threadPid)); pid != 0 && r.U32(pid+virt.Addr(o.pidLevel)) > 0 {
		p := Process{}
		l.namespaces(&p, t.Addr)
		m.init = p.NSPID == 1
		if m.key.id == (Container{}) {
			// The outermost below the guest's own: what nests in it is of one container.
			m.key.ns = r.Ptr(pid + virt.Addr(o.pidNumbers+o.upidSize+o.upidNS))
		}
	}
	if r.Err != nil {
		return m, fmt.Errorf("container of task %#x: %w", uint64(t.Addr), r.Err)
	}
	return m, nil
}

// signs asks the monitor of a container's first process t, and then t, who made it.
func (l *ProcessReader) signs(t Task) (c containerSigns, err error) {
	o, r := l.s.o, &l.r
	r.Err = nil
	parent := r.Ptr(t.Addr + virt.Addr(o.realParent))
	if mm := r.Ptr(parent + virt.Addr(o.mm)); mm != 0 && r.Err == nil {
		// Arguments that are swapped out are none: what is left are the other signs.
		args, _ := l.args(mm)
		r.Err = nil
		c = monitorSigns(args)
	}
	if r.Err != nil {
		return c, fmt.Errorf("monitor of task %#x: %w", uint64(t.Addr), r.Err)
	}
	if c.Runtime == "" {
		vars, _ := l.Environment(t)
		c = environSigns(vars)
	}
	return c, nil
}

// container fills c from its root process t.
func (l *ProcessReader) container(ctx context.Context, t Task, c *ContainerInfo, o *containerLayout) (err error) {
	so, r, a := l.s.o, &l.r, t.Addr
	r.Err = nil
	c.Cgroup = l.group(a).path
	c.Pod = podOf(c.Cgroup)
	c.RootComm = l.comm(a, r.U32(a+virt.Addr(so.flags)))
	c.Started = l.s.WallClock(time.Duration(r.U64(a + virt.Addr(so.startBoottime))))
	p := Process{}
	l.namespaces(&p, a)
	c.PIDNS = p.NS.PID
	if proxy := r.Ptr(a + virt.Addr(so.nsproxy)); proxy != 0 {
		c.Hostname = kobj.CString(r.Bytes(o.nodename.At(r.Pointer(proxy, o.uts)), 65))
	}
	if c.ID == "" {
		c.ID = c.Hostname // no other name can be found
	}
	var sb virt.Addr
	if fs := r.Ptr(a + virt.Addr(so.fs)); fs != 0 {
		mnt := r.Pointer(o.root.At(fs), o.mnt)
		c.Root, _ = l.path(mnt, r.Pointer(o.root.At(fs), o.dentry))
		sb = r.Pointer(mnt, o.sb)
		c.RootType = r.CString(r.Pointer(r.Pointer(sb, o.sbType), o.typeName), 32)
		c.RootFrom = r.CString(r.Pointer(mnt-virt.Addr(so.mountMnt), o.dev), MaxPath)
	}
	if r.Err != nil {
		return fmt.Errorf("container %s: %w", c.ID, r.Err)
	}
	if c.RootType == overlayType {
		c.Overlay, c.OverlayErr = l.overlay(sb)
	}
	if c.Name == "" && c.Pod != "" {
		if c.Name, err = l.podContainer(ctx, t); err != nil {
			return fmt.Errorf("container %s: %w", c.ID, err)
		}
	}
	return nil
}

// podContainer looks for the name of a container of a pod among its mounts.
func (l *ProcessReader) podContainer(ctx context.Context, t Task) (string, error) {
	ns, _, err := l.MountNamespaceOf(t)
	if ns == 0 || err != nil {
		return "", err
	}
	for m, err := range l.Mounts(ctx, ns) {
		if err != nil {
			return "", err
		}
		if name := podContainerName(m.Point, m.Root); name != "" {
			return name, nil
		}
	}
	return "", nil
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
