package linux

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// heapAndStack is what identifies the heap and the stack.
type heapAndStack struct{ startBrk, brk, stack virt.Addr }

func (l *ProcessReader) heapAndStack(mm virt.Addr, o *mapsLayout) (a heapAndStack, err error) {
	r := &l.r
	r.Err = nil
	a.startBrk, a.brk = virt.Addr(r.Uint(mm, o.startBrk)), virt.Addr(r.Uint(mm, o.brk))
	a.stack = virt.Addr(r.Uint(mm, o.startStack))
	return a, r.Err
}

// describe gives m its path, device and inode, as show_map_vma does.
func (l *ProcessReader) describe(m *Mapping, v *vma, o *mapsLayout, area heapAndStack) {
	if err := l.nameMapping(m, v, o, area); err != nil {
		m.Err = err
	}
}

func (l *ProcessReader) nameMapping(m *Mapping, v *vma, o *mapsLayout, area heapAndStack) (err error) {
	r := &l.r
	r.Err = nil
	name := ""
	if v.anonName != 0 && o.anonNameText.Present() {
		name = r.CString(o.anonNameText.At(v.anonName), 80) // ANON_VMA_NAME_MAX_LEN
	}
	switch {
	case m.File != 0:
		var inode virt.Addr
		m.dentry, inode = l.opened(m.File, o)
		m.Inode = r.Uint(inode, o.inoNumber)
		m.Device = Device(r.Uint(r.Pointer(inode, o.inoSuper), o.superDev))
		m.Path, m.Deleted = l.userPath(m.File, o)
		if name != "" {
			m.Path, m.Deleted = "[anon_shmem:"+name+"]", false // 6.2
		}
	case v.private != 0 && l.special(v.Ops, o):
		m.Path = r.CString(r.Pointer(v.private, o.ringName), 64)
	case m.Start < area.brk && m.End > area.startBrk, o.heapTouches && m.Start <= area.brk && m.End >= area.startBrk:
		m.Path = "[heap]"
	case m.Start <= area.stack && m.End >= area.stack:
		m.Path = "[stack]"
	case name != "":
		m.Path = "[anon:" + name + "]"
	}
	return r.Err
}

// special reports whether ops are those of a struct vm_special_mapping, such as the vDSO's:
// in a kernel without CONFIG_KALLSYMS_ALL by the function that names one.
func (l *ProcessReader) special(ops virt.Addr, o *mapsLayout) bool {
	if o.specialOps != 0 || ops == 0 || o.specialName == 0 || !o.opsName.Present() {
		return ops != 0 && ops == o.specialOps
	}
	return l.r.Pointer(ops, o.opsName) == o.specialName
}

// backing reports whether a file is one that overlayfs opened below itself, and that
// remembers what the user opened behind itself (6.8, FMODE_BACKING). That flag was moved
// from bit 25 to 24 in 6.14, and in stable 6.12 too; who has one of them and no such
// thing behind itself is an ordinary file.
func (l *ProcessReader) backing(file virt.Addr, o *mapsLayout) bool {
	const flags = 1<<24 | 1<<25
	r := &l.r
	if !o.userPath.Present() || r.Uint(file, o.fileMode)&flags == 0 || r.Err != nil {
		return false
	}
	p := o.userPath.At(file)
	mount, dentry := r.Ptr(p+virt.Addr(l.s.o.pathMnt)), r.Ptr(p+virt.Addr(l.s.o.pathDentry))
	super := r.Pointer(dentry, o.dSuper)
	is := super != 0 && super == r.Pointer(r.Pointer(mount, o.mntRoot), o.dSuper)
	if r.Err != nil { // what is behind it is not a path
		r.Err, is = nil, false
	}
	return is
}

// opened is the name and the inode that the user opened, as file_user_inode gives it.
// Overlayfs before 6.8 gave the file below itself its own name, but not its inode.
func (l *ProcessReader) opened(file virt.Addr, o *mapsLayout) (dentry, inode virt.Addr) {
	r := &l.r
	if l.backing(file, o) {
		dentry = r.Ptr(o.userPath.At(file) + virt.Addr(l.s.o.pathDentry))
		return dentry, r.Pointer(dentry, o.dInode)
	}
	return r.Ptr(file + virt.Addr(l.s.o.filePath) + virt.Addr(l.s.o.pathDentry)), r.Pointer(file, o.fileInode)
}

// userPath is the path by which a file was opened.
func (l *ProcessReader) userPath(file virt.Addr, o *mapsLayout) (path string, deleted bool) {
	if l.backing(file, o) {
		p := o.userPath.At(file)
		return l.path(l.r.Ptr(p+virt.Addr(l.s.o.pathMnt)), l.r.Ptr(p+virt.Addr(l.s.o.pathDentry)))
	}
	path, deleted, _ = l.fileName(file)
	return path, deleted
}

// Residency is how much of a mapping is in memory.
type Residency struct {
	Resident uint64 // in bytes, as Rss in /proc/PID/smaps: neither the zero page nor hugetlbfs counts
	Swapped  uint64 // in bytes: anonymous pages in swap
	Dirty    uint64 // of Resident: written to through this mapping, by the page tables
}

// Residency looks through the page tables what of m is in memory. It costs a read
// for each 2 MiB that have been used.
func (s *System) Residency(m *Mapping) (res Residency, err error) {
	const special = 1 << 9 // _PAGE_SPECIAL: a page that is nobody's
	if m.Flags&VMHugeTLB != 0 {
		return res, nil // smaps counts them apart
	}
	o, err := s.mapsLayout()
	if err != nil {
		return res, err
	}
	space, err := s.UserSpace(m.MM)
	if err != nil {
		return res, err
	}
	zero := ^uint64(0)
	if o.hugeZeroPFN != 0 {
		if zero, err = s.Space.U64(o.hugeZeroPFN); err != nil {
			return res, err
		}
	}
	for e := range space.Entries(m.Start, m.End-1) {
		if e.Size == 0 {
			if _, _, ok := e.Swap(); ok {
				res.Swapped += phys.PageSize
			}
			continue
		}
		if e.Entry&special != 0 || e.Size > phys.PageSize && uint64(e.PA)>>12 == zero {
			continue
		}
		first, last := max(e.VA, m.Start), min(e.VA+virt.Addr(e.Size), m.End)
		res.Resident += uint64(last - first)
		if e.Dirty() {
			res.Dirty += uint64(last - first)
		}
	}
	return res, nil
}
