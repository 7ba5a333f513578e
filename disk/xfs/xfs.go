// Package xfs reads XFS file systems, of version 4 and 5, without mounting them. It knows the format from its
// documentation ("XFS Algorithms & Data Structures") and follows Linux 6.18 where that is silent.
//
// Nothing is believed: what the device says is bounded before it is used, every list and tree has an end, and a structure
// that contradicts the format is a [disk.CorruptError] in its place, not the end of the walk.
package xfs

import (
	"fmt"
	"sync"

	"github.com/outsight-vmi/outsight/disk"
)

const format = "xfs"

// FS is an XFS file system on a device. It may be used by several goroutines.
type FS struct {
	dev       disk.Device
	sb        superblock
	cache     *cache
	notes     []string
	elsewhere []string

	once  sync.Once // for used and inodes
	used  int64
	inode uint64
}

var _ disk.FileSystem = (*FS)(nil)

// Open reads the superblock of a file system, and its log. A device that does not begin with XFS's magic is disk.ErrUnknown; an
// error that wraps disk.ErrUnsupported names the feature that is not read.
func Open(dev disk.Device) (*FS, error) { return open(dev, false) }

// open may be blind to checksums, so that what they protect can be tested.
func open(dev disk.Device, blind bool) (*FS, error) {
	var first [maxSector]byte
	n := min(int64(len(first)), dev.Size())
	if n < minSector {
		return nil, fmt.Errorf("xfs: %w: %d bytes are too few for a superblock", disk.ErrUnknown, n)
	}
	if err := disk.ReadFull(dev, first[:n], 0); err != nil {
		return nil, fmt.Errorf("xfs: %w", err)
	}
	fs := &FS{dev: dev}
	if err := fs.sb.parse(first[:n]); err != nil {
		return nil, err
	}
	if err := fs.sb.check(dev.Size()); err != nil {
		return nil, err
	}
	fs.noteSuperblock(first[:n])
	fs.cache = newCache(dev, fs.sb.bytes(), int64(fs.sb.blockSize))
	fs.cache.blind = blind
	fs.useLog()
	return fs, nil
}

// useLog lets the log count from here on.
func (fs *FS) useLog() {
	overlay := fs.replayLog()
	if len(overlay) == 0 {
		return
	}
	sb, size := fs.sb, fs.sb.bytes()
	if first, ok := overlay[0]; ok { // it may have grown
		if err := sb.parse(first); err == nil && sb.check(fs.dev.Size()) == nil && sb.blockSize == fs.sb.blockSize {
			fs.sb, size = sb, sb.bytes()
		} else {
			fs.note("the log has a superblock that cannot be used")
			delete(overlay, 0)
		}
	}
	blind := fs.cache.blind
	fs.cache = newCache(fs.dev, size, int64(fs.sb.blockSize)) // what the old one has is from before
	fs.cache.blind = blind
	fs.cache.overlay = overlay
}

func (fs *FS) noteSuperblock(first []byte) {
	if fs.sb.crc && !sumIsRight(first[:fs.sb.sectorSize], superCRC) {
		fs.notes = append(fs.notes, "the superblock's checksum is wrong")
	}
	if size, have := fs.sb.bytes(), fs.dev.Size(); have < size {
		fs.notes = append(fs.notes, fmt.Sprintf("the device ends %d bytes before the file system does", size-have))
	}
	if fs.sb.incompat&incompatNeedsRepair != 0 {
		fs.notes = append(fs.notes, "the file system is marked as in need of xfs_repair")
	}
	if fs.sb.inProgress {
		fs.notes = append(fs.notes, "the file system was never completed by mkfs.xfs or xfs_copy")
	}
	if fs.sb.logStart == 0 {
		fs.notes = append(fs.notes, "the log is on another device: changes in it are not shown")
	}
	if fs.sb.rtBlocks != 0 {
		fs.notes = append(fs.notes, "files on the realtime device are not read")
	}
}

// Info says what the superblock does. What is in use is counted in the headers of the allocation groups, as the superblock's
// own counters are only right after the file system was unmounted.
func (fs *FS) Info() disk.Info {
	fs.once.Do(fs.count)
	return disk.Info{
		Kind:      format,
		Label:     fs.sb.label,
		UUID:      fs.sb.uuid.String(),
		BlockSize: int64(fs.sb.blockSize),
		Size:      fs.sb.bytes(),
		Used:      fs.used,
		Inodes:    fs.inode,
		Features:  fs.sb.features(),
		Notes:     fs.notes,
		Elsewhere: fs.elsewhere,
	}
}

// Root is the root directory.
func (fs *FS) Root() (disk.Node, error) { return fs.Node(fs.sb.rootInode) }

func corrupt(offset int64, what string, args ...any) error {
	return &disk.CorruptError{Format: format, Offset: offset, What: fmt.Sprintf(what, args...)}
}

func unsupported(what string, args ...any) error {
	return fmt.Errorf("xfs: %w: %s", disk.ErrUnsupported, fmt.Sprintf(what, args...))
}
