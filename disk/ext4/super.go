package ext4

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
)

// Feature bits (fs/ext4/ext4.h).
const (
	compatHasJournal   = 0x4
	compatSparseSuper2 = 0x200
	compatFastCommit   = 0x400

	incompatFiletype   = 0x2
	incompatRecover    = 0x4
	incompatJournalDev = 0x8
	incompatMetaBG     = 0x10
	incompat64Bit      = 0x80
	incompatEAInode    = 0x400
	incompatCsumSeed   = 0x2000
	incompatInline     = 0x8000
	incompatEncrypt    = 0x10000
	incompatCasefold   = 0x20000

	roSparseSuper  = 0x1
	roHugeFile     = 0x8
	roGDTCsum      = 0x10
	roBigalloc     = 0x200
	roMetadataCsum = 0x400
)

// Names of the features, as tune2fs writes them. An incompatible one without a name is refused: it may change where
// anything is.
var (
	compatNames = map[uint32]string{
		0x1: "dir_prealloc", 0x2: "imagic_inodes", compatHasJournal: "has_journal", 0x8: "ext_attr", 0x10: "resize_inode",
		0x20: "dir_index", 0x40: "lazy_bg", 0x80: "exclude_inode", 0x100: "exclude_bitmap", compatSparseSuper2: "sparse_super2", compatFastCommit: "fast_commit",
		0x800: "stable_inodes", 0x1000: "orphan_file",
	}
	incompatNames = map[uint32]string{
		incompatFiletype: "filetype", incompatRecover: "needs_recovery", incompatJournalDev: "journal_dev", incompatMetaBG: "meta_bg",
		0x40: "extent", incompat64Bit: "64bit", 0x100: "mmp", 0x200: "flex_bg", incompatEAInode: "ea_inode", incompatCsumSeed: "metadata_csum_seed",
		0x4000: "large_dir", incompatInline: "inline_data", incompatEncrypt: "encrypt", incompatCasefold: "casefold",
	}
	roNames = map[uint32]string{
		roSparseSuper: "sparse_super", 0x2: "large_file", 0x4: "btree_dir", roHugeFile: "huge_file", roGDTCsum: "uninit_bg", 0x20: "dir_nlink",
		0x40: "extra_isize", 0x80: "snapshot", 0x100: "quota", roBigalloc: "bigalloc", roMetadataCsum: "metadata_csum", 0x800: "replica", 0x1000: "read-only",
		0x2000: "project", 0x4000: "shared_blocks", 0x8000: "verity", 0x10000: "orphan_present",
	}
)

const (
	superOffset = 1024
	superSize   = 1024
	magic       = 0xef53
)

var le = binary.LittleEndian

// super is what is needed of a superblock.
type super struct {
	inodes, blocks, free       uint64
	firstBlock                 uint64
	blockSize                  int64
	clusterSize                int64
	blocksPerGroup             uint64
	inodesPerGroup             uint32
	inodeSize                  int64
	descSize                   int64
	firstMetaBG                uint32
	backups                    [2]uint32
	compat, incompat, ro       uint32
	uuid                       [16]byte
	label                      string
	journalInode, lastOrphan   uint32
	groups                     uint64
	reservedDescriptors, state uint16
}

func parseSuper(b []byte) (*super, error) {
	if le.Uint16(b[0x38:]) != magic {
		return nil, fmt.Errorf("ext4: %w", disk.ErrUnknown)
	}
	u32 := func(at int) uint32 { return le.Uint32(b[at:]) }
	s := &super{
		inodes: uint64(u32(0)), blocks: uint64(u32(4)), free: uint64(u32(0xc)), firstBlock: uint64(u32(0x14)),
		blocksPerGroup: uint64(u32(0x20)), inodesPerGroup: u32(0x28), inodeSize: 128, descSize: 32,
		state: le.Uint16(b[0x3a:]),
	}
	bad := func(format string, args ...any) (*super, error) {
		return nil, &disk.CorruptError{Format: "ext4", Offset: superOffset, What: "superblock: " + fmt.Sprintf(format, args...)}
	}
	if u32(0x18) > 6 {
		return bad("block size 2^%d KiB", u32(0x18))
	}
	s.blockSize = 1024 << u32(0x18)
	s.clusterSize = s.blockSize
	if u32(0x4c) > 0 { // revision 1: the rest has a meaning
		s.inodeSize = int64(le.Uint16(b[0x58:]))
		s.compat, s.incompat, s.ro = u32(0x5c), u32(0x60), u32(0x64)
		copy(s.uuid[:], b[0x68:])
		s.label = strings.TrimRight(string(b[0x78:0x88]), "\x00")
		s.reservedDescriptors = le.Uint16(b[0xce:])
		s.journalInode, s.lastOrphan = u32(0xe0), u32(0xe8)
		s.firstMetaBG = u32(0x104)
		s.backups = [2]uint32{u32(0x24c), u32(0x250)}
	}
	if unknown := s.incompat &^ known(incompatNames); unknown != 0 {
		return nil, fmt.Errorf("ext4: features %#x: %w", unknown, disk.ErrUnsupported)
	}
	if s.incompat&incompatJournalDev != 0 {
		return nil, fmt.Errorf("ext4: this is a journal of a file system that is on another device: %w", disk.ErrUnsupported)
	}
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= uint64(u32(0x150)) << 32
		s.free |= uint64(u32(0x158)) << 32
		s.descSize = int64(le.Uint16(b[0xfe:]))
		if s.descSize < 64 || s.descSize > s.blockSize || s.descSize&(s.descSize-1) != 0 {
			return bad("group descriptors of %d bytes", s.descSize)
		}
	}
	if s.ro&roBigalloc != 0 {
		if u32(0x1c) > 19 || u32(0x1c) < u32(0x18) {
			return bad("cluster size 2^%d KiB", u32(0x1c))
		}
		s.clusterSize = 1024 << u32(0x1c)
	}
	switch {
	case s.inodeSize < 128 || s.inodeSize > s.blockSize || s.inodeSize&(s.inodeSize-1) != 0:
		return bad("inodes of %d bytes", s.inodeSize)
	case s.blocksPerGroup < 8 || s.blocksPerGroup > uint64(s.clusterSize)*8*uint64(s.clusterSize/s.blockSize):
		return bad("%d blocks in a group", s.blocksPerGroup)
	case s.inodesPerGroup == 0 || int64(s.inodesPerGroup) > s.blockSize*8:
		return bad("%d inodes in a group", s.inodesPerGroup)
	case s.firstBlock >= s.blocks:
		return bad("first block %d of %d", s.firstBlock, s.blocks)
	case s.blocks > uint64(1<<62/s.blockSize):
		return bad("%d blocks", s.blocks)
	}
	s.groups = (s.blocks - s.firstBlock + s.blocksPerGroup - 1) / s.blocksPerGroup
	if s.inodes > s.groups*uint64(s.inodesPerGroup) {
		return bad("%d inodes in %d groups of %d", s.inodes, s.groups, s.inodesPerGroup)
	}
	return s, nil
}

func known(names map[uint32]string) (bits uint32) {
	for bit := range names {
		bits |= bit
	}
	return bits
}

// kind is what people call a file system with these features.
func (s *super) kind() string {
	switch {
	case s.incompat&^(incompatFiletype|incompatRecover|incompatMetaBG) != 0 || s.ro&^(roSparseSuper|0x2|0x4) != 0:
		return "ext4"
	case s.compat&compatHasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

func (s *super) features() []string {
	var names []string
	for _, set := range []struct {
		bits  uint32
		names map[uint32]string
	}{{s.compat, compatNames}, {s.incompat, incompatNames}, {s.ro, roNames}} {
		for bit := uint32(1); bit != 0; bit <<= 1 {
			if set.bits&bit == 0 {
				continue
			}
			name, ok := set.names[bit]
			if !ok {
				name = fmt.Sprintf("%#x", bit)
			}
			names = append(names, name)
		}
	}
	return names
}

// descriptorBlock is where the nth block of group descriptors is.
func (s *super) descriptorBlock(n uint64) uint64 {
	first := s.firstBlock
	if s.blockSize == 1024 && first == 0 {
		first = 1 // bigalloc: the superblock is in block 1 all the same
	}
	if s.incompat&incompatMetaBG == 0 || n < uint64(s.firstMetaBG) {
		return first + n + 1
	}
	group := n * uint64(s.blockSize/s.descSize)
	block := group*s.blocksPerGroup + s.firstBlock
	if s.hasBackup(group) {
		block++
	}
	if s.blockSize == 1024 && n == 0 && s.firstBlock == 0 {
		block++
	}
	return block
}

// hasBackup says that a group begins with a superblock.
func (s *super) hasBackup(group uint64) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper2 != 0:
		return group == uint64(s.backups[0]) || group == uint64(s.backups[1])
	case group == 1 || s.ro&roSparseSuper == 0:
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		power := base
		for power < group {
			power *= base
		}
		if power == group {
			return true
		}
	}
	return false
}
