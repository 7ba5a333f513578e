package bpf

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// pinLayout is what lies between a file system type and the paths in it.
type pinLayout struct {
	supers, instances, inodes, mounts  kobj.Field
	mntNext, mntInstance, mntMount     kobj.Field
	op, private, sbList, dentries, als kobj.Field
}

func pinLayoutOf(s *linux.System) (*pinLayout, error) {
	return kobj.LayoutOf(s.Walker, "BPF file systems", func(r *kobj.Resolver, o *pinLayout) {
		r.Prefetch("bpf_fs_type", "bpf_prog_iops", "bpf_map_iops", "bpf_link_iops")
		o.supers, o.instances = r.Field("file_system_type", "fs_supers"), r.Field("super_block", "s_instances")
		o.inodes, o.mounts = r.Field("super_block", "s_inodes"), r.Field("super_block", "s_mounts")
		o.mntNext = r.Optional("mount", "mnt_next_for_sb") // 6.18; a list_head before
		o.mntInstance, o.mntMount = r.Optional("mount", "mnt_instance"), r.Field("mount", "mnt")
		o.op, o.private = r.Field("inode", "i_op"), r.Field("inode", "i_private")
		o.sbList, o.dentries = r.Field("inode", "i_sb_list"), r.Field("inode", "i_dentry")
		o.als = r.Field("dentry", "d_alias", "d_u.d_alias") // 7.0
	})
}

// readPins finds the objects pinned in the BPF file systems of the guest.
func readPins(ctx context.Context, s *linux.System, pins map[virt.Addr][]string, fail func(error)) {
	o, err := pinLayoutOf(s)
	if err != nil {
		fail(err)
		return
	}
	fs, err := s.SymbolAddr("bpf_fs_type")
	if err != nil {
		return // built without
	}
	w := pinReader{o: o, r: s.Reader(), names: s.NewProcessReader(), pins: pins}
	for i, name := range []string{"bpf_prog_iops", "bpf_map_iops", "bpf_link_iops"} {
		w.ops[i], _ = s.Address(name)
	}
	seen := 0
	for node, err := range s.HList(ctx, o.supers.At(fs), 4096) {
		if err != nil {
			fail(fmt.Errorf("BPF file systems: %w", err))
			continue
		}
		sb := node - virt.Addr(o.instances.Offset)
		mnt := w.mount(sb)
		for node, err := range s.List(ctx, o.inodes.At(sb), maxObjects) {
			if seen++; seen > maxObjects {
				fail(fmt.Errorf("BPF file systems: %w", kobj.ErrBudget))
				return
			}
			if err == nil {
				err = w.pin(mnt, node-virt.Addr(o.sbList.Offset))
			}
			if err != nil {
				fail(fmt.Errorf("BPF file system at %#x: %w", uint64(sb), err))
			}
		}
	}
}

// pinReader collects what is pinned.
type pinReader struct {
	o     *pinLayout
	r     kobj.Reader
	names *linux.ProcessReader
	ops   [3]virt.Addr // inode operations of programs, maps and links
	pins  map[virt.Addr][]string
}

// mount is a vfsmount of the file system at sb; 0 where it is mounted nowhere.
func (w *pinReader) mount(sb virt.Addr) virt.Addr {
	o, r := w.o, &w.r
	r.Err = nil
	m := r.Pointer(sb, o.mounts)
	if !o.mntNext.Present() {
		if m == o.mounts.At(sb) {
			m = 0 // an empty list
		} else {
			m -= virt.Addr(o.mntInstance.Offset)
		}
	}
	if m == 0 || r.Err != nil {
		return 0
	}
	return o.mntMount.At(m)
}

// pin adds the inode at a to the pins if it is a BPF object's.
func (w *pinReader) pin(mnt, a virt.Addr) error {
	o, r := w.o, &w.r
	r.Err = nil
	op := r.Pointer(a, o.op)
	if r.Err != nil || op == 0 || !slices.Contains(w.ops[:], op) {
		return r.Err
	}
	object := r.Pointer(a, o.private)
	node := r.Pointer(a, o.dentries)
	if node == 0 || mnt == 0 {
		return r.Err // has no name, or none that leads to it
	}
	path, _, err := w.names.PathOf(mnt, node-virt.Addr(o.als.Offset))
	if err = cmp.Or(r.Err, err); err != nil {
		return fmt.Errorf("inode at %#x: %w", uint64(a), err)
	}
	w.pins[object] = append(w.pins[object], path)
	return nil
}
