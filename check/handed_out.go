package check

// maxPieces bounds the pieces of executable memory that are followed.
const maxPieces = 1 << 12

// sljitPieces reports whether memory of this size is divided as sljit's allocator does it
// (sljitExecAllocator.c): two words in front of each piece, its size (0 if it is free, which has
// the size behind two links) and that of the piece before, and an end of size 1. Chunks that are
// mapped beside each other are one mapping.
func sljitPieces(size uint64, word func(at uint64) uint64) bool {
	const header, freeSize, end, least = 16, 32, 1, 32
	const page = 4096
	before, at := uint64(0), uint64(0)
	for n := 0; at+header <= size && n < maxPieces; n++ {
		piece := word(at)
		if word(at+8) != before {
			return false
		}
		switch piece {
		case end:
			if at += header; n == 0 || at == size {
				return n > 0
			}
			if at%page != 0 {
				return false
			}
			before = 0
			continue
		case 0:
			if size-at < freeSize+8 {
				return false
			}
			piece = word(at + freeSize)
		}
		if piece < least || piece%8 != 0 || piece > size-at-header {
			return false
		}
		before = piece
		at += piece
	}
	return false
}

// dlmallocPieces reports whether memory of this size is divided as dlmalloc does it, of which
// libffi has a copy (closures.c): in front of each piece its size, with flags in the low bits,
// up to the end of the last, behind which little is left.
func dlmallocPieces(size uint64, word func(at uint64) uint64) bool {
	const flags, least, align, foot = 7, 32, 16, 128
	for at, n := uint64(0), 0; size-at >= least && n < maxPieces; n++ {
		piece := word(at+8) &^ flags
		if piece < least || piece%align != 0 || piece > size-at {
			return false
		}
		if at += piece; size-at <= foot {
			return n > 0
		}
	}
	return false
}
