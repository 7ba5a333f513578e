package linux

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/virt"
)

// mapsLayout is the members of struct vm_area_struct and what belongs to it.
type mapsLayout struct {
	size                                      uint32
	start, end, flags, pgoff, file, ops       Field
	private, anonName, anonNameText, ringName Field
	next, rb                                  Field
	tree, mmap, rbRoot                        Field // of mm_struct
	mapCount, startBrk, brk, startStack       Field
	fileInode, fileMode, userPath, dInode     Field
	fileMapping                               Field
	dSuper, mntRoot                           Field
	inoNumber, inoSuper, superDev             Field
	specialOps, hugeZeroPFN                   virt.Addr // 0: not known
	anonNameShared                            bool      // it lies in a union with what files need
	heapTouches                               bool      // until 6.5 what only touches the heap is called so too
}

func (s *System) mapsLayout() (*mapsLayout, error) {
	return layoutOf(s.Walker, "mappings", func(r *resolver, o *mapsLayout) {
		r.symbols("special_mapping_vmops", "huge_zero_pfn")
		const v, m = "vm_area_struct", "mm_struct"
		o.size = r.size(v)
		o.start, o.end = r.field(v, "vm_start"), r.field(v, "vm_end")
		o.flags = r.field(v, "vm_flags")
		o.pgoff, o.file, o.ops = r.field(v, "vm_pgoff"), r.field(v, "vm_file"), r.field(v, "vm_ops")
		o.private = r.field(v, "vm_private_data")
		// 5.17, with CONFIG_ANON_VMA_NAME; until 6.1 only what has no file has a name.
		o.anonName = r.optional(v, "anon_name")
		o.anonNameShared = has(o.anonName) && r.may(v, "shared") == o.anonName.Offset
		o.heapTouches = !has(r.optional(v, "vm_lock_seq"))
		o.anonNameText = r.optional("anon_vma_name", "name")
		o.ringName = r.field("vm_special_mapping", "name")
		o.tree = r.optional(m, "mm_mt") // 6.1
		if !has(o.tree) {
			o.mmap, o.rbRoot = r.field(m, "mmap"), r.field(m, "mm_rb")
			o.next, o.rb = r.field(v, "vm_next"), r.field(v, "vm_rb")
		}
		o.mapCount = r.field(m, "map_count")
		o.startBrk, o.brk, o.startStack = r.field(m, "start_brk"), r.field(m, "brk"), r.field(m, "start_stack")
		o.fileInode, o.fileMode = r.field("file", "f_inode"), r.field("file", "f_mode")
		o.fileMapping = r.field("file", "f_mapping")
		o.userPath, o.dInode = r.optional("backing_file", "user_path"), r.field("dentry", "d_inode") // 6.8
		o.dSuper, o.mntRoot = r.field("dentry", "d_sb"), r.field("vfsmount", "mnt_root")
		o.inoNumber, o.inoSuper = r.field("inode", "i_ino"), r.field("inode", "i_sb")
		o.superDev = r.field("super_block", "s_dev")
		o.specialOps, _ = s.Address("special_mapping_vmops")
		o.hugeZeroPFN, _ = s.Address("huge_zero_pfn")
	})
}

// fieldIn is member f in b, a copy of the structure; 0 where the kernel lacks it or
// b is too short.
func fieldIn(b []byte, f Field) uint64 {
	if !has(f) || f.Size == 0 || uint64(f.Offset)+uint64(f.Size) > uint64(len(b)) {
		return 0
	}
	var w [8]byte
	copy(w[:], b[f.Offset:f.Offset+min(f.Size, 8)])
	v := binary.LittleEndian.Uint64(w[:])
	if f.BitSize != 0 && f.BitSize < 64 {
		v = v >> f.BitOff & (1<<f.BitSize - 1)
	}
	return v
}
