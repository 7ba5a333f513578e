// Package stack finds what lies on a disk: the image's format, partitions, what they are joined to, and the file systems on all that.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/nbd"
	"github.com/outsight-vmi/outsight/disk/partition"
	"github.com/outsight-vmi/outsight/disk/qcow2"
)

// Options are how an image is opened.
type Options struct {
	// Folders are those whose files an image may name as its backing or data file, beside its own folder. "/" allows all.
	Folders []string
	// With are images of other disks of the machine: parts of volume groups and arrays may be on them.
	With []string
	// Format is that of the image: "raw", "qcow2", or one that qemu-nbd reads ("vmdk", "vhdx", "vpc", "vdi", "parallels"); "": as the image
	// begins. Whoever writes to a raw image can make it begin as any other.
	Format string
	// Snapshot is the ID or name of a snapshot in the image, which is opened instead of the disk as it is.
	Snapshot string
}

// A Disk is an open image with what lies on it.
type Disk struct {
	// Format is of the image: "raw", "qcow2", "vmdk" …; "" for a device.
	Format string
	// Scheme is how the disk is divided.
	Scheme  partition.Scheme
	Size    int64 // in bytes
	Volumes []*Volume
	// Notes are for people: what is not in order with the image or its partition table.
	Notes []string

	closers []io.Closer
}

// A Volume is a device on a disk that has something on it.
type Volume struct {
	// Name is unique: "disk" for a disk as a whole, "p2" for a partition, "md/NAME" for an array, "GROUP/NAME" for a logical volume; what is on
	// the nth disk has "n:" in front, from the second on.
	Name string
	// Offset is where it begins on its disk, in bytes; -1 if it is not in one piece.
	Offset int64
	// Partition is set for what is in one.
	Partition *partition.Partition
	Device    disk.Device
	// Content is what is on it, in the usual words; "": unknown.
	Content string
	// FS is its file system, if that can be read.
	FS disk.FileSystem
	// Err is why it cannot.
	Err error
}

// Open opens an image and finds what lies on it. That something on it cannot be read is no error, but one of its volume.
func Open(ctx context.Context, path string, o Options) (*Disk, error) {
	d := &Disk{Format: Raw}
	device, err := d.open(ctx, path, o)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.Size = device.Size()
	devices := []disk.Device{device}
	others := o
	others.Snapshot, others.Format = "", ""
	for _, path := range o.With {
		other, err := d.beside(ctx, path, others)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		devices = append(devices, other)
	}
	d.find(devices)
	return d, nil
}

// Over finds what lies on disks that are open, the first of which is the one that is meant. They stay the caller's.
func Over(devices ...disk.Device) *Disk {
	d := &Disk{}
	if len(devices) > 0 {
		d.Size = devices[0].Size()
	}
	d.find(devices)
	return d
}

// Owns has Close close something else, too.
func (d *Disk) Owns(c io.Closer) { d.closers = append(d.closers, c) }

// Close closes the image, and what it is based on.
func (d *Disk) Close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// beside opens another disk of the machine.
func (d *Disk) beside(ctx context.Context, path string, o Options) (disk.Device, error) {
	other := &Disk{}
	device, err := other.open(ctx, path, o)
	d.closers = append(d.closers, other.closers...)
	for _, note := range other.Notes {
		d.Notes = append(d.Notes, path+": "+note)
	}
	return device, err
}

// Formats are those of images that Open knows.
func Formats() []string { return append([]string{Raw, "qcow2"}, nbd.Formats()...) }

// Raw is the format of an image that is the bytes of the disk.
const Raw = "raw"

func (d *Disk) open(ctx context.Context, path string, o Options) (disk.Device, error) {
	if o.Format == "" || o.Format == "qcow2" {
		q, err := qcow2.OpenFile(path, qcow2.Policy{Folders: o.Folders})
		switch {
		case err == nil:
			return d.qcow2(q, o)
		case o.Format != "" || !errors.Is(err, disk.ErrUnknown):
			return nil, err
		}
	}
	f, err := disk.OpenFile(path)
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, f)
	format := o.Format
	if format != Raw {
		begins, err := nbd.Format(f) // which refuses what names other files
		switch {
		case err != nil:
			return nil, err
		case format != "" && format != begins:
			return nil, fmt.Errorf("%s does not begin as an image of format %s", path, format)
		}
		format = begins
	}
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%s is no qcow2 image, and has no snapshots that can be read", path)
	}
	if format == "" || format == Raw {
		return f, nil
	}
	return d.served(ctx, f, format)
}

func (d *Disk) qcow2(q *qcow2.Image, o Options) (disk.Device, error) {
	d.Format = "qcow2"
	d.closers = append(d.closers, q)
	d.Notes = append(d.Notes, q.Info().Notes...)
	if o.Snapshot == "" {
		return q, nil
	}
	s, err := q.Snapshot(o.Snapshot)
	if err != nil {
		return nil, err
	}
	return q.At(s)
}

// served opens an image through qemu-nbd, which gets the file that was looked at.
func (d *Disk) served(ctx context.Context, f *disk.File, format string) (disk.Device, error) {
	s, err := nbd.Serve(ctx, f.File(), format)
	if err != nil {
		return nil, err
	}
	d.Format = format
	d.closers = append(d.closers, s)
	return s, nil
}

// Volume finds the volume of that name, label or UUID, whose file system can be read. Without a name it is the one that has what a system's
// root directory has, or the only one.
func (d *Disk) Volume(name string) (*Volume, error) {
	var readable []*Volume
	for _, v := range d.Volumes {
		if name != "" && v.is(name) {
			if v.FS == nil {
				return nil, v.unreadable()
			}
			return v, nil
		}
		if v.FS != nil {
			readable = append(readable, v)
		}
	}
	switch {
	case name != "":
		return nil, fmt.Errorf("no volume %q: there are %s", name, d.names(d.Volumes))
	case len(readable) == 1:
		return readable[0], nil
	case len(readable) == 0:
		return nil, d.nothing()
	}
	var roots []*Volume
	for _, v := range readable {
		if v.isRoot() {
			roots = append(roots, v)
		}
	}
	if len(roots) != 1 {
		return nil, fmt.Errorf("there are several file systems: name one of %s", d.names(readable))
	}
	return roots[0], nil
}

func (v *Volume) is(name string) bool {
	if v.Name == name {
		return true
	}
	if p := v.Partition; p != nil && (name == p.Name && p.Name != "" || strings.EqualFold(name, p.UUID) && p.UUID != "") {
		return true
	}
	if v.FS == nil {
		return false
	}
	info := v.FS.Info()
	return info.Label == name || strings.EqualFold(info.UUID, name)
}

// isRoot says that it has directories that every system's root has.
func (v *Volume) isRoot() bool {
	for _, name := range []string{"/etc", "/usr"} {
		n, err := disk.Lookup(v.FS, name, true)
		if err != nil || n.Stat().Type() != disk.TypeDir {
			return false
		}
	}
	return true
}

func (v *Volume) unreadable() error {
	if v.Err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, v.Err)
	}
	return fmt.Errorf("volume %s: no known file system", v.Name)
}

// nothing says why no file system can be read.
func (d *Disk) nothing() error {
	var errs []error
	for _, v := range d.Volumes {
		errs = append(errs, v.unreadable())
	}
	if len(errs) == 0 {
		return errors.New("the disk is empty")
	}
	return fmt.Errorf("no file system that can be read: %w", errors.Join(errs...))
}

func (d *Disk) names(all []*Volume) string {
	var names []string
	for _, v := range all {
		names = append(names, v.Name)
	}
	return strings.Join(names, ", ")
}
