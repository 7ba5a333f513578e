package qcow2

import (
	"encoding/binary"
	"math/bits"
)

// Kind is where the bytes of a run are.
type Kind string

// The kinds.
const (
	Data        Kind = "data"
	Compressed  Kind = "compressed"
	Zero        Kind = "zero"
	Unallocated Kind = "unallocated" // in the backing file; without one they are zeroes
)

// A Run is bytes of the disk that are together.
type Run struct {
	Kind   Kind
	Length int64 // in bytes
	// Host is where Data and Compressed begin, in bytes, in the image file or its data file.
	Host int64

	compressed uint64 // its L2 entry
}

// Bits of L1 and L2 entries.
const (
	copied     = 1 << 63
	compressed = 1 << 62
	zeroFlag   = 1 << 0
	offsetMask = 0x00ff_ffff_ffff_fe00

	subclusterCount = 32
)

// Map says where the bytes at an offset of the disk are, and how many, at most the limit, are together with them. Both are in bytes.
func (i *Image) Map(offset, limit int64) (Run, error) {
	limit = min(limit, i.size-offset)
	if offset < 0 || limit <= 0 {
		return Run{Kind: Unallocated}, nil
	}
	r, more, err := i.piece(offset, limit)
	if err != nil || r.Kind == Compressed {
		return r, err
	}
	for more && r.Length < limit {
		more = i.extend(&r, offset, limit)
	}
	return r, nil
}

// extend adds the next piece, if it continues a run, and tells whether there may be more. An error is told to whoever reads on.
func (i *Image) extend(r *Run, offset, limit int64) bool {
	next, more, err := i.piece(offset+r.Length, limit-r.Length)
	if err != nil || !r.continues(next) {
		return false
	}
	r.Length += next.Length
	return more
}

func (r *Run) continues(next Run) bool {
	return r.Kind == next.Kind && r.Kind != Compressed && (r.Kind != Data || r.Host+r.Length == next.Host)
}

// piece is a run as far as one piece of an L2 table says it; more: the next piece may continue it.
func (i *Image) piece(offset, limit int64) (r Run, more bool, err error) {
	cluster := offset >> i.clusterBits
	l1 := cluster >> i.l2Bits
	at := i.table.offset + l1*8
	entry, err := i.entry(at)
	if err != nil {
		return r, false, err
	}
	l2 := int64(entry & offsetMask)
	if l2 == 0 {
		end := (l1 + 1) << (i.clusterBits + i.l2Bits)
		return Run{Kind: Unallocated, Length: min(limit, end-offset)}, true, nil
	}
	if l2&(i.clusterSize()-1) != 0 {
		return r, false, broken(at, "an L2 table at %#x, where no cluster begins", l2)
	}
	return i.pieceOfL2(l2, cluster&(1<<i.l2Bits-1), offset, limit)
}

func (i *Image) pieceOfL2(l2, index, offset, limit int64) (r Run, more bool, err error) {
	size := int64(8)
	if i.subclusters() {
		size = 16
	}
	at := l2 + index*size
	piece := at &^ (i.pieceSize() - 1)
	p, err := i.cache.get(key{i.core, piece, 0})
	if err != nil {
		return r, false, err
	}
	defer i.cache.put(p)
	for within := at - piece; within < i.pieceSize(); within += size {
		if within+size > int64(len(p.data)) {
			return r, false, broken(piece+within, "an L2 table beyond the end of the image, which was cut off")
		}
		for {
			in := (offset + r.Length) & (i.clusterSize() - 1)
			next, err := i.decode(p.data[within:], in, piece+within)
			if err != nil {
				if r.Length > 0 {
					return r, false, nil // whoever reads on is told
				}
				return r, false, err
			}
			switch {
			case r.Length == 0:
				r = next
			case r.continues(next):
				r.Length += next.Length
			default:
				return r, false, nil
			}
			if r.Length >= limit {
				r.Length = limit
				return r, false, nil
			}
			if r.Kind == Compressed {
				return r, false, nil
			}
			if (offset+r.Length)&(i.clusterSize()-1) == 0 {
				break
			}
		}
	}
	return r, true, nil
}

// decode reads the L2 entry that b begins with, and is at a place in the image: where are the bytes from one of its cluster on?
func (i *Image) decode(b []byte, in, at int64) (Run, error) {
	e := binary.BigEndian.Uint64(b)
	host := int64(e & offsetMask)
	r := Run{Length: i.clusterSize() - in}
	switch {
	case e&compressed != 0:
		if i.incompatible&externalData != 0 {
			return r, broken(at, "a compressed cluster, and the image has an external data file")
		}
		r.Kind, r.compressed = Compressed, e
		r.Host, _ = i.compressedAt(e)
		return r, nil
	case e&zeroFlag != 0 && !i.subclusters():
		if i.version < 3 {
			return r, broken(at, "a cluster of zeroes, which version 2 does not have")
		}
		r.Kind = Zero
		return r, nil
	case host == 0 && (i.incompatible&externalData == 0 || e&copied == 0):
		r.Kind = Unallocated
	case host&(i.clusterSize()-1) != 0:
		return r, broken(at, "a cluster at %#x, where none begins", host)
	default:
		r.Kind, r.Host = Data, host+in
	}
	if i.subclusters() {
		return i.part(r, binary.BigEndian.Uint64(b[8:]), in, at)
	}
	return r, nil
}

// part shortens a run of a cluster to those of its subclusters that are as the first.
func (i *Image) part(r Run, bitmap uint64, in, at int64) (Run, error) {
	allocated, zero := uint32(bitmap), uint32(bitmap>>32)
	if allocated&zero != 0 || r.Kind == Unallocated && allocated != 0 {
		return r, broken(at+8, "a subcluster bitmap %#x that contradicts itself or its cluster", bitmap)
	}
	shift := i.clusterBits - 5
	first := uint(in >> shift)
	var same uint32 // the subclusters that are as the first
	switch bit := uint32(1) << first; {
	case zero&bit != 0:
		r.Kind, r.Host, same = Zero, 0, zero
	case allocated&bit != 0:
		same = allocated
	default:
		r.Kind, r.Host, same = Unallocated, 0, ^(zero | allocated)
	}
	count := uint(bits.TrailingZeros32(^(same >> first)))
	count = min(count, subclusterCount-first)
	r.Length = int64(first+count)<<shift - in
	return r, nil
}

// entry reads an entry of the L1 table.
func (i *Image) entry(at int64) (uint64, error) {
	piece := at &^ (i.pieceSize() - 1)
	p, err := i.cache.get(key{i.core, piece, 0})
	if err != nil {
		return 0, err
	}
	defer i.cache.put(p)
	within := at - piece
	if within+8 > int64(len(p.data)) {
		return 0, broken(at, "an L1 table beyond the end of the image, which was cut off")
	}
	return binary.BigEndian.Uint64(p.data[within:]), nil
}
