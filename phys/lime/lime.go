// Package lime reads memory dumps as LiME writes them (format "lime", version 1):
// each range of memory behind a header with its addresses. AVML writes the same
// where it does not compress.
package lime

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// HeaderSize is the length of what stands before each range, in bytes.
const HeaderSize = 32

const (
	magic     = 0x4c694d45 // "EMiL" in the file
	version   = 1
	maxRanges = 1 << 20
)

// New reads the headers of src, which the Memory takes over. A dump that was cut
// off is read as far as it goes, if a range has begun.
func New(src file.Source) (*file.Memory, error) {
	var extents []file.Extent
	var b [HeaderSize]byte
	size := src.Size()
	for at := uint64(0); at < size && size-at >= HeaderSize; {
		if err := file.ReadFull(src, b[:], at); err != nil {
			return nil, fmt.Errorf("LiME header: %w", err)
		}
		if b == [HeaderSize]byte{} && len(extents) > 0 {
			break // padding
		}
		r, err := parse(b[:])
		if err != nil {
			return nil, fmt.Errorf("LiME header at offset %#x: %w", at, err)
		}
		if len(extents) == maxRanges {
			return nil, fmt.Errorf("a LiME dump of more than %d ranges", maxRanges)
		}
		at += HeaderSize
		extents = append(extents, file.Extent{Range: r, Offset: at})
		if r.Size() > size-at {
			break
		}
		at += r.Size()
	}
	m := file.NewMemory(src, extents)
	if len(m.Ranges()) == 0 {
		return nil, errors.New("the LiME dump has no memory in it: it was cut off")
	}
	return m, nil
}

func parse(b []byte) (phys.Range, error) {
	if m, v := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]); m != magic || v != version {
		return phys.Range{}, fmt.Errorf("magic %#x, version %d: not LiME's version 1", m, v)
	}
	start, last := binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	if last < start || last == ^uint64(0) {
		return phys.Range{}, fmt.Errorf("a range from %#x to %#x", start, last)
	}
	return phys.Range{Start: phys.Addr(start), End: phys.Addr(last) + 1}, nil
}

// AppendHeader appends the header of range r, which must not be empty.
func AppendHeader(b []byte, r phys.Range) []byte {
	b = binary.LittleEndian.AppendUint32(b, magic)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Start))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.End)-1)
	return append(b, make([]byte, 8)...)
}
