package microvm

import (
	"cmp"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// smallest is the least size in bytes of memory that is taken for RAM when nothing says
// how much there is. Stacks and heaps of threads are smaller; Linux with its types is not.
const smallest = 16 << 20

// region is memory of the monitor that can be RAM: usually one mapping, or several that
// are pieces of one.
type region struct {
	start, end uint64
	kind       kind
	inode      uint64
	offset     uint64 // of start in the file
	tail       uint64 // bytes at its end that are of no file: a balloon's hole, or something else that lies above
}

type kind int

const (
	named     kind = iota // its name says that it is RAM
	anonymous             // private, of no file
	ofFile                // private, of a file: restored from a snapshot
)

func (r region) size() uint64 { return r.end - r.start }

// ramNames begin the paths of mappings that are RAM and nothing else.
var ramNames = []string{
	"/memfd:guest_mem", // Firecracker with vhost-user devices
	"/memfd:ch_ram",    // Cloud Hypervisor: shared=on, hugepages=on
	"/anon_hugepage",   // Firecracker with huge pages
}

// kindOf reports whether m can be RAM. files are those that the command line gives as RAM.
func kindOf(m proc.Map, files []string) (kind, bool) {
	switch {
	case !m.Writable || m.Executable:
		return 0, false
	case slices.ContainsFunc(ramNames, func(n string) bool { return strings.HasPrefix(m.Path, n) }):
		return named, true
	case m.Path == "" && !m.Shared:
		return anonymous, true
	case !strings.HasPrefix(m.Path, "/"):
		return 0, false // [heap], [stack], anon_inode:kvm-vcpu:0
	case slices.ContainsFunc(files, func(f string) bool { return m.Path == f || strings.HasPrefix(m.Path, f+"/") }):
		return named, true
	case m.Shared, m.Inode == 0, strings.HasPrefix(m.Path, "/memfd:"), strings.HasPrefix(m.Path, "/dev/"):
		return 0, false // pmem, devices
	}
	return ofFile, true
}

// regions are the parts of maps that can be RAM, upper ones first, since monitors' mappings
// are made downwards; parts of one file by their place in it.
func regions(maps []proc.Map, files []string) []region {
	var all []region
	for i, m := range maps {
		k, ok := kindOf(m, files)
		if !ok {
			continue
		}
		if k == anonymous && i+1 < len(maps) {
			m.End = min(m.End, max(m.Start, arena(m, maps[i+1])))
		}
		if m.End == m.Start {
			continue
		}
		r := region{start: m.Start, end: m.End, kind: k, inode: m.Inode, offset: m.Offset}
		if n := len(all); n == 0 || !all[n-1].join(r) {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b region) int {
		if a.inode != 0 && a.inode == b.inode {
			return cmp.Compare(a.offset, b.offset)
		}
		return cmp.Compare(b.start, a.start)
	})
	return all
}

// heapMax is the size of an arena of glibc's malloc, and what it begins at a multiple of
// (HEAP_MAX_SIZE). Its first part can be written to, and what follows cannot.
const heapMax = 64 << 20

// arena is where in m an arena begins, up to m.End where none does. Its memory has the
// flags that RAM has, and becomes one mapping with RAM that ends where it begins.
func arena(m, next proc.Map) uint64 {
	if next.Start != m.End || next.Writable || next.Executable || next.Path != "" || next.End%heapMax != 0 {
		return m.End
	}
	return min(m.End, next.End-min(next.End, heapMax))
}

// join makes next a part of r where it continues the same file, or is a hole that a
// balloon made in private memory of a file.
func (r *region) join(next region) bool {
	switch {
	case r.end != next.start || r.kind == anonymous:
		return false
	case next.inode == r.inode && r.inode != 0 && next.offset == r.offset+r.size():
		r.tail = 0
	case r.kind == ofFile && next.kind == anonymous:
		r.tail += next.size()
	default:
		return false
	}
	r.end = next.end
	return true
}

// find picks what is RAM among rs. size is how much there is in bytes, 0: unknown. flags
// are asked for only when nothing else says so, and then the answer is a guess.
func find(rs []region, size uint64, flags func() proc.Flags) (found []region, guess bool) {
	if f := only(rs, named); len(f) > 0 {
		return f, false
	}
	if size != 0 {
		files := only(rs, ofFile)
		for _, rs := range [][]region{only(rs, anonymous), withoutTails(files), files} {
			if f := fit(rs, size); f != nil {
				return f, false
			}
		}
	}
	if f := flagged(only(rs, anonymous), flags()); f != nil {
		return f, true
	}
	for _, k := range []kind{anonymous, ofFile} {
		if f := largest(only(rs, k)); f != nil {
			return f, true
		}
	}
	return nil, true
}

func only(rs []region, k kind) (out []region) {
	for _, r := range rs {
		if r.kind == k {
			out = append(out, r)
		}
	}
	return out
}

// withoutTails are rs without what lies above their files.
func withoutTails(rs []region) (out []region) {
	for _, r := range rs {
		r.end, r.tail = r.end-r.tail, 0
		out = append(out, r)
	}
	return out
}

// fit finds size bytes of RAM: one region, two that are it together (as a hole parts
// them), or a part of one that has become one with something else.
func fit(rs []region, size uint64) []region {
	var grown []region
	for _, r := range rs {
		if r.size() == size {
			return []region{r}
		}
		if r.size() > size && grown == nil {
			grown = []region{r.part(size)}
		}
	}
	for _, r := range rs {
		if !isLow(r.size()) {
			continue
		}
		for _, s := range rs {
			if s != r && r.size()+s.size() == size {
				return []region{r, s}
			}
		}
	}
	return grown
}

// largePage is what Firecracker has RAM begin at a multiple of, and Linux too since 6.7.
const largePage = 2 << 20

// part is where in r RAM of so many bytes is likeliest: its lower end if RAM can only begin
// there, else the upper one, since what is mapped later lies below.
func (r region) part(size uint64) region {
	upper := r.end - size
	if r.start%largePage == 0 && upper%largePage != 0 {
		r.end = r.start + size
		return r
	}
	r.offset += upper - r.start
	r.start = upper
	return r
}

// flagged finds RAM by the flags of its mappings: no swap is reserved for it, and Cloud
// Hypervisor keeps it out of core dumps. The largest is RAM, and so is another one beside
// a region that ends where a hole begins.
func flagged(rs []region, flags proc.Flags) []region {
	for _, flag := range []string{"dd", "nr"} {
		var found []region
		for _, r := range rs {
			if flags.Has(r.start, flag) {
				found = append(found, r)
			}
		}
		if f := largest(found); f != nil {
			return f
		}
	}
	return nil
}

// largest is the largest of rs, and with a region that ends where a hole begins the
// largest of the others: RAM continues after the hole.
func largest(rs []region) []region {
	most := func(but region) (best region) {
		for _, r := range rs {
			if r != but && r.size() > best.size() {
				best = r
			}
		}
		return best
	}
	first := most(region{})
	if first.size() < smallest {
		return nil
	}
	for _, r := range rs {
		if !isLow(r.size()) {
			continue
		}
		if other := most(r); other.size() >= smallest {
			return []region{r, other}
		}
		return []region{r}
	}
	return []region{first}
}

func blocks(rs []region) (bs []ram.Block) {
	for _, r := range rs {
		bs = append(bs, ram.Block{HVA: r.start, Size: r.size()})
	}
	return bs
}
