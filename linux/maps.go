package linux

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Flags of a mapping (include/linux/mm.h), the same from 5.10 to 7.2.
const (
	VMRead      = 0x1
	VMWrite     = 0x2
	VMExec      = 0x4
	VMShared    = 0x8
	VMMayShare  = 0x80
	VMGrowsDown = 0x100
	VMHugeTLB   = 0x40_0000
)

// Mapping is one range of a process' address space (struct vm_area_struct).
type Mapping struct {
	Start, End virt.Addr // End is the first address behind it
	Flags      uint64    // VMRead and so on
	Offset     uint64    // of Start in the file, in bytes; 0 without a file
	// Path is that of the file, seen from the root of its mount namespace, or what
	// /proc/PID/maps has in its place: [heap], [stack], [vdso], [anon:NAME]; or
	// empty.
	Path    string
	Deleted bool   // the file has no name any more, or never had one
	Device  Device // of the file's super block; zero without a file
	Inode   uint64
	File    virt.Addr // struct file; 0: the memory is anonymous
	Addr    virt.Addr // of the vm_area_struct
	MM      virt.Addr // of the mm_struct
	Ops     virt.Addr // struct vm_operations_struct; 0: the kernel serves it itself
	// Err is why the path, device or inode could not be read.
	Err error

	dentry virt.Addr // the name that the user opened
}

// MappingAt is the mapping that a is in, of those of one process by address; nil if it is
// in none.
func MappingAt(maps []*Mapping, a virt.Addr) *Mapping {
	n, _ := slices.BinarySearchFunc(maps, a, func(m *Mapping, a virt.Addr) int { return cmp.Compare(m.End, a+1) })
	if n == len(maps) || maps[n].Start > a {
		return nil
	}
	return maps[n]
}

// Device is a dev_t as the kernel keeps it.
type Device uint32

// Major and Minor are its two numbers.
func (d Device) Major() uint32 { return uint32(d) >> 20 }

// Minor is the lower number.
func (d Device) Minor() uint32 { return uint32(d) & 0xf_ffff }

// String is "major:minor" in decimal, as in /proc/PID/mountinfo.
func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major(), d.Minor()) }

// Perms are a mapping's permissions as in /proc/PID/maps: "r-xp".
func (m *Mapping) Perms() string {
	b := [4]byte{'-', '-', '-', 'p'}
	for i, bit := range [...]uint64{VMRead, VMWrite, VMExec} {
		if m.Flags&bit != 0 {
			b[i] = "rwx"[i]
		}
	}
	if m.Flags&VMMayShare != 0 {
		b[3] = 's'
	}
	return string(b[:])
}

// FlagNames are the flags in the two-letter form of VmFlags in /proc/PID/smaps,
// those that mean the same in all kernels from 5.10 on.
func (m *Mapping) FlagNames() []string {
	var names []string
	for bit, name := range mappingFlags {
		if name != "" && m.Flags>>bit&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

var mappingFlags = [32]string{
	0: "rd", 1: "wr", 2: "ex", 3: "sh", 4: "mr", 5: "mw", 6: "me", 7: "ms", 8: "gd", 9: "um",
	10: "pf", 12: "uw", 13: "lo", 14: "io", 15: "sr", 16: "rr", 17: "dc", 18: "de", 20: "ac",
	21: "nr", 22: "ht", 23: "sf", 25: "wf", 26: "dd", 27: "sd", 28: "mm", 29: "hg", 30: "nh", 31: "mg",
}

// maxMappings bounds the mappings of one process. vm.max_map_count is 65530 by
// default; those who raise it stop at 1048576.
const maxMappings = 1 << 20

// MM is the address of the task's mm_struct; 0 for kernel threads and zombies.
func (t Task) MM() (_ virt.Addr, err error) {
	r := t.s.Reader()
	if r.U32(t.Addr+virt.Addr(t.s.o.flags))&flagKthread != 0 {
		return 0, r.Err
	}
	mm := r.Ptr(t.Addr + virt.Addr(t.s.o.mm))
	return mm, r.Err
}

// Mappings yields the ranges of t's address space in order of address, as
// /proc/PID/maps lists them; none for a task without one. The legacy vsyscall page,
// which belongs to no process, is not among them. An error is one mapping that could
// not be read, or that the kernel's own count of them differs.
func (l *ProcessReader) Mappings(ctx context.Context, t Task) iter.Seq2[*Mapping, error] {
	return func(yield func(*Mapping, error) bool) {
		mm, err := t.MM()
		if err != nil {
			yield(nil, fmt.Errorf("mappings of task %#x: %w", uint64(t.Addr), err))
			return
		}
		if mm == 0 {
			return
		}
		for m, err := range l.MappingsOf(ctx, mm) {
			if !yield(m, err) {
				return
			}
		}
	}
}

// MappingsOf is [ProcessReader.Mappings] for the address space whose mm_struct is at mm.
func (l *ProcessReader) MappingsOf(ctx context.Context, mm virt.Addr) iter.Seq2[*Mapping, error] {
	return func(yield func(*Mapping, error) bool) {
		maps, errs := l.vmas(ctx, mm)
		for _, err := range errs {
			if !yield(nil, fmt.Errorf("mappings of mm %#x: %w", uint64(mm), err)) {
				return
			}
		}
		o, err := l.s.mapsLayout()
		if err != nil {
			return // it is among errs
		}
		area, err := l.heapAndStack(mm, o)
		for _, v := range maps {
			m := v.Mapping
			if err != nil {
				m.Err = err
			} else {
				l.describe(&m, &v, o, area)
			}
			if !yield(&m, nil) {
				return
			}
		}
	}
}

// MappedRanges are the mappings of the address space whose mm_struct is at mm, by address
// and without what their files say: Path, Deleted, Device and Inode. That takes a fraction
// of the time.
func (l *ProcessReader) MappedRanges(ctx context.Context, mm virt.Addr) ([]*Mapping, error) {
	vmas, errs := l.vmas(ctx, mm)
	if len(errs) > 0 {
		return nil, fmt.Errorf("mappings of mm %#x: %w", uint64(mm), errs[0])
	}
	maps := make([]*Mapping, len(vmas))
	for i := range vmas {
		m := vmas[i].Mapping
		maps[i] = &m
	}
	return maps, nil
}

// vma is a mapping as it was copied, before it got its name.
type vma struct {
	Mapping
	private, anonName virt.Addr
}

// vmas copies the mappings of an address space, again if the guest changed them
// meanwhile: their number must be the kernel's.
func (l *ProcessReader) vmas(ctx context.Context, mm virt.Addr) (best []vma, errs []error) {
	o, err := l.s.mapsLayout()
	if err != nil {
		return nil, []error{err}
	}
	const tries = 3
	defer l.use(l.s)
	for try := range tries {
		l.attempt(try)
		loads := l.now.loads()
		before, err := l.mapCount(mm, o)
		if err != nil {
			return nil, []error{err}
		}
		maps, bad := l.copyVMAs(ctx, mm, o, before, try == tries-1)
		after := before
		if l.now.kept == nil || l.now.stale(loads) {
			after, err = l.mapCountNow(mm, o)
		}
		if len(bad) == 0 && (err != nil || before != after || len(maps) != before) {
			bad = []error{fmt.Errorf("%w: the kernel counts %d of them, and %d were found", kobj.ErrBroken, after, len(maps))}
		}
		if len(bad) == 0 {
			return maps, nil
		}
		if try == 0 || len(maps) >= len(best) {
			best, errs = maps, bad
		}
		if ctx.Err() != nil {
			break
		}
	}
	return best, errs
}

func (l *ProcessReader) mapCount(mm virt.Addr, o *mapsLayout) (_ int, err error) {
	l.r.Err = nil
	n := l.r.Uint(mm, o.mapCount)
	return int(int32(n)), l.r.Err
}

// mapCountNow is the number in the guest by now, whatever a look keeps.
func (l *ProcessReader) mapCountNow(mm virt.Addr, o *mapsLayout) (int, error) {
	was := l.r.Space
	l.r.Space = l.now.space
	defer func() { l.r.Space = was }()
	return l.mapCount(mm, o)
}

// copyVMAs copies them in order of address, about as many as counted; tree takes the
// red-black tree of old kernels, where their list did not lead to the end.
func (l *ProcessReader) copyVMAs(ctx context.Context, mm virt.Addr, o *mapsLayout, counted int, tree bool) (maps []vma, errs []error) {
	const maxErrors = 8
	maps = make([]vma, 0, max(0, min(counted, 1024)))
	var end virt.Addr
	// add takes the one at a; it returns false when no more should come.
	add := func(a virt.Addr, err error) bool {
		var v vma
		if err == nil {
			v, err = l.vma(a, o)
		}
		if err == nil && v.Start < end {
			err = fmt.Errorf("vma at %#x: %w: it begins at %#x, before the last one ends", uint64(a), kobj.ErrBroken, uint64(v.Start))
		}
		if err != nil {
			errs = append(errs, err)
			return len(errs) < maxErrors
		}
		end, v.MM = v.End, mm
		maps = append(maps, v)
		return true
	}
	switch {
	case o.tree.Present():
		for e, err := range l.s.Maple(ctx, o.tree.At(mm), maxMappings) {
			if !add(e.Value, err) {
				return maps, errs
			}
		}
	case tree:
		for node, err := range l.s.RBTree(ctx, o.rbRoot.At(mm), maxMappings) {
			if !add(node-virt.Addr(o.rb.Offset), err) {
				return maps, errs
			}
		}
	default:
		// Each begins behind the one before, so the list cannot be a circle.
		link := o.mmap.At(mm)
		for n := range maxMappings {
			next, err := l.s.Word(link)
			if err != nil {
				return maps, append(errs, err)
			}
			if next == 0 || len(errs) > 0 || n%1024 == 1023 && ctx.Err() != nil {
				return maps, errs
			}
			if !add(virt.Addr(next), nil) {
				return maps, errs
			}
			link = o.next.At(virt.Addr(next))
		}
		errs = append(errs, fmt.Errorf("%w: more than %d", kobj.ErrBroken, maxMappings))
	}
	return maps, errs
}

// vma copies the vm_area_struct at a.
func (l *ProcessReader) vma(a virt.Addr, o *mapsLayout) (v vma, err error) {
	r := &l.r
	r.Err = nil
	if !l.s.Space.KernelHalf(a) {
		return v, fmt.Errorf("vma at %#x: %w: no kernel pointer", uint64(a), kobj.ErrBroken)
	}
	b := r.Bytes(a, int(min(o.size, 4096)))
	if r.Err != nil {
		return v, fmt.Errorf("vma at %#x: %w", uint64(a), r.Err)
	}
	v.Addr = a
	v.Start, v.End = virt.Addr(FieldIn(b, o.start)), virt.Addr(FieldIn(b, o.end))
	v.Flags, v.File = FieldIn(b, o.flags), virt.Addr(FieldIn(b, o.file))
	v.Ops, v.private = virt.Addr(FieldIn(b, o.ops)), virt.Addr(FieldIn(b, o.private))
	if o.anonName.Present() && (v.File == 0 || !o.anonNameShared) {
		v.anonName = virt.Addr(FieldIn(b, o.anonName))
	}
	if v.File != 0 {
		v.Offset = FieldIn(b, o.pgoff) << 12
	}
	if v.Start >= v.End || v.Start%phys.PageSize != 0 || v.End%phys.PageSize != 0 || l.s.Space.KernelHalf(v.End-1) || !l.s.Space.Canonical(v.End-1) {
		return v, fmt.Errorf("vma at %#x: %w: it covers [%#x, %#x)", uint64(a), kobj.ErrBroken, uint64(v.Start), uint64(v.End))
	}
	return v, nil
}
