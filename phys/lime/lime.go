// Package lime reads memory dumps as LiME writes them (format "lime", version 1):
// each range of memory behind a header with its addresses. AVML writes the same
// where it does not compress.
package lime

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/file"
)

// HeaderSize is the length of what stands before each range, in bytes.
const HeaderSize = 32

const (
	magic     = 0x4c694d45 // "EMiL" in the file
	version   = 1
	maxRanges = 1 << 20
	// maxPadding is how many zeros after the last range are not a range that was lost: what
	// fills up a block of a device or of dd.
	maxPadding = 1 << 20
	// maxBlank is the longest range of which the header can be alone.
	maxBlank = file.AVMLBlock
)

// Memory is a machine's memory in a LiME file.
type Memory struct {
	*file.Memory
	notes []string
}

// Notes say what of the file is damaged.
func (m *Memory) Notes() []string { return m.notes }

// New reads the headers of src, which the Memory takes over. A dump that was cut
// off is read as far as it goes, if a range has begun. A range of which the file has less
// than its header says is read up to the next header.
func New(src file.Source) (*Memory, error) {
	w := walker{src: src, size: src.Size()}
	w.scans = scanFactor * w.size
	if err := w.walk(); err != nil {
		return nil, err
	}
	var ranges []phys.Range
	for _, e := range w.extents {
		ranges = append(ranges, e.Range)
	}
	if inBlocks(ranges) && slices.IsSortedFunc(ranges, func(a, b phys.Range) int { return cmp.Compare(a.Start, b.Start) }) {
		for _, r := range file.Omitted(ranges) {
			w.extents = append(w.extents, file.Extent{Range: r, Zeros: true})
		}
	}
	m := &Memory{file.NewMemory(src, w.extents), w.notes}
	m.Lose(w.lost)
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
