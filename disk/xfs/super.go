package xfs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
)

var be = binary.BigEndian

const (
	superMagic = 0x58465342 // "XFSB"
	superCRC   = 224        // where its checksum is
	superSize  = 264        // of what is read of it, without what metadir adds

	minSector, maxSector = 512, 32 << 10
	minBlock, maxBlock   = 512, 64 << 10
	minInode, maxInode   = 256, 2048
	maxDirBlock          = 64 << 10
	maxAGBytes           = 1 << 40
	maxGroups            = 1 << 24 // 64 KiB headers of which would be a TiB
)

// Bits of sb_versionnum, from which a file system of version 4 has its features.
const (
	versionAttr    = 0x0010
	versionQuota   = 0x0040
	versionAlign   = 0x0080
	versionLogV2   = 0x0400
	versionSector  = 0x0800
	versionExtFlag = 0x1000
	versionDirV2   = 0x2000
	versionCI      = 0x4000 // "borg"
	versionMore    = 0x8000
	versionNumber  = 0x000f
)

// Bits of sb_features2.
const (
	features2LazyCount = 0x0002
	features2Attr2     = 0x0008
	features2ProjID32  = 0x0080
	features2FType     = 0x0200
)

// Bits of sb_features_ro_compat. None of them changes how files are read.
const (
	roFinobt = 1 << iota
	roRmapbt
	roReflink
	roInobtCounts
)

// Bits of sb_features_incompat, up to Linux 6.18.
const (
	incompatFType = 1 << iota
	incompatSparseInodes
	incompatMetaUUID
	incompatBigTime
	incompatNeedsRepair
	incompatNrext64
	incompatExchange
	incompatParent
	incompatMetadir
	incompatZoned
	incompatZoneGaps
	incompatKnown = 1<<iota - 1
)

type uuid [16]byte

func (u uuid) String() string {
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// superblock is what is needed of xfs_dsb.
type superblock struct {
	blockSize, sectorSize, inodeSize uint32
	blockLog, inodesPerBlockLog      uint8
	agBlockLog, dirBlockLog          uint8
	blocks, rtBlocks                 uint64
	agBlocks, agCount                uint32
	uuid, metaUUID                   uuid
	logStart                         uint64
	logBlocks                        uint32
	rootInode                        uint64
	inodes, freeInodes, freeBlocks   uint64
	version                          uint16
	features2                        uint32
	roCompat, incompat, logIncompat  uint32
	label                            string
	inProgress                       bool

	crc, ftype bool // version 5; directories say types
}

func (s *superblock) parse(b []byte) error {
	if be.Uint32(b) != superMagic {
		return fmt.Errorf("xfs: %w: no superblock at the start of the device", disk.ErrUnknown)
	}
	s.blockSize, s.blocks, s.rtBlocks = be.Uint32(b[4:]), be.Uint64(b[8:]), be.Uint64(b[16:])
	s.uuid = uuid(b[32:48])
	s.logStart, s.rootInode = be.Uint64(b[48:]), be.Uint64(b[56:])
	s.agBlocks, s.agCount, s.logBlocks = be.Uint32(b[84:]), be.Uint32(b[88:]), be.Uint32(b[96:])
	s.version = be.Uint16(b[100:])
	s.sectorSize, s.inodeSize = uint32(be.Uint16(b[102:])), uint32(be.Uint16(b[104:]))
	s.label = string(bytes.TrimRight(b[108:120], "\x00"))
	s.blockLog, s.inodesPerBlockLog, s.agBlockLog = b[120], b[123], b[124]
	s.inProgress = b[126] != 0
	s.inodes, s.freeInodes, s.freeBlocks = be.Uint64(b[128:]), be.Uint64(b[136:]), be.Uint64(b[144:])
	s.dirBlockLog = b[192]
	s.features2 = be.Uint32(b[200:])
	s.metaUUID = s.uuid
	switch number := s.version & versionNumber; number {
	case 4:
		if s.version&versionMore == 0 {
			s.features2 = 0
		}
		s.ftype = s.features2&features2FType != 0
		if s.version&versionDirV2 == 0 {
			return unsupported("directories of version 1")
		}
	case 5:
		s.crc = true
		s.roCompat, s.incompat, s.logIncompat = be.Uint32(b[212:]), be.Uint32(b[216:]), be.Uint32(b[220:])
		s.ftype = s.incompat&incompatFType != 0
		if s.incompat&incompatMetaUUID != 0 {
			s.metaUUID = uuid(b[248:264])
		}
	default:
		return unsupported("superblock of version %d", number)
	}
	if more := s.incompat &^ incompatKnown; more != 0 {
		return unsupported("incompatible features %#x", more)
	}
	return nil
}

// check refuses geometry that the format does not allow, so that no other place has to think of it.
func (s *superblock) check(deviceSize int64) error {
	power := func(v, low, high uint32) bool { return bits.OnesCount32(v) == 1 && v >= low && v <= high }
	agLast := s.blocks - uint64(s.agCount-1)*uint64(s.agBlocks)
	switch {
	case !power(s.blockSize, minBlock, maxBlock) || s.blockSize != 1<<s.blockLog:
		return corrupt(4, "block size %d", s.blockSize)
	case !power(s.sectorSize, minSector, maxSector) || s.sectorSize > s.blockSize:
		return corrupt(102, "sector size %d", s.sectorSize)
	case !power(s.inodeSize, minInode, maxInode) || s.inodeSize<<s.inodesPerBlockLog != s.blockSize || s.crc && s.inodeSize < 512:
		return corrupt(104, "inode size %d", s.inodeSize)
	case s.agBlocks == 0 || s.agBlockLog > 31 || uint64(s.agBlocks) > 1<<s.agBlockLog || int64(s.agBlocks)<<s.blockLog > maxAGBytes ||
		uint64(s.agBlocks)<<s.blockLog < uint64(4*s.sectorSize):
		return corrupt(84, "allocation groups of %d blocks", s.agBlocks)
	case s.agCount == 0 || s.agCount > maxGroups:
		return corrupt(88, "%d allocation groups", s.agCount)
	case s.blocks > 1<<62>>s.blockLog || agLast == 0 || agLast > uint64(s.agBlocks):
		return corrupt(8, "%d blocks in %d allocation groups of %d", s.blocks, s.agCount, s.agBlocks)
	case s.dirBlockLog > 7 || s.blockSize<<s.dirBlockLog > maxDirBlock:
		return corrupt(192, "directory blocks of %d bytes", uint64(s.blockSize)<<s.dirBlockLog)
	case deviceSize < int64(s.blockSize):
		return corrupt(4, "a device of %d bytes", deviceSize)
	}
	return nil
}

func (s *superblock) bytes() int64 { return int64(s.blocks) << s.blockLog }

// groupBlocks is how many blocks an allocation group has: the last is shorter.
func (s *superblock) groupBlocks(ag uint32) uint64 {
	return min(uint64(s.agBlocks), s.blocks-uint64(ag)*uint64(s.agBlocks))
}

// linear is where n blocks from an fsblock lie, in blocks from the start of the device; the group number in an fsblock
// is shifted by agBlockLog, which leaves gaps.
func (s *superblock) linear(fsblock, n uint64) (int64, bool) {
	ag, block := fsblock>>s.agBlockLog, fsblock&(1<<s.agBlockLog-1)
	if ag >= uint64(s.agCount) {
		return 0, false
	}
	if have := s.groupBlocks(uint32(ag)); block >= have || n > have-block {
		return 0, false
	}
	return int64(ag*uint64(s.agBlocks) + block), true
}

// groupOffset is where an allocation group begins.
func (s *superblock) groupOffset(ag uint32) int64 {
	return int64(ag) * int64(s.agBlocks) << s.blockLog
}

// features are named as mkfs.xfs names its options.
func (s *superblock) features() []string {
	var names []string
	add := func(name string, set bool) {
		if set {
			names = append(names, name)
		}
	}
	add("v4", !s.crc)
	add("v5", s.crc)
	add("attr", s.version&versionAttr != 0)
	add("quota", s.version&versionQuota != 0)
	add("align", s.version&versionAlign != 0)
	add("logv2", s.version&versionLogV2 != 0)
	add("sector", s.version&versionSector != 0)
	add("unwritten", s.version&versionExtFlag != 0)
	add("ci", s.caseInsensitive())
	add("attr2", s.crc || s.features2&features2Attr2 != 0)
	add("lazy-count", s.crc || s.features2&features2LazyCount != 0)
	add("projid32bit", s.crc || s.features2&features2ProjID32 != 0)
	add("crc", s.crc)
	add("ftype", s.ftype)
	for i, name := range []string{"finobt", "rmapbt", "reflink", "inobtcount"} {
		add(name, s.roCompat>>i&1 != 0)
	}
	if more := s.roCompat &^ (roFinobt | roRmapbt | roReflink | roInobtCounts); more != 0 {
		names = append(names, fmt.Sprintf("ro_compat=%#x", more))
	}
	for i, name := range strings.Fields("ftype sparse meta_uuid bigtime needsrepair nrext64 exchange parent metadir zoned zone_gaps") {
		add(name, i > 0 && s.incompat>>i&1 != 0)
	}
	return names
}

func (s *superblock) caseInsensitive() bool { return s.version&versionCI != 0 }
