// Package ext4 reads ext2, ext3 and ext4 without mounting them, with all features that mke2fs can set. Changes that are only in
// the journal are shown; the file system is not changed.
package ext4

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/outsight-vmi/outsight/disk"
)

// Metadata is read in pieces of this size, and so many of them are kept: 16 MiB.
const (
	cachePage  = 64 << 10
	cachePages = 256
)

const rootInode = 2

// An FS is an open file system. It may be used by several goroutines.
type FS struct {
	*super
	device  disk.Device // with what the journal has
	newest  disk.Device // device, with what is newer of metadata
	meta    *disk.Cache // of newest
	journal *journal
}

// Open opens the file system that a device begins with. The error wraps disk.ErrUnknown if it has none of this kind, and disk.ErrUnsupported if
// it has a feature that is not read.
func Open(d disk.Device) (*FS, error) {
	return OpenNewer(d, func(d disk.Device) disk.Device { return d })
}

// OpenNewer is Open for who knows of blocks that are newer than what is on the device and in the journal: the kernel that has the file system
// mounted, which keeps metadata in the page cache of the block device. newer lays them over what it is given, and is asked for
// metadata alone: a block of data may have been metadata before, and its old bytes be there still.
func OpenNewer(d disk.Device, newer func(disk.Device) disk.Device) (*FS, error) {
	s, err := readSuper(d)
	if err != nil {
		return nil, err
	}
	f := &FS{super: s}
	f.over(d, d)
	if s.compat&compatHasJournal != 0 && s.journalInode != 0 {
		if f.journal, err = readJournal(f); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if len(f.journal.blocks) > 0 {
			d = f.journal.over(d)
		}
	}
	f.over(d, newer(d))
	if f.super, err = readSuper(f.newest); err != nil {
		return nil, fmt.Errorf("as the journal has it: %w", err)
	}
	if f.blockSize != s.blockSize {
		return nil, &disk.CorruptError{Format: "ext4", Offset: superOffset, What: "the journal has a superblock with another block size"}
	}
	return f, nil
}

// over reads data from one device and metadata from another.
func (f *FS) over(data, metadata disk.Device) {
	f.device, f.newest, f.meta = data, metadata, disk.NewCache(metadata, cachePage, cachePages)
}

func readSuper(d disk.Device) (*super, error) {
	b := make([]byte, superSize)
	if err := disk.ReadFull(d, b, superOffset); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("ext4: %w", disk.ErrUnknown)
		}
		return nil, err
	}
	return parseSuper(b)
}

// Info is what the file system says of itself.
func (f *FS) Info() disk.Info {
	info := disk.Info{
		Kind: f.kind(), Label: f.label, BlockSize: f.blockSize, Size: int64(f.blocks) * f.blockSize,
		Inodes: f.inodes, Features: f.features(),
		UUID: fmt.Sprintf("%x-%x-%x-%x-%x", f.uuid[:4], f.uuid[4:6], f.uuid[6:8], f.uuid[8:10], f.uuid[10:]),
	}
	if f.free <= f.blocks {
		info.Used = int64(f.blocks-f.free) * f.blockSize
	}
	if f.state&2 != 0 {
		info.Notes = append(info.Notes, "the kernel has noted errors in it")
	}
	if info.Size > f.device.Size() {
		info.Notes = append(info.Notes, fmt.Sprintf("the device ends %d bytes before it", info.Size-f.device.Size()))
	}
	if f.journal != nil {
		info.Notes = append(info.Notes, f.journal.notes...)
		info.Elsewhere = f.journal.elsewhere
	} else if f.compat&compatHasJournal != 0 {
		info.Notes = append(info.Notes, "its journal is on another device: what is only in the journal is not shown")
	}
	return info
}

// Root is the root directory.
func (f *FS) Root() (disk.Node, error) { return f.Node(rootInode) }

// Node reads an inode.
func (f *FS) Node(number uint64) (disk.Node, error) {
	n, err := f.node(number)
	if err != nil {
		return nil, err
	}
	if n.stat.Links == 0 {
		used, err := f.used(number)
		if err != nil {
			return nil, err
		}
		n.settle(used)
	}
	return n, nil
}

// used says that an inode is in use.
func (f *FS) used(number uint64) (bool, error) {
	g, err := f.group((number - 1) / uint64(f.inodesPerGroup))
	if err != nil || g.flags&inodesUninitialised != 0 {
		return false, err
	}
	i := (number - 1) % uint64(f.inodesPerGroup)
	var b [1]byte
	if err := disk.ReadFull(f.meta, b[:], int64(g.inodeBitmap)*f.blockSize+int64(i/8)); err != nil {
		return false, fmt.Errorf("ext4: bitmap of inode %d: %w", number, err)
	}
	return b[0]>>(i%8)&1 != 0, nil
}

// blockView is a block of metadata, which is not to be changed.
func (f *FS) blockView(block uint64) ([]byte, error) {
	return f.meta.View(int64(block)*f.blockSize, int(f.blockSize))
}

// group is what a group descriptor says.
type group struct {
	inodeBitmap, inodeTable uint64
	flags                   uint16
	unusedInodes            uint32
}

const inodesUninitialised = 1 // EXT4_BG_INODE_UNINIT

func (f *FS) group(number uint64) (group, error) {
	perBlock := uint64(f.blockSize / f.descSize)
	at := int64(f.descriptorBlock(number/perBlock))*f.blockSize + int64(number%perBlock)*f.descSize
	n := min(f.descSize, 64)
	b, err := f.meta.View(at, int(n))
	if err != nil {
		return group{}, fmt.Errorf("ext4: descriptor of group %d: %w", number, err)
	}
	g := group{
		inodeBitmap: uint64(le.Uint32(b[4:])), inodeTable: uint64(le.Uint32(b[8:])),
		flags: le.Uint16(b[0x12:]), unusedInodes: uint32(le.Uint16(b[0x1c:])),
	}
	if n == 64 {
		g.inodeBitmap |= uint64(le.Uint32(b[0x24:])) << 32
		g.inodeTable |= uint64(le.Uint32(b[0x28:])) << 32
		g.unusedInodes |= uint32(le.Uint16(b[0x32:])) << 16
	}
	if f.ro&(roGDTCsum|roMetadataCsum) == 0 { // the flags have no meaning then
		g.flags, g.unusedInodes = 0, 0
	}
	if g.inodeTable >= f.blocks || g.inodeBitmap >= f.blocks {
		return group{}, &disk.CorruptError{Format: "ext4", Offset: at, What: fmt.Sprintf("group %d has its inodes beyond the end", number)}
	}
	return g, nil
}

// Nodes are all inodes that are in use, and those that were deleted and whose remains are legible.
func (f *FS) Nodes() iter.Seq2[disk.Node, error] {
	return func(yield func(disk.Node, error) bool) {
		bitmap := make([]byte, (f.inodesPerGroup+7)/8)
		for number := range f.groups {
			g, err := f.group(number)
			if err == nil && g.flags&inodesUninitialised == 0 {
				err = disk.ReadFull(f.meta, bitmap, int64(g.inodeBitmap)*f.blockSize)
			}
			if err != nil {
				// Behind the end of the device are no more: a damaged superblock may count 2³² groups.
				if !yield(nil, err) || errors.Is(err, io.ErrUnexpectedEOF) {
					return
				}
				continue
			}
			if g.flags&inodesUninitialised != 0 || g.unusedInodes >= f.inodesPerGroup {
				continue
			}
			for i := range f.inodesPerGroup - g.unusedInodes {
				inode := number*uint64(f.inodesPerGroup) + uint64(i) + 1
				if inode > f.inodes {
					return
				}
				used := bitmap[i/8]>>(i%8)&1 != 0
				n, err := f.node(inode)
				switch {
				case err != nil && !used:
					continue
				case err == nil && (n.stat.Mode == 0 || !used && n.dtime == 0):
					continue // never used, or reserved
				case err == nil:
					n.settle(used)
				}
				if err != nil {
					if !yield(nil, err) {
						return
					}
				} else if !yield(n, nil) {
					return
				}
			}
		}
	}
}
