package xfs

import (
	"fmt"
	"math"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	inodeMagic = 0x494e // "IN"
	coreV2     = 100    // where the forks begin in an inode of version 1 or 2
	coreV3     = 176
	inodeCRC   = 100
)

// Formats of a fork.
const (
	formDevice = iota
	formLocal
	formExtents
	formTree
	formUUID
	formMeta // a tree of the realtime volume's, from Linux 6.14
)

// Bits of di_flags and di_flags2.
const (
	flagRealtime  = 1 << 0
	flagImmutable = 1 << 3
	flagAppend    = 1 << 4

	flag2BigTime  = 1 << 3
	flag2Nrext64  = 1 << 4
	flag2Metadata = 1 << 5
)

// node is an inode, as it was when it was read.
type node struct {
	fs     *FS
	number uint64
	offset int64
	raw    []byte
	core   int // bytes before the forks
}

// place is where an inode is on the device.
func (s *superblock) place(number uint64) (int64, bool) {
	index := number & (1<<s.inodesPerBlockLog - 1)
	block, ok := s.linear(number>>s.inodesPerBlockLog, 1)
	return block<<s.blockLog + int64(index)*int64(s.inodeSize), ok
}

// Node reads an inode.
func (fs *FS) Node(number uint64) (disk.Node, error) {
	n, err := fs.node(number)
	if err != nil {
		return nil, err
	}
	if n.mode() == 0 && n.deleted().IsZero() {
		return nil, fmt.Errorf("xfs: inode %d is free", number)
	}
	return n, nil
}

func (fs *FS) node(number uint64) (*node, error) {
	offset, ok := fs.sb.place(number)
	if !ok {
		return nil, fmt.Errorf("xfs: no inode %d: the file system has no such block", number)
	}
	b, err := fs.cache.read(offset, int(fs.sb.inodeSize))
	if err != nil {
		return nil, err
	}
	n := &node{fs: fs, number: number, offset: offset, raw: b}
	if err := n.check(); err != nil {
		return nil, err
	}
	n.raw = append([]byte(nil), b...) // so that it does not hold its whole window
	return n, nil
}

func (n *node) check() error {
	b, sb := n.raw, &n.fs.sb
	if be.Uint16(b) != inodeMagic {
		return corrupt(n.offset, "no inode %d", n.number)
	}
	n.core = coreV2
	switch version := b[4]; {
	case version == 3 && sb.crc:
		n.core = coreV3
		if !n.fs.cache.replayed(n.offset, len(b)) && !sumIsRight(b, inodeCRC) {
			return corrupt(n.offset, "wrong checksum of inode %d", n.number)
		}
		if have := be.Uint64(b[152:]); have != n.number {
			return corrupt(n.offset, "inode %d where inode %d belongs", have, n.number)
		}
		if uuid(b[160:176]) != sb.metaUUID {
			return corrupt(n.offset, "inode %d of another file system", n.number)
		}
	case version == 0 || version > 2 || sb.crc:
		return corrupt(n.offset, "inode %d of version %d", n.number, version)
	}
	if fork := n.core + int(b[82])*8; fork > len(b) {
		return corrupt(n.offset, "inode %d with attributes at its byte %d", n.number, fork)
	}
	if int64(be.Uint64(b[56:])) < 0 {
		return corrupt(n.offset, "inode %d of %d bytes", n.number, int64(be.Uint64(b[56:])))
	}
	return nil
}

func (n *node) mode() uint32  { return uint32(be.Uint16(n.raw[2:])) }
func (n *node) kind() uint32  { return n.mode() & disk.TypeMask }
func (n *node) size() int64   { return int64(be.Uint64(n.raw[56:])) }
func (n *node) flags() uint16 { return be.Uint16(n.raw[90:]) }

func (n *node) flags2() uint64 {
	if n.core != coreV3 {
		return 0
	}
	return be.Uint64(n.raw[120:])
}

func (n *node) links() uint32 {
	if n.raw[4] == 1 {
		return uint32(be.Uint16(n.raw[6:]))
	}
	return be.Uint32(n.raw[16:])
}

// dataFork and attrFork are the parts of an inode where its forks begin.
func (n *node) dataFork() []byte {
	if at := int(n.raw[82]) * 8; at != 0 {
		return n.raw[n.core : n.core+at]
	}
	return n.raw[n.core:]
}

func (n *node) attrFork() []byte {
	if at := int(n.raw[82]) * 8; at != 0 {
		return n.raw[n.core+at:]
	}
	return nil
}

// extentCounts are how many extents the data and the attribute fork have.
func (n *node) extentCounts() (data, attr uint64) {
	if n.flags2()&flag2Nrext64 != 0 {
		return be.Uint64(n.raw[24:]), uint64(be.Uint32(n.raw[76:]))
	}
	return uint64(be.Uint32(n.raw[76:])), uint64(be.Uint16(n.raw[80:]))
}

func (n *node) time(at int) time.Time {
	if n.flags2()&flag2BigTime != 0 { // nanoseconds since the smallest second of the old format
		v := be.Uint64(n.raw[at:])
		return time.Unix(int64(v/1e9)+math.MinInt32, int64(v%1e9)).UTC()
	}
	return time.Unix(int64(int32(be.Uint32(n.raw[at:]))), int64(be.Uint32(n.raw[at+4:]))).UTC()
}

// deleted is when the inode was freed: the kernel clears its mode and its size, and leaves its times.
func (n *node) deleted() time.Time {
	if n.mode() != 0 || be.Uint64(n.raw[48:]) == 0 {
		return time.Time{}
	}
	return n.time(48)
}

func (n *node) Stat() disk.Stat {
	b, sb := n.raw, &n.fs.sb
	s := disk.Stat{
		Inode:      n.number,
		Generation: be.Uint32(b[92:]),
		Mode:       n.mode(),
		UID:        be.Uint32(b[8:]),
		GID:        be.Uint32(b[12:]),
		Links:      n.links(),
		Size:       n.size(),
		Blocks:     int64(min(be.Uint64(b[64:]), 1<<62>>sb.blockLog) << sb.blockLog / 512),
		Accessed:   n.time(32),
		Modified:   n.time(40),
		Changed:    n.time(48),
		Deleted:    n.deleted(),
	}
	if b[4] > 1 {
		s.Project = uint32(be.Uint16(b[20:]))
		if sb.crc || sb.features2&features2ProjID32 != 0 {
			s.Project |= uint32(be.Uint16(b[22:])) << 16
		}
	}
	if n.core == coreV3 {
		s.Born = n.time(144)
	}
	if kind := n.kind(); (kind == disk.TypeChar || kind == disk.TypeBlock) && b[5] == formDevice {
		dev := be.Uint32(b[n.core:])
		s.Major, s.Minor = dev>>18, dev&(1<<18-1)
	}
	set := func(f disk.Flags, on bool) {
		if on {
			s.Flags |= f
		}
	}
	set(disk.Immutable, n.flags()&flagImmutable != 0)
	set(disk.AppendOnly, n.flags()&flagAppend != 0)
	set(disk.Casefolded, n.kind() == disk.TypeDir && sb.caseInsensitive())
	set(disk.Inline, b[5] == formLocal)
	set(disk.Unlinked, n.mode() != 0 && n.links() == 0)
	return s
}

// wrong is what an error of a node begins with.
func (n *node) wrong(what string, args ...any) error {
	return corrupt(n.offset, "inode %d: %s", n.number, fmt.Sprintf(what, args...))
}
