package linux

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// mapsLayout is the members of struct vm_area_struct and what belongs to it.
type mapsLayout struct {
	size                                      uint32
	start, end, flags, pgoff, file, ops       kobj.Field
	private, anonName, anonNameText, ringName kobj.Field
	next, rb                                  kobj.Field
	tree, mmap, rbRoot                        kobj.Field // of mm_struct
	mapCount, startBrk, brk, startStack       kobj.Field
	fileInode, fileMode, userPath, dInode     kobj.Field
	fileMapping                               kobj.Field
	dSuper, mntRoot                           kobj.Field
	inoNumber, inoSuper, superDev             kobj.Field
	specialOps, specialName, hugeZeroPFN      virt.Addr // 0: not known
	opsName                                   kobj.Field
	anonNameShared                            bool // it lies in a union with what files need
	heapTouches                               bool // until 6.5 what only touches the heap is called so too
}

func (s *System) mapsLayout() (*mapsLayout, error) {
	return kobj.LayoutOf(s.Walker, "mappings", func(r *kobj.Resolver, o *mapsLayout) {
		r.Prefetch("special_mapping_vmops", "special_mapping_name", "huge_zero_pfn")
		const v, m = "vm_area_struct", "mm_struct"
		o.size = r.Size(v)
		o.start, o.end = r.Field(v, "vm_start"), r.Field(v, "vm_end")
		o.flags = r.Field(v, "vm_flags")
		o.pgoff, o.file, o.ops = r.Field(v, "vm_pgoff"), r.Field(v, "vm_file"), r.Field(v, "vm_ops")
		o.private = r.Field(v, "vm_private_data")
		// 5.17, with CONFIG_ANON_VMA_NAME; until 6.1 only what has no file has a name.
		o.anonName = r.Optional(v, "anon_name")
		o.anonNameShared = o.anonName.Present() && r.OptionalOffset(v, "shared") == o.anonName.Offset
		o.heapTouches = !r.Optional(v, "vm_lock_seq").Present()
		o.anonNameText = r.Optional("anon_vma_name", "name")
		o.ringName = r.Field("vm_special_mapping", "name")
		o.tree = r.Optional(m, "mm_mt") // 6.1
		if !o.tree.Present() {
			o.mmap, o.rbRoot = r.Field(m, "mmap"), r.Field(m, "mm_rb")
			o.next, o.rb = r.Field(v, "vm_next"), r.Field(v, "vm_rb")
		}
		o.mapCount = r.Field(m, "map_count")
		o.startBrk, o.brk, o.startStack = r.Field(m, "start_brk"), r.Field(m, "brk"), r.Field(m, "start_stack")
		o.fileInode, o.fileMode = r.Field("file", "f_inode"), r.Field("file", "f_mode")
		o.fileMapping = r.Field("file", "f_mapping")
		o.userPath, o.dInode = r.Optional("backing_file", "user_path"), r.Field("dentry", "d_inode") // 6.8
		o.dSuper, o.mntRoot = r.Field("dentry", "d_sb"), r.Field("vfsmount", "mnt_root")
		o.inoNumber, o.inoSuper = r.Field("inode", "i_ino"), r.Field("inode", "i_sb")
		o.superDev = r.Field("super_block", "s_dev")
		o.specialOps, _ = s.Address("special_mapping_vmops")
		o.specialName, _ = s.Address("special_mapping_name")
		o.opsName = r.Optional("vm_operations_struct", "name")
		o.hugeZeroPFN, _ = s.Address("huge_zero_pfn")
	})
}

// FieldIn is member f in b, a copy of the structure; 0 where the kernel lacks it or
// b is too short.
func FieldIn(b []byte, f kobj.Field) uint64 {
	if !f.Present() || f.Size == 0 || uint64(f.Offset)+uint64(f.Size) > uint64(len(b)) {
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
