package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// LiME with format=raw writes the ranges of System RAM one after the other, without what
// is between them and without their addresses. The first does not end on a page
// boundary on most machines (at 0x9fc00), so that nothing after it is aligned. The kernel
// in that memory knows its ranges: iomem_resource, which LiME iterates over.

// movedError says that a kernel's image is in memory, but not on the boundary where
// kernels are loaded.
type movedError struct{ text phys.Addr }

func (e *movedError) Error() string {
	return fmt.Sprintf("a kernel's image begins at %#x, where none can run", uint64(e.text))
}

// maxMoved is how many moved images are followed.
const maxMoved = 8

// concatenated looks for a kernel in memory whose ranges follow each other without what is
// between them, after the images that were found off their boundary.
func (f *finder) concatenated() *Kernel {
	p, ok := phys.As[phys.Placeable](f.mem)
	if !ok || f.opts.Proven || len(f.moved) == 0 {
		return nil
	}
	layouts := p.Layouts()
	tried := map[phys.Addr]bool{}
	for _, text := range f.moved[:min(len(f.moved), maxMoved)] {
		seg, ok := layouts[0].Find(text, 1)
		if !ok {
			continue
		}
		start := -phys.Addr(seg.Offset+uint64(text-seg.Start)) & (align - 1)
		if tried[start] || f.ctx.Err() != nil {
			continue
		}
		tried[start] = true
		g := finder{ctx: f.ctx, mem: p.Place(shifted(start, p.Size())), opts: f.opts}
		if k := g.quick(); k != nil {
			return k
		}
		if g.failed != nil {
			f.failed = fmt.Errorf("the ranges of memory seem to follow each other without what is between them (LiME with format=raw), and cannot be put in place: %w; use LiME's format=lime", g.failed)
		}
	}
	return nil
}

// shifted is the map of a backing whose first byte would have the address start. Below 1 MiB
// other ranges are than the kernel's.
func shifted(start phys.Addr, size uint64) phys.Layout {
	const firmware = 1 << 20
	l := phys.Layout{Name: "one range, from 1 MiB on"}
	skip := uint64(max(start, firmware) - start)
	if skip < size {
		l.Segments = []phys.Segment{{Start: start + phys.Addr(skip), Size: size - skip, Offset: skip}}
	}
	return l
}

// moved reports whether window w, which begins at start, has the banner of the image
// whose symbols these are, off the boundary where kernels are loaded. A banner is in the kernel's log
// too, and may be anywhere: the type information must be where the symbols say.
func (im *image) moved(start phys.Addr, w []byte) (text phys.Addr, ok bool) {
	s, ok := im.profile.Symbol("linux_banner")
	if !ok {
		return 0, false
	}
	from := 0
	for range maxTries {
		at := bytes.Index(w[from:], bannerPrefix)
		if at < 0 {
			return 0, false
		}
		at += from
		text := start + phys.Addr(at) - phys.Addr(s.Rel)
		if im.text = text; text%align != 0 && im.bannerHolds() && im.findTypes() == nil {
			return text, true
		}
		from = at + 1
	}
	return 0, false
}

// Of resources in the kernel's tree (include/linux/ioport.h).
const (
	resourceSystemRAM = 0x01000000 // IORESOURCE_SYSRAM
	resourceBusy      = 0x80000000
	maxResources      = 4096
)

// concatLayout is the map of a backing that holds the kernel's ranges of System RAM one
// after the other, in which the kernel's text, at address text, is at offset off.
func (im *image) concatLayout(p phys.Placeable, levels int, text phys.Addr, off uint64, low, top phys.Addr) (l phys.Layout, ok bool) {
	size := p.Size()
	if uint64(text) < off || uint64(top) < size {
		return l, false
	}
	t := resources{im: im, raw: p.Place(phys.Identity(size)), size: size}
	// Some shifts are known: that of the range with the kernel in it, that of the last, which
	// ends where RAM does, and that of the last below 4 GiB, after which the next begins there.
	t.shifts = []uint64{uint64(text) - off, uint64(top) - size}
	if top > fourGiB && low <= fourGiB {
		t.shifts = append(t.shifts, uint64(low)-(fourGiB-t.shifts[1]))
	}
	if !t.open(p, levels, text) {
		return l, false
	}
	l.Name = "the kernel's ranges of System RAM, one after the other"
	var at uint64
	for _, r := range t.ram() {
		l.Segments = append(l.Segments, phys.Segment{Start: r.Start, Size: r.Size(), Offset: at})
		at += r.Size()
	}
	// A truncated one has less.
	return l, at >= size && len(l.Segments) > 0
}

// resources reads the kernel's tree of resources before it is known where all of memory
// belongs.
type resources struct {
	im     *image
	raw    phys.Memory // byte N of the backing at address N
	size   uint64
	shifts []uint64  // by which addresses are larger than offsets
	k      *Kernel   // of which only what is mapped as the kernel's image can be read
	direct virt.Addr // base of the direct map
	at     [6]int    // offsets of the members
	length int       // of what is read of one
}

// resource is a struct resource.
type resource struct {
	start, end             uint64
	flags                  uint64
	parent, sibling, child virt.Addr
}

func (t *resources) open(p phys.Placeable, levels int, text phys.Addr) bool {
	for i, member := range [...]string{"start", "end", "flags", "parent", "sibling", "child"} {
		f, err := t.im.profile.Field("resource", member)
		if err != nil || f.Offset > 1<<10 {
			return false
		}
		t.at[i] = int(f.Offset)
		t.length = max(t.length, int(f.Offset)+8)
	}
	rootSymbol, ok := t.im.profile.Symbol("init_top_pgt")
	if !ok {
		return false
	}
	mem := p.Place(shifted(phys.Addr(t.shifts[0]), t.size))
	t.k = &Kernel{Profile: t.im.profile, Memory: mem, TextPA: text, Space: virt.New(mem, text+phys.Addr(rootSymbol.Rel), levels)}
	if !t.k.findText() {
		return false
	}
	t.direct = directBase4
	if levels == virt.Levels5 {
		t.direct = directBase5
	}
	if _, randomized := t.k.Symbol("page_offset_base"); randomized {
		base, err := t.k.Pointer("page_offset_base")
		if err != nil {
			return false
		}
		t.direct = base
	}
	return true
}

// read reads the resource at va, whose parent is known: that is what proves that the
// bytes are that resource.
func (t *resources) read(va, parent virt.Addr) (r resource, ok bool) {
	b := make([]byte, t.length)
	parse := func() bool {
		u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[t.at[i]:]) }
		r = resource{u(0), u(1), u(2), virt.Addr(u(3)), virt.Addr(u(4)), virt.Addr(u(5))}
		return r.parent == parent && r.end >= r.start
	}
	if va >= t.k.Text && uint64(va-t.k.Text) < imageMax {
		_, err := t.k.Memory.ReadAt(b, t.k.TextPA+phys.Addr(va-t.k.Text))
		return r, err == nil && parse()
	}
	for _, shift := range t.shifts {
		off := uint64(va-t.direct) - shift
		if va < t.direct || off > t.size {
			continue
		}
		if _, err := t.raw.ReadAt(b, phys.Addr(off)); err == nil && parse() {
			return r, true
		}
	}
	return r, false
}

// ram are the ranges of System RAM, in the order of the tree, as LiME goes through it; nil
// where the tree cannot be followed.
func (t *resources) ram() (ranges []phys.Range) {
	root, ok := t.k.Address("iomem_resource")
	if !ok {
		return nil
	}
	left := maxResources
	var walk func(va, parent virt.Addr, depth int) bool
	walk = func(va, parent virt.Addr, depth int) bool {
		for va != 0 {
			r, ok := t.read(va, parent)
			if left--; !ok || left < 0 || depth > 16 {
				return false
			}
			const ram = resourceSystemRAM | resourceBusy
			if r.flags&ram == ram {
				ranges = append(ranges, phys.Range{Start: phys.Addr(r.start), End: phys.Addr(r.end) + 1})
			} else if !walk(r.child, va, depth+1) {
				return false
			}
			va = r.sibling
		}
		return true
	}
	top, ok := t.read(root, 0)
	if !ok || !walk(top.child, root, 0) {
		return nil
	}
	return ranges
}
