// Package disk has what a machine's disks are made of: devices, which are runs of bytes, and file systems, which are read
// without being mounted. Packages below it know one format each; disk/stack puts them on each other. Nothing here
// writes, and nothing that a disk says is believed: whoever wrote it may want to harm its reader.
package disk

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// A Device is a run of bytes: a disk, a partition, a logical volume. ReadAt beyond its end gives io.EOF. It may be used by
// several goroutines.
type Device interface {
	io.ReaderAt
	Size() int64
}

// ErrUnsupported is wrapped by errors that name a feature of a format that is not read. Nothing of such a
// thing is guessed.
var ErrUnsupported = errors.New("unsupported")

// ErrUnknown says that a device does not begin as the format would.
var ErrUnknown = errors.New("unknown format")

// A CorruptError is a place at which a structure contradicts its format.
type CorruptError struct {
	Format string // "ext4", "qcow2", …
	Offset int64  // in bytes, on the device; -1 if it has no place of its own
	What   string
	Err    error // what lies behind it, if anything does
}

func (e *CorruptError) Unwrap() error { return e.Err }

func (e *CorruptError) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("%s: %s", e.Format, e.What)
	}
	return fmt.Sprintf("%s: %s at byte %#x", e.Format, e.What, e.Offset)
}

// A FileSystem is one that is on a device.
type FileSystem interface {
	Info() Info
	Root() (Node, error)
	// Node reads an inode by its number.
	Node(number uint64) (Node, error)
	// Nodes are all inodes that are in use, and those that were and still have something to say (Stat.Deleted), in the
	// order of their numbers.
	Nodes() iter.Seq2[Node, error]
}

// Info is what a file system says of itself.
type Info struct {
	Kind      string // "ext4", "xfs", …
	Label     string
	UUID      string
	BlockSize int64 // in bytes
	Size      int64 // in bytes
	Used      int64 // in bytes, as far as it is written down
	Inodes    uint64
	Features  []string // in the words of the file system's own tools
	// Elsewhere says what is shown as it is not in its place on the device: changes in the journal, or in memory.
	Elsewhere []string
	// Notes are what people should know: damage, and what cannot be shown.
	Notes []string
}

// A Node is a file, directory, link, device … of a file system. What it was read as does not change.
type Node interface {
	Stat() Stat
	// Entries are what is in a directory, without "." and "..".
	Entries() iter.Seq2[Entry, error]
	// Content is what is in a regular file.
	Content() (Content, error)
	// Target is where a symbolic link leads.
	Target() (string, error)
	// Attributes are the extended attributes.
	Attributes() iter.Seq2[Attribute, error]
}

// Type bits of Stat.Mode, as in Linux's st_mode.
const (
	TypeMask    = 0o170000
	TypeFIFO    = 0o010000
	TypeChar    = 0o020000
	TypeDir     = 0o040000
	TypeBlock   = 0o060000
	TypeRegular = 0o100000
	TypeLink    = 0o120000
	TypeSocket  = 0o140000
)

// Stat is what a file system knows of an inode.
type Stat struct {
	Inode      uint64
	Generation uint32
	Mode       uint32 // as in Linux's st_mode
	UID, GID   uint32
	Project    uint32
	Links      uint32
	Size       int64 // in bytes
	Blocks     int64 // of 512 bytes, what it occupies
	// Major and Minor are of a device.
	Major, Minor uint32
	// Times that the format does not have are zero.
	Accessed, Modified, Changed, Born time.Time
	// Deleted is when it was deleted; zero for what is in use.
	Deleted time.Time
	Flags   Flags
}

// Type is the type bits of the mode.
func (s Stat) Type() uint32 { return s.Mode & TypeMask }

// Flags are what matters of an inode's flags, whatever the file system numbers them.
type Flags uint32

// The flags.
const (
	Immutable Flags = 1 << iota
	AppendOnly
	Encrypted  // its content, or the names in it, are not readable without a key
	Verity     // its content is protected by fs-verity
	Casefolded // names in it match whatever their case
	Inline     // its content is in the inode
	Compressed
	Unlinked // it is in no directory, and open: it goes when it is closed
)

var flagNames = []string{"immutable", "append", "encrypted", "verity", "casefold", "inline", "compressed", "unlinked"}

// Names are the names of the flags that are set.
func (f Flags) Names() []string {
	var names []string
	for i, name := range flagNames {
		if f>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return names
}

// An Entry is a name in a directory.
type Entry struct {
	Name  string // any bytes but '/' and 0
	Inode uint64
	// Type is as in Stat.Mode; 0 if the directory does not say it.
	Type uint32
}

// ValidName says whether a directory can have a name: on a disk that somebody has made up it may be a path.
func ValidName(name string) bool { return name != "" && !strings.ContainsAny(name, "/\x00") }

// An Attribute is an extended attribute, with its name as Linux shows it ("security.capability").
type Attribute struct {
	Name  string
	Value []byte
}

// Content is the bytes of a file. It may be used by several goroutines.
type Content interface {
	io.ReaderAt
	Size() int64
	// Extents are where its bytes are on the device, in order, holes left out.
	Extents() iter.Seq2[Extent, error]
}

// An Extent is a run of a file's bytes.
type Extent struct {
	Logical  int64 // in bytes, in the file
	Physical int64 // in bytes, on the device; -1 if it is not at a place of its own (inline, compressed)
	Length   int64 // in bytes
	// Unwritten says that it is allocated, and reads as zeroes.
	Unwritten bool
	// Memory says that its bytes come from the memory of the guest, which may not have written them to the device yet.
	Memory bool
}
