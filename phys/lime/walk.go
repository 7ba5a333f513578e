package lime

import (
	"bytes"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// walker goes from header to header.
type walker struct {
	src     file.Source
	size    uint64 // of src
	extents []file.Extent
	notes   []string
	lost    uint64
	scans   uint64 // how many bytes may still be searched for headers
}

// scanFactor bounds the search for headers in a damaged file: so often the file is read.
const scanFactor = 4

// maxDoubtful is how many headers are kept of which nothing shows that they are one.
const maxDoubtful = 64

func (w *walker) walk() error {
	for at := uint64(0); w.size-at >= HeaderSize; {
		r, err := w.header(at)
		if err != nil {
			if len(w.extents) == 0 {
				return fmt.Errorf("LiME header at offset %#x: %w", at, err)
			}
			if w.isPadding(at) {
				return nil
			}
			last := w.extents[len(w.extents)-1]
			next, ok := w.find(last.Offset, last.Range.End)
			if !ok {
				w.lost += w.size - at
				w.note("no header is at offset %#x, where the next range should begin: the %d bytes that follow cannot be placed", at, w.size-at)
				return nil
			}
			at = w.resume(next)
			continue
		}
		if len(w.extents) == maxRanges {
			return fmt.Errorf("a LiME dump of more than %d ranges", maxRanges)
		}
		at += HeaderSize
		w.extents = append(w.extents, file.Extent{Range: r, Offset: at})
		if r.Size() > w.size-at {
			if at == w.size && r.Size() <= maxBlank {
				w.extents[len(w.extents)-1].Zeros = true
				return nil
			}
			// It was cut off here, or this range is short and others follow.
			next, ok := w.find(at, r.End)
			if !ok {
				return nil
			}
			at = w.resume(next)
			continue
		}
		at += r.Size()
	}
	return nil
}

func (w *walker) note(format string, args ...any) {
	const most = 16
	if len(w.notes) < most {
		w.notes = append(w.notes, "the LiME file is damaged: "+fmt.Sprintf(format, args...))
	}
}

// header reads the header at offset at.
func (w *walker) header(at uint64) (phys.Range, error) {
	var b [HeaderSize]byte
	if err := file.ReadFull(w.src, b[:], at); err != nil {
		return phys.Range{}, err
	}
	return parse(b[:])
}

// resume makes next, where a header was found, the end of the last range, and returns it.
// What the range lacks is most likely its end: LiME continues with the next range where
// writing failed.
func (w *walker) resume(next uint64) uint64 {
	last := &w.extents[len(w.extents)-1]
	size, have := last.Range.Size(), next-last.Offset
	switch {
	case have == 0 && size <= maxBlank:
		last.Zeros = true
	case have < size:
		w.note("range %v has %d of %d bytes", last.Range, have, size)
		w.lost += size - have
		last.Range.End = last.Range.Start + phys.Addr(have) // nothing is left of it, if need be
	case have > size:
		w.note("%d bytes that belong to no range follow range %v", have-size, last.Range)
	}
	return next
}

// isPadding reports whether zeros are all that follows, and few.
func (w *walker) isPadding(at uint64) bool {
	if w.size-at > maxPadding {
		return false
	}
	b := make([]byte, w.size-at)
	return file.ReadFull(w.src, b, at) == nil && len(bytes.TrimLeft(b, "\x00")) == 0
}

// find searches for the header of a range that begins at least or above, from offset from
// on. Memory may hold what looks like one: the first counts that leads to another header, or
// to the end of the file, or else lies in order before one that does.
func (w *walker) find(from uint64, least phys.Addr) (at uint64, ok bool) {
	const step = 1 << 20
	sparse, _ := w.src.(file.Sparse)
	pattern := AppendHeader(nil, phys.Range{End: 1})[:8]
	buf := make([]byte, step+HeaderSize)
	type candidate struct {
		at  uint64
		end phys.Addr
	}
	var doubtful []candidate
	for from < w.size && w.scans > 0 {
		if sparse != nil {
			start, _, more := sparse.NextData(from)
			if !more {
				break
			}
			from = max(from, start)
		}
		b := buf[:min(uint64(len(buf)), w.size-from)]
		if file.ReadFull(w.src, b, from) != nil {
			break
		}
		w.scans -= min(w.scans, uint64(len(b)))
		for off := 0; ; off++ {
			i := bytes.Index(b[off:], pattern)
			if i < 0 || off+i >= step {
				break
			}
			off += i
			r, err := w.header(from + uint64(off))
			if err != nil || r.Start < least {
				continue
			}
			c := candidate{from + uint64(off), r.End}
			if w.leadsOn(c.at+HeaderSize, r) {
				for _, d := range doubtful {
					if d.end <= r.Start {
						return d.at, true
					}
				}
				return c.at, true
			}
			if len(doubtful) < maxDoubtful {
				doubtful = append(doubtful, c)
			}
		}
		from += step
	}
	if len(doubtful) == 0 {
		return 0, false
	}
	return doubtful[0].at, true
}

// leadsOn reports whether the range r, whose bytes are at offset at, is followed by a
// header or by the end.
func (w *walker) leadsOn(at uint64, r phys.Range) bool {
	if r.Size() <= maxBlank {
		if next, err := w.header(at); err == nil && next.Start >= r.End {
			return true
		}
	}
	if r.Size() > w.size-at {
		return false
	}
	end := at + r.Size()
	next, err := w.header(end)
	return w.size-end < HeaderSize || err == nil && next.Start >= r.End || w.isPadding(end)
}
