package xfs

import (
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	agiMagic, agfMagic           = 0x58414749, 0x58414746 // "XAGI", "XAGF"
	inobtMagicV4, inobtMagicV5   = 0x49414254, 0x49414233 // "IABT", "IAB3"
	inodesPerRecord              = 64
	inodesPerHole                = 4 // what a bit of a sparse record's mask stands for
	unlinkedBuckets, unlinkedEnd = 64, 0xffffffff
)

// header reads one of the headers of an allocation group, by its sector.
func (fs *FS) header(ag uint32, sector int64, magic uint32, l layout) (b []byte, offset int64, err error) {
	offset = fs.sb.groupOffset(ag) + sector*int64(fs.sb.sectorSize)
	if b, err = fs.cache.read(offset, int(fs.sb.sectorSize)); err != nil {
		return nil, offset, err
	}
	if be.Uint32(b) != magic || be.Uint32(b[8:]) != ag {
		return nil, offset, corrupt(offset, "no %s", l.name)
	}
	return b, offset, fs.prove(b, offset, l, 0)
}

// ends says that the device has no such allocation group, and none after it.
func (fs *FS) ends(ag uint32) error {
	if at := fs.sb.groupOffset(ag); at >= fs.dev.Size() {
		return corrupt(at, "the device ends before allocation group %d of %d", ag, fs.sb.agCount)
	}
	return nil
}

func (fs *FS) agi(ag uint32) (b []byte, offset int64, err error) {
	return fs.header(ag, 2, agiMagic, agiLayout)
}

// count adds up what the allocation groups say, or takes what the superblock says where one of them cannot be read.
func (fs *FS) count() {
	free := uint64(0)
	for ag := range fs.sb.agCount {
		agf, _, err := fs.header(ag, 1, agfMagic, agfLayout)
		if err != nil {
			fs.used, fs.inode = -1, 0
			break
		}
		// Free, in the list of free blocks, and in the trees of free blocks: xfs_statfs counts them so.
		free += uint64(be.Uint32(agf[52:])) + uint64(be.Uint32(agf[48:])) + uint64(be.Uint32(agf[60:]))
		agi, _, err := fs.agi(ag)
		if err != nil {
			fs.used, fs.inode = -1, 0
			break
		}
		fs.inode += uint64(be.Uint32(agi[16:])) - uint64(be.Uint32(agi[28:]))
	}
	if fs.used < 0 {
		free = fs.sb.freeBlocks
		fs.inode = fs.sb.inodes - min(fs.sb.inodes, fs.sb.freeInodes)
	}
	fs.used = int64(fs.sb.blocks-min(fs.sb.blocks, free)) << fs.sb.blockLog
}

// Nodes are all inodes that are in use, and those that were freed and still have their times.
func (fs *FS) Nodes() iter.Seq2[disk.Node, error] {
	return func(yield func(disk.Node, error) bool) {
		for ag := range fs.sb.agCount {
			if err := fs.ends(ag); err != nil {
				yield(nil, err)
				return
			}
			w := inodeWalk{fs: fs, ag: ag, seen: map[uint32]bool{}, last: -1, yield: yield}
			if !w.group() {
				return
			}
		}
	}
}

// inodeWalk goes through the inodes of an allocation group.
type inodeWalk struct {
	fs    *FS
	ag    uint32
	seen  map[uint32]bool // blocks of the tree
	last  int64           // the first inode of the record before
	yield func(disk.Node, error) bool
}

func (w *inodeWalk) fail(err error) bool { return w.yield(nil, err) }

func (w *inodeWalk) group() bool {
	agi, offset, err := w.fs.agi(w.ag)
	if err != nil {
		return w.fail(err)
	}
	root, levels := be.Uint32(agi[20:]), be.Uint32(agi[24:])
	if levels == 0 || levels > maxTreeLevels {
		return w.fail(corrupt(offset, "an inode tree with %d levels", levels))
	}
	return w.block(root, int(levels)-1)
}

// block walks a block of the tree: false means that the caller has enough.
func (w *inodeWalk) block(block uint32, level int) bool {
	sb := &w.fs.sb
	if uint64(block) >= sb.groupBlocks(w.ag) || w.seen[block] {
		return w.fail(corrupt(-1, "allocation group %d: an inode tree with block %#x, which is outside of it or there twice", w.ag, block))
	}
	w.seen[block] = true
	offset, size := sb.groupOffset(w.ag)+int64(block)<<sb.blockLog, int(sb.blockSize)
	b, err := w.fs.cache.read(offset, size)
	if err != nil {
		return w.fail(err)
	}
	header, magic, record := 16, uint32(inobtMagicV4), 16
	if sb.crc {
		header, magic = 56, inobtMagicV5
	}
	if level > 0 {
		record = 8
	}
	count, room := int(be.Uint16(b[6:])), (size-header)/record
	if be.Uint32(b) != magic || int(be.Uint16(b[4:])) != level || count > room {
		return w.fail(corrupt(offset, "no block of level %d of an inode tree", level))
	}
	if err := w.fs.prove(b, offset, inobtLayout, uint64(w.ag)); err != nil {
		return w.fail(err)
	}
	for i := range count {
		if level == 0 {
			if !w.record(b[header+i*record:], offset) {
				return false
			}
		} else if !w.block(be.Uint32(b[header+room*4+i*4:]), level-1) {
			return false
		}
	}
	return true
}

// record walks 64 inodes: the first one's number, a mask of holes where chunks may be sparse, and a mask of free ones.
func (w *inodeWalk) record(b []byte, offset int64) bool {
	sb := &w.fs.sb
	first, free, holes := int64(be.Uint32(b)), be.Uint64(b[8:]), uint16(0)
	if sb.incompat&incompatSparseInodes != 0 {
		holes = be.Uint16(b[4:])
	}
	if w.last >= 0 && first < w.last+inodesPerRecord {
		return w.fail(corrupt(offset, "inode %d after inode %d in an inode tree", first, w.last))
	}
	w.last = first
	base := uint64(w.ag) << (sb.agBlockLog + sb.inodesPerBlockLog)
	if uint64(first) >= sb.groupBlocks(w.ag)<<sb.inodesPerBlockLog {
		return w.fail(corrupt(offset, "inode %d in an inode tree, which allocation group %d has not", first, w.ag))
	}
	for i := range inodesPerRecord {
		if holes>>(i/inodesPerHole)&1 != 0 {
			continue
		}
		if !w.inode(base|uint64(first+int64(i)), free>>i&1 != 0) {
			return false
		}
	}
	return true
}

func (w *inodeWalk) inode(number uint64, free bool) bool {
	n, err := w.fs.node(number)
	switch {
	case err != nil:
		return free || w.fail(err) // what is free may be anything
	case n.flags2()&flag2Metadata != 0 && n.mode() != 0:
		return true // quota and realtime files, which no directory that users see has
	case n.mode() == 0 && free:
		return n.deleted().IsZero() || w.yield(n, nil)
	case (n.mode() == 0) != free:
		return w.fail(n.wrong("mode %#o, and the inode tree says otherwise", n.mode()))
	}
	return w.yield(n, nil)
}

// Unlinked are the inodes that no directory has any more, and that some process has open: those on the lists that the
// kernel goes through after a crash.
func (fs *FS) Unlinked() iter.Seq2[disk.Node, error] {
	return func(yield func(disk.Node, error) bool) {
		for ag := range fs.sb.agCount {
			if err := fs.ends(ag); err != nil {
				yield(nil, err)
				return
			}
			agi, offset, err := fs.agi(ag)
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			seen := map[uint32]bool{}
			for bucket := range unlinkedBuckets {
				if !fs.bucket(ag, be.Uint32(agi[40+bucket*4:]), offset, seen, yield) {
					return
				}
			}
		}
	}
}

// bucket is one list of inodes, each of which names the next.
func (fs *FS) bucket(ag, next uint32, offset int64, seen map[uint32]bool, yield func(disk.Node, error) bool) bool {
	base := uint64(ag) << (fs.sb.agBlockLog + fs.sb.inodesPerBlockLog)
	for next != unlinkedEnd {
		if seen[next] || uint64(next) >= fs.sb.groupBlocks(ag)<<fs.sb.inodesPerBlockLog {
			return yield(nil, corrupt(offset, "a list of unlinked inodes with inode %d, which is there twice or not of allocation group %d", next, ag))
		}
		seen[next] = true
		n, err := fs.node(base | uint64(next))
		if err != nil {
			return yield(nil, err)
		}
		if !yield(n, nil) {
			return false
		}
		next = be.Uint32(n.raw[96:])
	}
	return true
}
