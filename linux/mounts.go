package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

type mountsLayout struct {
	nsTree, nsList, nsCount                kobj.Field // of mnt_namespace
	node, list                             kobj.Field // of mount
	id, parent, group, master, tflags, dev kobj.Field
	sb, flags                              kobj.Field // of vfsmount
	sbDev, sbFlags, sbType, sbSubtype      kobj.Field
	typeName                               kobj.Field
}

func (s *System) mountsLayout() (*mountsLayout, error) {
	return kobj.LayoutOf(s.Walker, "mounts", func(r *kobj.Resolver, o *mountsLayout) {
		const m = "mount"
		o.node = r.Optional(m, "mnt_node") // 6.8: a red-black tree, before a list
		if o.node.Present() {
			o.nsTree, o.nsCount = r.Field("mnt_namespace", "mounts"), r.Field("mnt_namespace", "nr_mounts")
		} else {
			o.nsList, o.nsCount = r.Field("mnt_namespace", "list"), r.Field("mnt_namespace", "mounts")
			o.list = r.Field(m, "mnt_list")
		}
		o.id, o.group, o.master = r.Field(m, "mnt_id"), r.Field(m, "mnt_group_id"), r.Field(m, "mnt_master")
		o.parent, o.dev = r.Field(m, "mnt_parent"), r.Field(m, "mnt_devname")
		o.tflags = r.Optional(m, "mnt_t_flags") // 6.17: propagation has flags of its own
		o.sb, o.flags = r.Field("vfsmount", "mnt_sb"), r.Field("vfsmount", "mnt_flags")
		const s = "super_block"
		o.sbDev, o.sbFlags, o.sbType = r.Field(s, "s_dev"), r.Field(s, "s_flags"), r.Field(s, "s_type")
		o.sbSubtype, o.typeName = r.Optional(s, "s_subtype"), r.Field("file_system_type", "name")
	})
}

// Mount is one mount of a mount namespace.
type Mount struct {
	NS           uint64 // inode of the mount namespace
	ID, Parent   int32
	Device       Device
	Root         string // of the file system's tree, what is mounted
	Deleted      bool   // that was unlinked since
	Point        string // where, from the root of the namespace
	Options      []string
	Shared       int32  // peer group; 0: not shared
	Master       int32  // peer group that it receives from; 0: none
	Unbindable   bool   //
	Type         string // with its subtype, as "fuse.sshfs"
	Source       string
	SuperOptions []string // those that all file systems share
	Super        virt.Addr
	Addr         virt.Addr // of the struct mount
}

// maxMounts bounds those of one namespace; fs.mount-max is 100000 by default.
const maxMounts = 1 << 20

// MountNamespaceOf is the address of the mnt_namespace of t; 0 for a zombie.
func (l *ProcessReader) MountNamespaceOf(t Task) (_ virt.Addr, inum uint64, err error) {
	o, r := l.s.o, &l.r
	r.Err = nil
	proxy := r.Ptr(t.Addr + virt.Addr(o.nsproxy))
	if proxy == 0 {
		return 0, 0, r.Err
	}
	ns := r.Ptr(proxy + virt.Addr(o.nsMnt))
	return ns, l.inum(ns, o.inumMnt), r.Err
}

// Mounts yields the mounts of the namespace whose mnt_namespace is at ns, as
// /proc/PID/mountinfo lists them, and what lies below a process' root too.
func (l *ProcessReader) Mounts(ctx context.Context, ns virt.Addr) iter.Seq2[*Mount, error] {
	return func(yield func(*Mount, error) bool) {
		o, err := l.s.mountsLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		nodes, off := l.s.List(ctx, o.nsList.At(ns), maxMounts), o.list.Offset
		if o.node.Present() {
			nodes, off = l.s.RBTree(ctx, o.nsTree.At(ns), maxMounts), o.node.Offset
		}
		for node, err := range nodes {
			var m *Mount
			if err == nil {
				m, err = l.mount(node-virt.Addr(off), ns, o)
			}
			if err != nil {
				err = fmt.Errorf("mounts of namespace %#x: %w", uint64(ns), err)
			} else if m == nil {
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// MountAddrs yields where the mounts (struct mount) of the namespace are whose mnt_namespace is at ns.
func (s *System) MountAddrs(ctx context.Context, ns virt.Addr) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		o, err := s.mountsLayout()
		if err != nil {
			yield(0, err)
			return
		}
		nodes, off := s.List(ctx, o.nsList.At(ns), maxMounts), o.list.Offset
		if o.node.Present() {
			nodes, off = s.RBTree(ctx, o.nsTree.At(ns), maxMounts), o.node.Offset
		}
		r := s.Reader()
		for node, err := range nodes {
			if err != nil {
				err = fmt.Errorf("mounts of namespace %#x: %w", uint64(ns), err)
				if !yield(0, err) {
					return
				}
				continue
			}
			a := node - virt.Addr(off)
			r.Err = nil
			if !o.node.Present() && r.Uint(a+virt.Addr(s.o.mountMnt), o.flags)&mountCursor != 0 && r.Err == nil {
				continue
			}
			if !yield(a, nil) {
				return
			}
		}
	}
}

// mountCursor marks the place of someone who reads the list of mounts (MNT_CURSOR, until 6.7).
const mountCursor = 0x1000_0000

// mount reads the struct mount at a; nil if it is the place of someone who reads
// the list (until 6.7).
func (l *ProcessReader) mount(a, ns virt.Addr, o *mountsLayout) (_ *Mount, err error) {
	const (
		shared, unbindable   = 0x1000, 0x2000 // MNT_SHARED, MNT_UNBINDABLE
		tShared, tUnbindable = 1, 2           // T_SHARED, T_UNBINDABLE
	)
	r, p := &l.r, l.s.o
	r.Err = nil
	mnt := a + virt.Addr(p.mountMnt)
	flags := r.Uint(mnt, o.flags)
	if !o.node.Present() && flags&mountCursor != 0 {
		return nil, r.Err
	}
	m := &Mount{Addr: a, NS: l.inum(ns, p.inumMnt), ID: int32(r.Uint(a, o.id))}
	m.Parent = int32(r.Uint(r.Pointer(a, o.parent), o.id))
	m.Options = mountOptions(flags)
	isShared, isUnbindable := flags&shared != 0, flags&unbindable != 0
	if o.tflags.Present() {
		t := r.Uint(a, o.tflags)
		isShared, isUnbindable = t&tShared != 0, t&tUnbindable != 0
	}
	if isShared {
		m.Shared = int32(r.Uint(a, o.group))
	}
	if master := r.Pointer(a, o.master); master != 0 {
		m.Master = int32(r.Uint(master, o.group))
	}
	m.Unbindable = isUnbindable
	m.Super = r.Pointer(mnt, o.sb)
	m.Device = Device(r.Uint(m.Super, o.sbDev))
	m.SuperOptions = superOptions(r.Uint(m.Super, o.sbFlags))
	m.Type = r.CString(r.Pointer(r.Pointer(m.Super, o.sbType), o.typeName), MaxName)
	if sub := r.Pointer(m.Super, o.sbSubtype); sub != 0 {
		m.Type += "." + r.CString(sub, MaxName)
	}
	m.Source = "none"
	if dev := r.Pointer(a, o.dev); dev != 0 {
		m.Source = r.CString(dev, MaxPath)
	}
	root := r.Ptr(mnt + virt.Addr(p.mntRoot))
	m.Root = l.dentryPath(root)
	m.Deleted = r.Ptr(root+virt.Addr(p.dHash)) == 0 && r.Ptr(root+virt.Addr(p.dParent)) != root
	m.Point, _ = l.path(mnt, root)
	if r.Err != nil {
		return nil, fmt.Errorf("mount at %#x: %w", uint64(a), r.Err)
	}
	return m, nil
}

type mountFlag struct {
	bit  uint64
	name string
}

// mountOptions are the options of one mount, in the order of mountinfo.
func mountOptions(flags uint64) []string {
	const readOnly = 0x40
	return optionNames(flags, readOnly, []mountFlag{
		{0x1, "nosuid"},
		{0x2, "nodev"},
		{0x4, "noexec"},
		{0x8, "noatime"},
		{0x10, "nodiratime"},
		{0x20, "relatime"},
		{0x80, "nosymfollow"},
	})
}

// superOptions are the options of a file system that all of them know.
func superOptions(flags uint64) []string {
	const readOnly = 1
	return optionNames(flags, readOnly, []mountFlag{{0x10, "sync"}, {0x80, "dirsync"}, {0x40, "mand"}, {1 << 25, "lazytime"}})
}

func optionNames(flags, readOnly uint64, known []mountFlag) []string {
	names := []string{"rw"}
	if flags&readOnly != 0 {
		names[0] = "ro"
	}
	for _, f := range known {
		if flags&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return names
}
