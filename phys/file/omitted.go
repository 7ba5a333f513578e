package file

import "github.com/outsight-vmi/outsight/phys"

// AVML cuts a range of memory into blocks of 16 MiB, since 0.18 also where it does not
// compress. A block that is zeros throughout has no content: version 0.17 writes its header
// alone, the others leave out the header too (copy_if_nonzero in its src/image.rs). What is
// left out looks like a hole between ranges.
const (
	AVMLBlock = 16 << 20 // bytes
	oneMiB    = 1 << 20
	fourGiB   = 4 << 30
)

// Omitted are the gaps between the blocks of an AVML file, which are ascending and do not
// overlap, that are blocks of zeros for all that can be known: where the block before is a
// whole one, so that its range continues, and where the block behind is a whole number of
// blocks from where a PC's RAM begins. A gap over the hole below 4 GiB, and what is behind
// the last block, may be no memory at all.
func Omitted(blocks []phys.Range) (zeros []phys.Range) {
	add := func(start, end phys.Addr) {
		if start < end {
			zeros = append(zeros, phys.Range{Start: start, End: end})
		}
	}
	before := phys.Range{}
	for _, b := range blocks {
		gap := phys.Range{Start: before.End, End: b.Start}
		begun := func(at phys.Addr) bool { // a range that begins at at
			return gap.Start <= at && at < gap.End && (gap.End-at)%AVMLBlock == 0
		}
		switch {
		case before.Size() == AVMLBlock && (gap.End <= fourGiB || gap.Start >= fourGiB):
			add(gap.Start, gap.End)
		case begun(fourGiB):
			add(fourGiB, gap.End)
		case begun(oneMiB):
			add(oneMiB, gap.End)
		}
		before = b
	}
	return zeros
}
