package ext4

// A run is where blocks of a file that follow each other are.
type run struct {
	physical  uint64 // 0: a hole
	length    uint64 // in blocks, at least 1
	unwritten bool
}

const (
	extentMagic    = 0xf30a
	maxExtentDepth = 5 // EXT4_MAX_EXTENT_DEPTH
	noBlock        = 1 << 32
)

// lookup finds the run that a block of a file begins.
func (n *node) lookup(block uint64) (run, error) {
	if block >= noBlock {
		return run{length: 1<<63 - block}, nil
	}
	if n.flags&flagExtents != 0 {
		return n.lookupExtent(block)
	}
	return n.lookupIndirect(block)
}

// lookupExtent goes down the tree of extents. What is behind a hole is where the next extent, or the next branch, begins.
func (n *node) lookupExtent(block uint64) (run, error) {
	level, next := n.block[:], uint64(noBlock)
	depth := -1
	for {
		entries, most := int(le.Uint16(level[2:])), (len(level)-12)/12
		if le.Uint16(level) != extentMagic || entries > most {
			return run{}, n.errorf("its extents are damaged")
		}
		d := int(le.Uint16(level[6:]))
		if depth < 0 && d > maxExtentDepth || depth >= 0 && d != depth-1 {
			return run{}, n.errorf("its tree of extents has depth %d below %d", d, depth)
		}
		depth = d
		// The last entry that does not begin behind the block.
		low, high := 0, entries
		for low < high {
			middle := (low + high) / 2
			if uint64(le.Uint32(level[12+middle*12:])) <= block {
				low = middle + 1
			} else {
				high = middle
			}
		}
		if low < entries {
			next = min(next, uint64(le.Uint32(level[12+low*12:])))
		}
		if low == 0 {
			return run{length: max(next, block+1) - block}, nil
		}
		e := level[12+(low-1)*12:]
		if depth == 0 {
			first, length := uint64(le.Uint32(e)), uint64(le.Uint16(e[4:]))
			r := run{physical: uint64(le.Uint32(e[8:])) | uint64(le.Uint16(e[6:]))<<32, length: length}
			if length > 32768 {
				r.length, r.unwritten = length-32768, true
			}
			if block >= first+r.length {
				return run{length: max(next, block+1) - block}, nil
			}
			if r.physical == 0 || r.physical+r.length > n.fs.blocks {
				return run{}, n.errorf("an extent has %d blocks from %d on, of %d", r.length, r.physical, n.fs.blocks)
			}
			r.physical += block - first
			r.length -= block - first
			return r, nil
		}
		child := uint64(le.Uint32(e[4:])) | uint64(le.Uint16(e[8:]))<<32
		if child == 0 || child >= n.fs.blocks {
			return run{}, n.errorf("its extents are in block %d of %d", child, n.fs.blocks)
		}
		var err error
		if level, err = n.fs.blockView(child); err != nil {
			return run{}, n.errorf("its extents: %w", err)
		}
	}
}

// lookupIndirect follows the block map of ext2: 12 blocks, and then blocks of block numbers, one, two and three levels deep.
func (n *node) lookupIndirect(block uint64) (run, error) {
	perBlock := uint64(n.fs.blockSize / 4)
	const direct = 12
	if block < direct {
		return n.runOf(n.block[:direct*4], block, 1)
	}
	rest, span := block-direct, perBlock
	for levels := uint64(0); levels < 3; levels++ {
		if rest >= span {
			rest -= span
			span *= perBlock
			continue
		}
		pointer := uint64(le.Uint32(n.block[(direct+levels)*4:]))
		for below := span; ; { // a pointer leads to below blocks of the file
			if pointer == 0 {
				return run{length: below - rest%below}, nil
			}
			if pointer >= n.fs.blocks {
				return run{}, n.errorf("its blocks are listed in block %d of %d", pointer, n.fs.blocks)
			}
			list, err := n.fs.blockView(pointer)
			if err != nil {
				return run{}, n.errorf("its blocks: %w", err)
			}
			below /= perBlock
			if below == 1 {
				return n.runOf(list, rest%perBlock, 1)
			}
			pointer = uint64(le.Uint32(list[rest/below%perBlock*4:]))
		}
	}
	return run{length: noBlock - block}, nil
}

// runOf joins block numbers that follow each other.
func (n *node) runOf(list []byte, at, length uint64) (run, error) {
	first := uint64(le.Uint32(list[at*4:]))
	for ; (at+length)*4+4 <= uint64(len(list)); length++ {
		next := uint64(le.Uint32(list[(at+length)*4:]))
		if first == 0 && next != 0 || first != 0 && next != first+length {
			break
		}
	}
	if first != 0 && first+length > n.fs.blocks {
		return run{}, n.errorf("it has %d blocks from %d on, of %d", length, first, n.fs.blocks)
	}
	return run{physical: first, length: length}, nil
}
