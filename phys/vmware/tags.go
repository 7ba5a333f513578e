package vmware

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
	"github.com/outsight-vmi/outsight/phys/note"
)

// A tag is two bytes, a name, up to three indices, and a value or a block:
//
//	bits 15–8 of the two bytes: length of the name
//	     7–6                    number of indices, of four bytes each
//	     5–0                    size of the value; or that it is a block, packed or not
//
// A block is its size in the file, its size in memory, and how much padding follows.
const (
	tagHead    = 2
	tagPacked  = 62
	tagBlock   = 63
	maxValue   = 61
	maxName    = 255
	maxIndices = 3
	indexSize  = 4
	blockHead  = 8 + 8 + 2
	longestTag = tagHead + maxName + maxIndices*indexSize + maxValue
	maxSmall   = 128 // bytes of a block that is looked at
	gpregsSize = 16 * 8
	crSize     = 9 * 8
	idtrSize   = 2 + 8
	noIndex    = ^uint32(0)
)

// tag is one tag.
type tag struct {
	name   string
	index  [maxIndices]uint32 // noIndex where there is none
	value  []byte             // up to maxValue bytes, or as much of a block
	block  bool
	packed bool
	offset uint64 // of a block's content in the file
	size   uint64 // in bytes
}

// number is the value as a number.
func (t *tag) number() uint64 {
	var b [8]byte
	copy(b[:], t.value)
	return binary.LittleEndian.Uint64(b[:])
}

// reader collects what tags say.
type reader struct {
	src     file.Source
	memory  *tag // the block
	regions struct {
		count               uint64
		page, number, pages [maxRegions]uint64 // guest-physical page, page in the file, length
		known               [maxRegions]uint8  // a bit for each of the three
	}
	cpus  []note.CPU
	known []bool // the processor's CR3 is known
}

// tags reads the tags from offset at on.
func (r *reader) tags(at uint64, found func(*tag) error) error {
	for range maxTags {
		t, next, err := r.tag(at)
		if err != nil {
			return fmt.Errorf("tag at offset %#x: %w", at, err)
		}
		if t == nil {
			return nil
		}
		if err := found(t); err != nil {
			return fmt.Errorf("%s at offset %#x: %w", t.name, at, err)
		}
		if at = next; at == r.src.Size() && t.block && t.name == memoryBlock {
			return nil // cut off in memory, of which the rest can be read
		}
	}
	return fmt.Errorf("more than %d tags", maxTags)
}

// tag reads the tag at offset at; nil for the one that ends a group.
func (r *reader) tag(at uint64) (_ *tag, next uint64, err error) {
	size := r.src.Size()
	if at >= size {
		return nil, 0, fmt.Errorf("the file was cut short: %w", phys.ErrGone)
	}
	b := make([]byte, min(longestTag, size-at))
	if err := file.ReadFull(r.src, b, at); err != nil {
		return nil, 0, err
	}
	cut := fmt.Errorf("the file was cut short: %w", phys.ErrGone)
	if len(b) < tagHead {
		return nil, 0, cut
	}
	head := binary.LittleEndian.Uint16(b)
	if head == 0 {
		return nil, 0, nil
	}
	name, indices, kind := int(head>>8), int(head>>6&3), int(head&63)
	body := tagHead + name + indices*indexSize
	need := body + kind
	if kind >= tagPacked {
		need = body + blockHead
	}
	if len(b) < need {
		return nil, 0, cut
	}
	t := &tag{name: string(b[tagHead : tagHead+name]), index: [maxIndices]uint32{noIndex, noIndex, noIndex}}
	for i := range indices {
		t.index[i] = binary.LittleEndian.Uint32(b[tagHead+name+i*indexSize:])
	}
	if kind < tagPacked {
		t.value = b[body:need]
		return t, at + uint64(need), nil
	}
	t.block, t.packed = true, kind == tagPacked
	t.size = binary.LittleEndian.Uint64(b[body:])
	t.offset = at + uint64(need) + uint64(binary.LittleEndian.Uint16(b[body+16:]))
	if t.offset > size || t.size > size-t.offset {
		if t.name != memoryBlock || t.offset > size {
			return nil, 0, cut
		}
		t.size = size - t.offset // what there is of memory may be read
	}
	if t.size <= maxSmall {
		t.value = make([]byte, t.size)
		if err := file.ReadFull(r.src, t.value, t.offset); err != nil {
			return nil, 0, err
		}
	}
	return t, t.offset + t.size, nil
}

const memoryBlock = "Memory"

// memoryTag learns from a tag of group "memory".
func (r *reader) memoryTag(t *tag) error {
	n := t.index[0]
	set := func(to *[maxRegions]uint64, bit uint8) error {
		if n >= maxRegions {
			return fmt.Errorf("region %d", n)
		}
		to[n] = t.number()
		r.regions.known[n] |= bit
		return nil
	}
	switch t.name {
	case memoryBlock:
		if t.block && r.memory == nil && t.size > 0 {
			r.memory = t
		}
	case "regionsCount":
		if r.regions.count = t.number(); r.regions.count > maxRegions {
			return fmt.Errorf("%d regions of memory", r.regions.count)
		}
	case "regionPPN":
		return set(&r.regions.page, 1)
	case "regionPageNum":
		return set(&r.regions.number, 2)
	case "regionSize":
		return set(&r.regions.pages, 4)
	}
	return nil
}

// maxPage is more pages than a processor can address.
const maxPage = 1 << 40

// state is what was learnt.
func (r *reader) state() (*State, error) {
	s := &State{}
	for i := range r.regions.count {
		if r.regions.known[i] != 7 {
			return nil, fmt.Errorf("the VMware state has %d regions of memory and does not say where region %d is", r.regions.count, i)
		}
		page, number, pages := r.regions.page[i], r.regions.number[i], r.regions.pages[i]
		if page >= maxPage || number >= maxPage || pages >= maxPage {
			return nil, fmt.Errorf("region %d of the VMware state's memory has %d pages from page %#x on", i, pages, page)
		}
		if pages > 0 {
			s.Regions = append(s.Regions, Region{
				Range:  phys.Range{Start: phys.Addr(page * pageSize), End: phys.Addr((page + pages) * pageSize)},
				Offset: number * pageSize,
			})
		}
	}
	if r.memory != nil {
		if r.memory.packed {
			return nil, ErrCompressed
		}
		s.Embedded, s.offset, s.size = true, r.memory.offset, r.memory.size
	}
	for _, known := range r.known {
		if !known { // half a truth about processors is worse than none
			return s, nil
		}
	}
	s.CPUs = r.cpus
	return s, nil
}

var errCPU = errors.New("too many processors")
