package ext4

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/disk"
)

// Inode flags.
const (
	flagCompressed = 0x4
	flagImmutable  = 0x10
	flagAppend     = 0x20
	flagEncrypted  = 0x800
	flagHugeFile   = 0x40000
	flagExtents    = 0x80000
	flagVerity     = 0x100000
	flagInline     = 0x10000000
	flagCasefold   = 0x40000000
)

// A node is an inode, as it was when it was read.
type node struct {
	fs     *FS
	stat   disk.Stat
	flags  uint32
	block  [60]byte // i_block: where the content is, or the content itself
	acl    uint64   // block of extended attributes
	dtime  uint32   // when it was deleted, or the next orphan
	offset int64    // of the inode, on the device
	extra  []byte   // what is behind the inode's fixed part: attributes
}

const firstNormalInode = 11

func (f *FS) node(number uint64) (*node, error) {
	if number == 0 || number > f.inodes {
		return nil, fmt.Errorf("ext4: inode %d: there are %d", number, f.inodes)
	}
	in := (number - 1) / uint64(f.inodesPerGroup)
	g, err := f.group(in)
	if err != nil {
		return nil, err
	}
	n := &node{fs: f}
	n.offset = int64(g.inodeTable)*f.blockSize + int64((number-1)%uint64(f.inodesPerGroup))*f.inodeSize
	raw, err := f.meta.View(n.offset, int(f.inodeSize))
	if err != nil {
		return nil, fmt.Errorf("ext4: inode %d: %w", number, err)
	}
	n.parse(raw, number)
	return n, nil
}

func (n *node) parse(raw []byte, number uint64) {
	u16 := func(at int) uint16 { return le.Uint16(raw[at:]) }
	u32 := func(at int) uint32 { return le.Uint32(raw[at:]) }
	s := &n.stat
	s.Inode = number
	s.Mode = uint32(u16(0))
	s.UID = uint32(u16(2)) | uint32(u16(0x78))<<16
	s.GID = uint32(u16(0x18)) | uint32(u16(0x7a))<<16
	s.Links = uint32(u16(0x1a))
	s.Generation = u32(0x64)
	n.flags = u32(0x20)
	n.dtime = u32(0x14)
	copy(n.block[:], raw[0x28:])
	n.acl = uint64(u32(0x68)) | uint64(u16(0x76))<<32
	size := uint64(u32(4))
	if t := s.Type(); t == disk.TypeRegular || t == disk.TypeDir || t == disk.TypeLink {
		size |= uint64(u32(0x6c)) << 32 // of others, and of directories of old, it is i_dir_acl
	}
	if size > 1<<62 {
		size = 1 << 62
	}
	s.Size = int64(size)
	s.Blocks = int64(u32(0x1c))
	if n.fs.ro&roHugeFile != 0 {
		s.Blocks |= int64(u16(0x74)) << 32
		if n.flags&flagHugeFile != 0 {
			s.Blocks *= n.fs.blockSize / 512
		}
	}
	// Times: 32 bits of seconds, and from 256 bytes on two more and nanoseconds.
	extra := 0
	if len(raw) > 128 {
		extra = int(u16(0x80))
		if extra > len(raw)-128 {
			extra = 0
		}
	}
	at := func(seconds, more int) time.Time {
		t := int64(int32(u32(seconds)))
		var nanoseconds int64
		if more+4 <= 128+extra {
			t += int64(u32(more)&3) << 32
			nanoseconds = int64(u32(more) >> 2)
		}
		return time.Unix(t, nanoseconds)
	}
	s.Accessed, s.Changed, s.Modified = at(8, 0x8c), at(0xc, 0x84), at(0x10, 0x88)
	if 0x98 <= 128+extra {
		s.Born = at(0x90, 0x94)
	}
	if 0xa0 <= 128+extra {
		s.Project = u32(0x9c)
	}
	if extra > 0 && 128+extra+4 <= len(raw) {
		n.extra = raw[128+extra:]
	}
	for _, f := range []struct {
		bit  uint32
		flag disk.Flags
	}{
		{flagImmutable, disk.Immutable},
		{flagAppend, disk.AppendOnly},
		{flagEncrypted, disk.Encrypted},
		{flagVerity, disk.Verity},
		{flagCasefold, disk.Casefolded},
		{flagInline, disk.Inline},
		{flagCompressed, disk.Compressed},
	} {
		if n.flags&f.bit != 0 {
			s.Flags |= f.flag
		}
	}
	if t := s.Type(); t == disk.TypeChar || t == disk.TypeBlock {
		s.Major, s.Minor = device(le.Uint32(n.block[:]), le.Uint32(n.block[4:]))
	}
	if s.Links == 0 && s.Mode != 0 && number >= firstNormalInode {
		s.Flags |= disk.Unlinked
	}
}

// settle says, of an inode that is in no directory, whether it is still in use: the bitmap knows.
func (n *node) settle(used bool) {
	if used {
		return
	}
	n.stat.Flags &^= disk.Unlinked
	n.stat.Deleted = time.Unix(int64(n.dtime), 0)
}

// device decodes a device's number: the short form of old, or the long one.
func device(short, long uint32) (major, minor uint32) {
	if short != 0 {
		return short >> 8 & 0xff, short & 0xff
	}
	return long >> 8 & 0xfff, long&0xff | long>>12&0xfff00
}

func (n *node) Stat() disk.Stat { return n.stat }

func (n *node) errorf(format string, args ...any) error {
	err := fmt.Errorf("inode %d: "+format, append([]any{n.stat.Inode}, args...)...)
	return &disk.CorruptError{Format: "ext4", Offset: n.offset, What: err.Error(), Err: errors.Unwrap(err)}
}

// Content is what is in a regular file.
func (n *node) Content() (disk.Content, error) {
	switch {
	case n.stat.Type() != disk.TypeRegular:
		return nil, fmt.Errorf("ext4: inode %d is no regular file", n.stat.Inode)
	case n.flags&flagEncrypted != 0:
		return nil, fmt.Errorf("ext4: inode %d is encrypted: %w", n.stat.Inode, disk.ErrUnsupported)
	case n.flags&flagCompressed != 0:
		return nil, fmt.Errorf("ext4: inode %d is compressed (e2compr): %w", n.stat.Inode, disk.ErrUnsupported)
	}
	return n.content()
}

// maxTarget is the longest target that Linux makes: a page.
const maxTarget = 4096

// Target is where a symbolic link leads.
func (n *node) Target() (string, error) {
	switch {
	case n.stat.Type() != disk.TypeLink:
		return "", fmt.Errorf("ext4: inode %d is no symbolic link", n.stat.Inode)
	case n.flags&flagEncrypted != 0:
		return "", fmt.Errorf("ext4: the target of inode %d is encrypted: %w", n.stat.Inode, disk.ErrUnsupported)
	case n.stat.Size > maxTarget:
		return "", n.errorf("a symbolic link of %d bytes", n.stat.Size)
	case n.stat.Size < int64(len(n.block)) && n.flags&(flagExtents|flagInline) == 0:
		return string(n.block[:n.stat.Size]), nil
	}
	c, err := n.content()
	if err != nil {
		return "", err
	}
	c.from = n.fs.newest // Linux keeps it as metadata (since 5.19)
	b := make([]byte, n.stat.Size)
	if err := disk.ReadFull(c, b, 0); err != nil {
		return "", fmt.Errorf("ext4: target of inode %d: %w", n.stat.Inode, err)
	}
	return string(b), nil
}

// Attributes are the extended attributes, those in the inode first.
func (n *node) Attributes() iter.Seq2[disk.Attribute, error] {
	return func(yield func(disk.Attribute, error) bool) {
		for a, err := range n.attributes() {
			if err == nil && (a.index == indexSystem && a.name == "data" || a.index == indexEncryption) {
				continue // the file system's own
			}
			shown := disk.Attribute{Name: attributeName(a.index, a.name)}
			if err == nil {
				shown.Value, err = n.value(a)
			}
			if !yield(shown, err) {
				return
			}
		}
	}
}
