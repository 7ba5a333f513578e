package linux

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// bpfPinLayout is what lies between a file system type and the paths in it.
type bpfPinLayout struct {
	supers, instances, inodes, mounts  kobj.Field
	mntNext, mntInstance               kobj.Field
	op, private, sbList, dentries, als kobj.Field
}

func (s *System) bpfPinLayout() (*bpfPinLayout, error) {
	return kobj.LayoutOf(s.Walker, "BPF file systems", func(r *kobj.Resolver, o *bpfPinLayout) {
		r.Prefetch("bpf_fs_type", "bpf_prog_iops", "bpf_map_iops", "bpf_link_iops")
		o.supers, o.instances = r.Field("file_system_type", "fs_supers"), r.Field("super_block", "s_instances")
		o.inodes, o.mounts = r.Field("super_block", "s_inodes"), r.Field("super_block", "s_mounts")
		o.mntNext = r.Optional("mount", "mnt_next_for_sb") // 6.18; a list_head before
		o.mntInstance = r.Optional("mount", "mnt_instance")
		o.op, o.private = r.Field("inode", "i_op"), r.Field("inode", "i_private")
		o.sbList, o.dentries = r.Field("inode", "i_sb_list"), r.Field("inode", "i_dentry")
		o.als = r.Field("dentry", "d_alias", "d_u.d_alias") // 7.0
	})
}

// bpfPins finds the objects pinned in the BPF file systems of the guest.
func (s *System) bpfPins(ctx context.Context, pins map[virt.Addr][]string, fail func(error)) {
	o, err := s.bpfPinLayout()
	if err != nil {
		fail(err)
		return
	}
	fs, err := s.SymbolAddr("bpf_fs_type")
	if err != nil {
		return // built without
	}
	var ops [3]virt.Addr
	for i, name := range []string{"bpf_prog_iops", "bpf_map_iops", "bpf_link_iops"} {
		ops[i], _ = s.Address(name)
	}
	l := s.NewProcessReader()
	seen := 0
	for node, err := range s.HList(ctx, o.supers.At(fs), 4096) {
		if err != nil {
			fail(fmt.Errorf("BPF file systems: %w", err))
			continue
		}
		sb := node - virt.Addr(o.instances.Offset)
		mnt := o.mount(l, sb)
		for node, err := range s.List(ctx, o.inodes.At(sb), maxBPF) {
			if seen++; seen > maxBPF {
				fail(fmt.Errorf("BPF file systems: %w", kobj.ErrBudget))
				return
			}
			if err == nil {
				err = o.pin(l, ops, mnt, node-virt.Addr(o.sbList.Offset), pins)
			}
			if err != nil {
				fail(fmt.Errorf("BPF file system at %#x: %w", uint64(sb), err))
			}
		}
	}
}

// mount is a vfsmount of the file system at sb; 0 where it is mounted nowhere.
func (o *bpfPinLayout) mount(l *ProcessReader, sb virt.Addr) virt.Addr {
	l.r.Err = nil
	m := l.r.Pointer(sb, o.mounts)
	if !o.mntNext.Present() {
		if m == o.mounts.At(sb) {
			m = 0 // an empty list
		} else {
			m -= virt.Addr(o.mntInstance.Offset)
		}
	}
	if m == 0 || l.r.Err != nil {
		return 0
	}
	return m + virt.Addr(l.s.o.mountMnt)
}

// pin adds the inode at a to pins if it is a BPF object's.
func (o *bpfPinLayout) pin(l *ProcessReader, ops [3]virt.Addr, mnt, a virt.Addr, pins map[virt.Addr][]string) (err error) {
	r := &l.r
	r.Err = nil
	op := r.Pointer(a, o.op)
	if r.Err != nil || op == 0 || op != ops[0] && op != ops[1] && op != ops[2] {
		return r.Err
	}
	object := r.Pointer(a, o.private)
	node := r.Pointer(a, o.dentries)
	if node == 0 || mnt == 0 {
		return r.Err // has no name, or none that leads to it
	}
	path, _ := l.path(mnt, node-virt.Addr(o.als.Offset))
	if r.Err != nil {
		return fmt.Errorf("inode at %#x: %w", uint64(a), r.Err)
	}
	pins[object] = append(pins[object], path)
	return nil
}
