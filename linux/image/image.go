// Package image is the ELF images in the memory of a Linux guest's processes: what their
// headers say, and the symbols that they export.
package image

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Image is an ELF header in the memory of a process.
type Image struct {
	Start, End virt.Addr      // End: of the file's mappings, or of the mapping that it is in
	Mapping    *linux.Mapping // that it is in; nil: page tables map it, and the kernel's tree does not
	// Header is what the header says; nil if Err is why it could not be read. Err can
	// also be why its build-id could not.
	Header *Header
	Err    error
}

// Memory is the memory of a process: a [virt.Space], or a [linux.FilledMemory].
type Memory interface {
	ReadAt(p []byte, a virt.Addr) (int, error)
}

const (
	maxImages = 1 << 14 // of one process
	// maxOfAll bounds the images that one Reader yields: hostile processes can share them at
	// no cost to the guest.
	maxOfAll = 1 << 17
)

// Reader finds images, and remembers which pages begin as ELF files do: processes share
// most of their pages. It is not safe for concurrent use.
type Reader struct {
	s         *linux.System
	processes *linux.ProcessReader
	pages     map[phys.Addr]pageBits // by the address of 64 pages
	magic     [len(elf.ELFMAG)]byte  // room for one
	left      int                    // images that may still be yielded
}

// NewReader begins a listing. What it remembers must not grow old: make one for each look
// at the guest.
func NewReader(s *linux.System) *Reader {
	return &Reader{s: s, processes: s.NewProcessReader(), pages: map[phys.Addr]pageBits{}, left: maxOfAll}
}

// Images yields the ELF headers in the memory of t, by address: at the beginning of
// every page that its page tables have in place, and of every file with code that it has
// mapped. What of a file is not in place is read from the page cache.
func (r *Reader) Images(ctx context.Context, t linux.Task) iter.Seq2[*Image, error] {
	return func(yield func(*Image, error) bool) {
		mm, err := t.MM()
		if err != nil || mm == 0 {
			if err != nil {
				yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err))
			}
			return
		}
		var maps []*linux.Mapping
		for m, err := range r.processes.MappingsOf(ctx, mm) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			maps = append(maps, m)
		}
		files := linux.ImagesAmong(maps)
		space, err := r.s.UserSpace(mm)
		if err != nil {
			yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err))
			return
		}
		starts, err := r.starts(ctx, space)
		if err != nil && !yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err)) {
			return
		}
		for _, f := range files {
			if _, found := slices.BinarySearch(starts, f.Start); !found && !present(space, f.Start) {
				starts = append(starts, f.Start)
			}
		}
		slices.Sort(starts)
		mem := r.s.FilledMemory(space, maps)
		for _, at := range starts {
			if r.left--; r.left < 0 {
				yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), kobj.ErrBudget))
				return
			}
			i := read(mem, at)
			if !i.place(maps, files) && (i.Header == nil || i.Header.Type == elf.ET_NONE) {
				continue // four bytes that a program compares others with
			}
			if !yield(i, i.Err) {
				return
			}
		}
	}
}

// present reports whether the page at a is in place.
func present(space *virt.Space, a virt.Addr) bool {
	_, err := space.Translate(a)
	return err == nil
}

// starts are the pages in place that begin as ELF files do, ascending.
func (r *Reader) starts(ctx context.Context, space *virt.Space) (starts []virt.Addr, err error) {
	pages := 0
	for m := range space.Mappings(0, space.UserEnd()) {
		for off := uint64(0); off < m.Size; off += phys.PageSize {
			if pages++; pages%(1<<14) == 0 && ctx.Err() != nil {
				return starts, ctx.Err()
			}
			begins, err := r.beginsELF(m.PA + phys.Addr(off))
			if errors.Is(err, phys.ErrGone) {
				return starts, err
			}
			if err != nil {
				break // a device's memory
			}
			if !begins {
				continue
			}
			if len(starts) == maxImages {
				return starts, fmt.Errorf("%w: more than %d of them", kobj.ErrBroken, maxImages)
			}
			starts = append(starts, m.VA+virt.Addr(off))
		}
	}
	return starts, nil
}

// pageBits says of 64 pages, by bits, which were looked at and which begin as ELF files do.
type pageBits struct{ looked, begins uint64 }

// beginsELF reports whether the page at pa begins as ELF files do.
func (r *Reader) beginsELF(pa phys.Addr) (bool, error) {
	key, bit := pa/(64*phys.PageSize), uint64(1)<<(pa/phys.PageSize%64)
	known := r.pages[key]
	if known.looked&bit != 0 {
		return known.begins&bit != 0, nil
	}
	if _, err := r.s.Memory.ReadAt(r.magic[:], pa); err != nil {
		return false, err
	}
	known.looked |= bit
	if string(r.magic[:]) == elf.ELFMAG {
		known.begins |= bit
	}
	r.pages[key] = known
	return known.begins&bit != 0, nil
}

// imageAt reads an image by offsets from where it begins.
type imageAt struct {
	mem  Memory
	base virt.Addr
}

func (e imageAt) ReadAt(p []byte, off int64) (int, error) {
	return e.mem.ReadAt(p, e.base+virt.Addr(off))
}

// read reads the header at a.
func read(mem Memory, a virt.Addr) *Image {
	i := &Image{Start: a}
	if i.Header, i.Err = readHeader(mem, a); i.Err == nil {
		i.Err = i.Header.readBuildID(imageAt{mem, a})
	}
	if i.Err != nil {
		i.Err = fmt.Errorf("ELF image at %#x: %w", uint64(a), i.Err)
	}
	return i
}

func readHeader(mem Memory, a virt.Addr) (*Header, error) {
	var b [64]byte
	if _, err := mem.ReadAt(b[:], a); err != nil {
		return nil, err
	}
	return parse(b[:])
}

// place finds what i is in, and reports whether it is the beginning of a file with code.
func (i *Image) place(maps []*linux.Mapping, files []*linux.MappedImage) bool {
	if m := linux.MappingAt(maps, i.Start); m != nil {
		i.Mapping, i.End = m, m.End
	} else {
		i.End = i.Start + phys.PageSize
	}
	n, ok := slices.BinarySearchFunc(files, i.Start, func(f *linux.MappedImage, a virt.Addr) int { return cmp.Compare(f.Start, a) })
	if ok {
		i.End = files[n].End
	}
	return ok
}
