package linux

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// ELFImage is an ELF header in the memory of a process.
type ELFImage struct {
	Start, End virt.Addr // End: of the file's mappings, or of the mapping that it is in
	Mapping    *Mapping  // that it is in; nil: page tables map it, and the kernel's tree does not
	// Header is what the header tells; nil if Err is why it could not be read. Err can
	// also be why its build-id could not.
	Header *ELFHeader
	Err    error
}

const maxELFImages = 1 << 14 // of one process

// ELFImages yields the ELF headers in the memory of t, by address: at the beginning of
// every page that its page tables have in place, and of every file with code that it has
// mapped. What of a file is not in place is read from the page cache.
func (l *ProcessReader) ELFImages(ctx context.Context, t Task) iter.Seq2[*ELFImage, error] {
	return func(yield func(*ELFImage, error) bool) {
		mm, err := t.MM()
		if err != nil || mm == 0 {
			if err != nil {
				yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err))
			}
			return
		}
		var maps []*Mapping
		var files []*MappedImage
		runs := imageRuns{}
		for m, err := range l.MappingsOf(ctx, mm) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			maps = append(maps, m)
			if i := runs.add(m); i != nil {
				files = append(files, i)
			}
		}
		if i := runs.end(); i != nil {
			files = append(files, i)
		}
		space, err := l.s.UserSpace(mm)
		if err != nil {
			yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err))
			return
		}
		starts, err := l.elfPages(ctx, space)
		if err != nil && !yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), err)) {
			return
		}
		for _, f := range files {
			if _, found := slices.BinarySearch(starts, f.Start); !found && !l.s.present(space, f.Start) {
				starts = append(starts, f.Start)
			}
		}
		slices.Sort(starts)
		mem := &filledMemory{s: l.s, space: space, maps: maps}
		for _, at := range starts {
			const cost = 512 // in memory, about
			if !l.spend(cost) {
				yield(nil, fmt.Errorf("images of task %#x: %w", uint64(t.Addr), kobj.ErrBudget))
				return
			}
			i := elfImage(mem, at)
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
func (s *System) present(space *virt.Space, a virt.Addr) bool {
	return func() error {
		_, err := space.Translate(a)
		return err
	}() == nil
}

// elfPages are the pages in place that begin as ELF files do, ascending.
func (l *ProcessReader) elfPages(ctx context.Context, space *virt.Space) (starts []virt.Addr, err error) {
	err = func() error {
		pages := 0
		for m := range space.Mappings(0, userTop(space)) {
			for off := uint64(0); off < m.Size; off += phys.PageSize {
				if pages++; pages%(1<<14) == 0 && ctx.Err() != nil {
					return ctx.Err()
				}
				begins, err := l.beginsELF(m.PA + phys.Addr(off))
				if errors.Is(err, phys.ErrGone) {
					return err
				}
				if err != nil {
					break // a device's memory
				}
				if !begins {
					continue
				}
				if len(starts) == maxELFImages {
					return fmt.Errorf("%w: more than %d of them", kobj.ErrBroken, maxELFImages)
				}
				starts = append(starts, m.VA+virt.Addr(off))
			}
		}
		return nil
	}()
	return starts, err
}

// elfPage tells of 64 pages, by bits, which were looked at and which begin as ELF files do.
type elfPage struct{ looked, begins uint64 }

// beginsELF reports whether the page at pa begins as ELF files do. Processes share most
// of their pages, so a listing looks at each once.
func (l *ProcessReader) beginsELF(pa phys.Addr) (bool, error) {
	key, bit := pa/(64*phys.PageSize), uint64(1)<<(pa/phys.PageSize%64)
	known := l.elfBits[key]
	if known.looked&bit != 0 {
		return known.begins&bit != 0, nil
	}
	b := l.r.Scratch(4)
	if _, err := l.s.Memory.ReadAt(b, pa); err != nil {
		return false, err
	}
	known.looked |= bit
	if string(b) == elf.ELFMAG {
		known.begins |= bit
	}
	l.elfBits[key] = known
	return known.begins&bit != 0, nil
}

// elfAt reads an image by offsets from where it begins.
type elfAt struct {
	mem  userMemory
	base virt.Addr
}

func (e elfAt) ReadAt(p []byte, off int64) (int, error) {
	return e.mem.ReadAt(p, e.base+virt.Addr(off))
}

// elfImage reads the header at a.
func elfImage(mem userMemory, a virt.Addr) *ELFImage {
	i := &ELFImage{Start: a}
	var b [64]byte
	i.Err = func() (err error) {
		if _, err := mem.ReadAt(b[:], a); err != nil {
			return err
		}
		if i.Header, err = parseELF(b[:]); err != nil {
			return err
		}
		return i.Header.readBuildID(elfAt{mem, a})
	}()
	if i.Err != nil {
		i.Err = fmt.Errorf("ELF image at %#x: %w", uint64(a), i.Err)
	}
	return i
}

// place finds what i is in, and reports whether it is the beginning of a file with code.
func (i *ELFImage) place(maps []*Mapping, files []*MappedImage) bool {
	if m := mappingAt(maps, i.Start); m != nil {
		i.Mapping, i.End = m, m.End
	} else {
		i.End = i.Start + phys.PageSize
	}
	n, ok := slices.BinarySearchFunc(files, i.Start, func(f *MappedImage, a virt.Addr) int { return cmp.Compare(f.Start, a) })
	if ok {
		i.End = files[n].End
	}
	return ok
}
