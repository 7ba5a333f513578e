package xfs

import (
	"sort"
)

const (
	// maxRuns bounds what is kept of a file's extents: 200 MiB.
	maxRuns = 1 << 23
	// maxTreeLevels is more than the kernel's trees have.
	maxTreeLevels = 12

	treeMagicV4, treeMagicV5 = 0x424d4150, 0x424d4133 // "BMAP", "BMA3"
	extentSize               = 16
)

type runState uint8

const (
	written runState = iota
	unwritten
	lost // nobody knows where: a block of the tree is damaged
)

// A run is one extent. The numbers are of blocks: in the file, and from the start of the device.
type run struct {
	logical  int64
	physical int64
	count    int64
	state    runState
}

func (r run) end() int64 { return r.logical + r.count }

// runs are the extents of a fork, in order. What of them is lost has its place among them.
type runs struct {
	list []run
	err  error // why something is lost: the first reason
}

// at is the run that has a block, or the next one, or none.
func (r *runs) at(block int64) (int, bool) {
	i := sort.Search(len(r.list), func(i int) bool { return r.list[i].end() > block })
	return i, i < len(r.list) && r.list[i].logical <= block
}

// unpack decodes an extent: 1 bit state, 54 bits place in the file, 52 bits place on the device, 21 bits length.
func unpack(b []byte) (logical int64, fsblock, count uint64, state runState) {
	high, low := be.Uint64(b), be.Uint64(b[8:])
	if high>>63 != 0 {
		state = unwritten
	}
	return int64(high << 1 >> 10), high&(1<<9-1)<<43 | low>>21, low & (1<<21 - 1), state
}

// gather collects the runs of a fork.
type gather struct {
	n    *node
	runs runs
	seen map[int64]bool // blocks of the tree
	end  int64          // of the last run
}

// lose notes that blocks up to an end are lost.
func (g *gather) lose(from, to int64, err error) {
	from = max(from, g.end)
	if g.runs.err == nil {
		g.runs.err = err
	}
	if from >= to || len(g.runs.list) >= maxRuns {
		return
	}
	g.runs.list = append(g.runs.list, run{logical: from, physical: -1, count: to - from, state: lost})
	g.end = to
}

// extents takes count records, which have to lie in [from, to).
func (g *gather) extents(b []byte, count int, from, to int64) {
	for i := range count {
		logical, fsblock, blocks, state := unpack(b[i*extentSize:])
		if blocks == 0 || logical < max(from, g.end) || logical+int64(blocks) > to {
			g.lose(from, to, g.n.wrong("extent %d of blocks %d to %d is outside of its place", i, logical, logical+int64(blocks)))
			return
		}
		physical, ok := g.n.fs.sb.linear(fsblock, blocks)
		if !ok {
			g.lose(logical, logical+int64(blocks), g.n.wrong("block %d is at %#x, which the file system has not", logical, fsblock))
			continue
		}
		if len(g.runs.list) >= maxRuns {
			g.lose(from, to, unsupported("inode %d has more than %d extents", g.n.number, maxRuns))
			return
		}
		g.runs.list = append(g.runs.list, run{logical: logical, physical: physical, count: int64(blocks), state: state})
		g.end = logical + int64(blocks)
	}
}

const maxLogical = 1 << 54 // blocks in a file

// fork reads all extents of a fork.
func (n *node) fork(b []byte, form byte, count uint64) *runs {
	g := &gather{n: n, seen: map[int64]bool{}}
	switch {
	case form == formExtents && count <= uint64(len(b)/extentSize):
		g.extents(b, int(count), 0, maxLogical)
	case form == formExtents:
		g.lose(0, maxLogical, n.wrong("%d extents in %d bytes", count, len(b)))
	case form == formTree && len(b) >= 4:
		level, records := int(be.Uint16(b)), int(be.Uint16(b[2:]))
		room := (len(b) - 4) / extentSize
		if level == 0 || level > maxTreeLevels || records == 0 || records > room {
			g.lose(0, maxLogical, n.wrong("extent tree of level %d with %d records", level, records))
			break
		}
		g.children(b[4:], room, records, level, 0, maxLogical)
	default:
		g.lose(0, maxLogical, n.wrong("a fork of format %d", form))
	}
	return &g.runs
}

// children reads what a node of the tree points to: records keys, of room, and behind all of those the blocks.
func (g *gather) children(b []byte, room, records, level int, from, to int64) {
	for i := range records {
		first, last := int64(be.Uint64(b[i*8:])), to
		if i+1 < records {
			last = int64(be.Uint64(b[i*8+8:]))
		}
		if i == 0 && first > from && first < to { // nothing is before it
			from = first
		}
		if first < from || first >= last || last > to {
			g.lose(max(from, g.end), to, g.n.wrong("extent tree with key %d outside of %d to %d", first, from, to))
			return
		}
		if err := g.block(be.Uint64(b[room*8+i*8:]), level-1, first, last); err != nil {
			g.lose(first, last, err)
		}
	}
}

func (g *gather) block(fsblock uint64, level int, from, to int64) error {
	fs := g.n.fs
	block, ok := fs.sb.linear(fsblock, 1)
	if !ok {
		return g.n.wrong("extent tree with block %#x, which the file system has not", fsblock)
	}
	if g.seen[block] {
		return g.n.wrong("extent tree with block %#x twice", fsblock)
	}
	g.seen[block] = true
	offset, size := block<<fs.sb.blockLog, int(fs.sb.blockSize)
	b, err := fs.cache.read(offset, size)
	if err != nil {
		return err
	}
	header, magic := 24, uint32(treeMagicV4)
	if fs.sb.crc {
		header, magic = 72, treeMagicV5
	}
	records := int(be.Uint16(b[6:]))
	room := (size - header) / extentSize
	if be.Uint32(b) != magic || int(be.Uint16(b[4:])) != level || records > room {
		return corrupt(offset, "inode %d: no block of level %d of its extent tree", g.n.number, level)
	}
	if err := fs.prove(b, offset, bmbtLayout, g.n.number); err != nil {
		return err
	}
	if level == 0 {
		g.extents(b[header:], records, from, to)
		return nil
	}
	g.children(b[header:], room, records, level, from, to)
	return nil
}

func (n *node) dataRuns() *runs {
	count, _ := n.extentCounts()
	return n.fork(n.dataFork(), n.raw[5], count)
}

func (n *node) attrRuns() *runs {
	_, count := n.extentCounts()
	return n.fork(n.attrFork(), n.raw[83], count)
}

// blocks reads count blocks of a fork, from a block of the file on: in place if they lie together, else copied.
func (n *node) blocks(r *runs, logical int64, count int) (b []byte, offset int64, err error) {
	sb := &n.fs.sb
	i, ok := r.at(logical)
	if ok && r.list[i].state == written && r.list[i].end() >= logical+int64(count) {
		offset = (r.list[i].physical + logical - r.list[i].logical) << sb.blockLog
		b, err = n.fs.cache.read(offset, count<<sb.blockLog)
		return b, offset, err
	}
	b = make([]byte, 0, count<<sb.blockLog)
	for k := range int64(count) {
		i, ok := r.at(logical + k)
		switch {
		case !ok || r.list[i].state == unwritten:
			return nil, -1, n.wrong("block %d is not allocated", logical+k)
		case r.list[i].state == lost:
			return nil, -1, r.err
		}
		at := (r.list[i].physical + logical + k - r.list[i].logical) << sb.blockLog
		if k == 0 {
			offset = at
		}
		part, err := n.fs.cache.read(at, int(sb.blockSize))
		if err != nil {
			return nil, -1, err
		}
		b = append(b, part...)
	}
	return b, offset, nil
}
