// Package qcow2 reads the disk images that QEMU writes as qcow2: versions 2 and 3, with clusters that are compressed
// (zlib and zstd), of zeroes or in subclusters, with backing files, external data files and internal snapshots. What an
// image does not hold itself, it names; the caller opens that (Options.Open), or lets OpenFile do it within a Policy.
//
// Reference counts are not read: nothing is written. An image that a running QEMU writes can be read too, as far as one
// can without asking QEMU: what is read of its tables is kept, so it may be as old as the Image.
package qcow2

import (
	"errors"
	"fmt"
	"io"

	"github.com/outsight-vmi/outsight/disk"
)

// An Image is a disk that is in a qcow2 image. It is a disk.Device, and may be used by several goroutines.
type Image struct {
	*core
	size  int64 // of the disk, in bytes
	table table // the L1 table
}

// core is what an image and its snapshots share.
type core struct {
	header
	device  disk.Device // the image file
	data    disk.Device // where clusters are: the image file, or an external one
	backing disk.Device // nil: none
	cache   *Cache
	notes   []string
	closers []io.Closer
}

// Options are how to open an image.
type Options struct {
	// Open opens what an image names. Without it an image that names a file is refused. If what it gives is an
	// io.Closer, Image.Close closes it.
	Open func(Reference) (disk.Device, error)
	// Cache is shared by images; nil: a new one of DefaultCache bytes.
	Cache *Cache
}

// Role is what an image needs a file for.
type Role string

// The roles.
const (
	Backing  Role = "backing file"
	DataFile Role = "data file"
)

// A Reference is a file that an image names.
type Reference struct {
	Role Role
	// Name is as the image has it: a path, relative to the folder of the image, or what else QEMU takes for a file
	// name ("json:…", "nbd://…"). It may be anything: whoever made the image wrote it.
	Name string
	// Format is of a backing file, as the image has it ("raw", "qcow2"); "": the image does not say it. Data files
	// are always "raw".
	Format string
}

// Open opens the image that is on a device. If that does not begin as one, the error is disk.ErrUnknown;
// disk.ErrUnsupported names a feature that is not read, and a *disk.CorruptError is about the header. The
// device stays the caller's, and is not closed by Image.Close.
func Open(d disk.Device, o Options) (*Image, error) {
	h, err := readHeader(d)
	if err != nil {
		return nil, err
	}
	c := &core{header: h, device: d, data: d, cache: o.Cache}
	if c.cache == nil {
		c.cache = NewCache(DefaultCache)
	}
	i := &Image{core: c, size: h.size, table: h.table}
	if err := c.check(i.table, i.size); err != nil {
		return nil, err
	}
	c.note()
	if err := c.openNamed(o.Open); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	return i, nil
}

func (c *core) note() {
	if c.incompatible&dirty != 0 {
		c.notes = append(c.notes, "the image was not closed, or is in use: its reference counts may be wrong, which reading does not need")
	}
	if c.incompatible&corrupt != 0 {
		c.notes = append(c.notes, "the image is marked as corrupt: QEMU does not write to it before it is repaired (qemu-img check -r all)")
	}
}

func (c *core) openNamed(open func(Reference) (disk.Device, error)) error {
	if c.incompatible&externalData != 0 {
		d, err := c.openOne(open, Reference{DataFile, c.dataFile, "raw"})
		if err != nil {
			return err
		}
		c.data = d
	}
	if c.backingFile != "" {
		d, err := c.openOne(open, Reference{Backing, c.backingFile, c.backingFormat})
		if err != nil {
			return err
		}
		c.backing = d
	}
	return nil
}

func (c *core) openOne(open func(Reference) (disk.Device, error), r Reference) (disk.Device, error) {
	if open == nil {
		return nil, fmt.Errorf("qcow2: the image needs its %s %q, and is opened without others", r.Role, r.Name)
	}
	d, err := open(r)
	if err != nil {
		return nil, fmt.Errorf("qcow2: %s %q: %w", r.Role, r.Name, err)
	}
	if closer, ok := d.(io.Closer); ok {
		c.closers = append(c.closers, closer)
	}
	return d, nil
}

// Close closes what Options.Open has opened. Disks of snapshots cannot be read after it either.
func (i *Image) Close() error {
	var errs []error
	for _, c := range i.closers {
		errs = append(errs, c.Close())
	}
	i.closers = nil
	return errors.Join(errs...)
}

// Size is the size of the disk in bytes.
func (i *Image) Size() int64 { return i.size }

// Info is what an image says of itself.
type Info struct {
	Version       int    // 2 or 3
	Size          int64  // of the disk, in bytes
	ClusterSize   int64  // in bytes
	Subclusters   bool   // extended L2 entries: a cluster has 32 parts
	Compression   string // of compressed clusters, if there are any: "zlib" or "zstd"
	BackingFile   string // as it is written; "": none
	BackingFormat string // "": not written
	// DataFile is the external data file as it is written; "": none, or one without a name.
	DataFile string
	// RawDataFile says that the data file is a raw image of the disk by itself.
	RawDataFile bool
	Snapshots   int // how many internal snapshots
	// Notes are for people: the image was not closed, is marked as corrupt, …
	Notes []string
}

// Info is what the image says of itself.
func (i *Image) Info() Info {
	return Info{
		Version: i.version, Size: i.size, ClusterSize: 1 << i.clusterBits, Subclusters: i.subclusters(),
		Compression: i.compression.String(), BackingFile: i.backingFile, BackingFormat: i.backingFormat,
		DataFile: i.dataFile, RawDataFile: i.autoclear&rawData != 0, Snapshots: int(i.snapshots), Notes: i.notes,
	}
}

func broken(offset int64, format string, args ...any) error {
	return &disk.CorruptError{Format: "qcow2", Offset: offset, What: fmt.Sprintf(format, args...)}
}
