package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-mount",
		Title:     "Mounts that a list of the kernel leaves out",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source:    "mnt_namespace.mounts (a list up to 6.7) against mount.mnt_mounts, mnt_child and mnt_ns",
		Proves: `A mount is in the tree of mounts that paths are looked up in, and not among the mounts of its namespace, by which /proc/mounts, mount and df go; or the other way
round. Somebody took it out of one, so that a file system with tools or loot in it is used and not seen.`,
		Blind: `A mount that was taken out of both, or that lies in a namespace of its own, which no process is in any more.`,
		Next:  `"outsight mounts TARGET" shows what the namespace lists. The command shown reads the one that is missing: mnt_devname says what is mounted, mnt_mountpoint where.`,
		Example: `A tmpfs was taken off the list that /proc/mounts goes by:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK         TITLE
    high      certain     hidden-mount  mount /mnt (tmpfs) is missing from the mounts of its namespace`,
		Kept: true,
		Run:  hiddenMounts,
	})
}

// mountLayout is where members of struct mount lie that lead to others.
type mountLayout struct {
	children, child, namespace, parent, device, point kobj.Field
	name                                              kobj.Field // of dentry
}

const maxMounts = 1 << 20

func hiddenMounts(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "ways to mounts", func(r *kobj.Resolver, o *mountLayout) {
			const m = "mount"
			o.children, o.child, o.namespace, o.parent = r.Field(m, "mnt_mounts"), r.Field(m, "mnt_child"), r.Field(m, "mnt_ns"), r.Field(m, "mnt_parent")
			o.device, o.point = r.Field(m, "mnt_devname"), r.Field(m, "mnt_mountpoint")
			o.name = r.Field("dentry", "d_name.name", "__d_name.name") // 6.15
		})
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		reader := s.Linux.NewProcessReader()
		for ns, err := range ps.mountNamespaces(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !s.mountsOf(ctx, reader, ns.addr, o, yield) {
				return
			}
		}
	}
}

// mountsOf judges the mounts of a namespace.
func (s *Subject) mountsOf(ctx context.Context, reader *linux.ProcessReader, ns virt.Addr, o *mountLayout, yield func(*Finding, error) bool) bool {
	points := map[virt.Addr]string{}
	var listed []virt.Addr
	roots := map[virt.Addr]bool{} // they are nobody's children
	r := s.Linux.Reader()
	ways, errs := follow(ctx, []way{
		{"the mounts of its namespace", func(ctx context.Context, met func(virt.Addr)) error {
			for m, err := range reader.Mounts(ctx, ns) {
				if err != nil {
					return err
				}
				points[m.Addr] = m.Point
				listed = append(listed, m.Addr)
				roots[m.Addr] = r.Pointer(m.Addr, o.parent) == m.Addr
				met(m.Addr)
			}
			return r.Err
		}},
		{"the tree of mounts", func(ctx context.Context, met func(virt.Addr)) error {
			known := map[virt.Addr]bool{}
			for _, m := range listed {
				known[m] = true
			}
			for queue := listed; len(queue) > 0 && len(known) < maxMounts; queue = queue[1:] {
				for node, err := range s.Linux.List(ctx, o.children.At(queue[0]), maxMounts) {
					if err != nil {
						return err
					}
					// What is being unmounted belongs to no namespace any more.
					m := node - o.child.At(0)
					if r.Pointer(m, o.namespace) == ns {
						met(m)
						if !known[m] {
							known[m] = true
							queue = append(queue, m)
						}
					}
					if r.Err != nil {
						return r.Err
					}
				}
			}
			for m, root := range roots {
				if root {
					met(m)
				}
			}
			return nil
		}},
	})
	for _, err := range errs {
		if !yield(nil, fmt.Errorf("mount namespace at %#x: %w", uint64(ns), err)) {
			return false
		}
	}
	for _, m := range ways.objects() {
		in, out := ways.of(m)
		if len(out) == 0 {
			continue
		}
		r.Err = nil
		name, device := points[m], r.CString(r.Pointer(m, o.device), linux.MaxName)
		if name == "" {
			name = "at " + r.CString(r.Pointer(r.Pointer(m, o.point), o.name), linux.MaxName)
		}
		if r.Err != nil {
			if !yield(nil, fmt.Errorf("mount at %#x: %w", uint64(m), r.Err)) {
				return false
			}
			continue
		}
		if !yield(missing(Object{Kind: "mount", Name: fmt.Sprintf("%s (%s)", name, device), Addr: m}, "mount", in, out), nil) {
			return false
		}
	}
	return true
}
