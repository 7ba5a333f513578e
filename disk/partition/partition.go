// Package partition reads how a disk is divided: by a GPT, by an MBR, or not at all. It does as Linux does, so that
// partitions have the numbers that they have in the guest, and says in notes what is not in order.
package partition

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/outsight-vmi/outsight/disk"
)

// Scheme is how a disk is divided.
type Scheme string

// The schemes.
const (
	GPT  Scheme = "gpt"
	MBR  Scheme = "mbr"
	None Scheme = "none" // the disk as a whole has something, or nothing
)

// A Table is how a disk is divided.
type Table struct {
	Scheme     Scheme
	UUID       string // of a GPT; of an MBR its signature, as in "0x1234abcd"
	SectorSize int64  // in bytes
	// Partitions are in the order of their numbers. It may be empty whatever the scheme is, and the disk then have a
	// file system as a whole: a boot sector looks like an MBR without partitions.
	Partitions []Partition
	// Notes are for people: a GPT that is damaged and was read from its copy, partitions that overlap.
	Notes []string
}

// A Partition is a part of a disk.
type Partition struct {
	Number   int    // as Linux counts
	Name     string // of a GPT
	Type     string // a GUID in small letters, or a number as in "0x83"
	TypeName string // in the words of sfdisk; "": unknown
	UUID     string // as Linux has it in /dev/disk/by-partuuid
	Flags    []string
	Start    int64 // in bytes
	Size     int64 // in bytes
	// Container says that it is an extended partition, which has logical ones and nothing of its own.
	Container bool
}

// Device is the partition on its disk. One that goes beyond the end of the disk ends there.
func (p Partition) Device(d disk.Device) (disk.Device, error) {
	if p.Start < 0 || p.Size < 0 || p.Start >= d.Size() {
		return nil, fmt.Errorf("partition %d: it begins at %#x, and the disk has %#x bytes", p.Number, p.Start, d.Size())
	}
	return disk.Section(d, p.Start, min(p.Size, d.Size()-p.Start))
}

const (
	smallSector, largeSector = 512, 4096 // bytes
	maxSector                = int64(1) << 50
)

// Read reads the partition table of a disk. Its sectors have 512 or 4096 bytes; 0: a GPT tells, and an MBR is taken for
// one of 512. That there is none is no error; a *disk.CorruptError is about a GPT whose copies are both damaged.
func Read(d disk.Device, sector int64) (*Table, error) {
	sizes := []int64{smallSector, largeSector}
	if sector != 0 {
		if !slices.Contains(sizes, sector) {
			return nil, fmt.Errorf("partition: %w: sectors of %d bytes", disk.ErrUnsupported, sector)
		}
		sizes = []int64{sector}
	}
	first, err := readSector(d, 0, smallSector)
	if err != nil {
		return nil, err
	}
	if first == nil {
		return &Table{Scheme: None, SectorSize: sizes[0]}, nil
	}
	boot := parseBoot(first)
	t, err := readGPT(d, boot, sizes)
	if t != nil || err != nil {
		return t, err
	}
	if !boot.valid {
		return &Table{Scheme: None, SectorSize: sizes[0]}, nil
	}
	if t, err = readMBR(d, boot, sizes[0]); err != nil {
		return nil, err
	}
	for _, size := range sizes {
		if _, err := readCopy(d, size, 1); err == nil {
			t.note("there is a GPT too: Linux does not look at it, because the MBR has partitions of its own")
		}
	}
	return t, nil
}

// readSector gives nil for one that is beyond the end.
func readSector(d disk.Device, number, size int64) ([]byte, error) {
	if number < 0 || number > maxSector || number*size+size > d.Size() {
		return nil, nil
	}
	b := make([]byte, size)
	err := disk.ReadFull(d, b, number*size)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("partition: %w", err)
	}
	return b, nil
}

func (t *Table) note(format string, args ...any) {
	const most = 32
	if len(t.Notes) < most {
		t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
	}
}

// look notes what is wrong with partitions that can be read.
func (t *Table) look(size int64) {
	var sorted []Partition
	for _, p := range t.Partitions {
		if p.Start+p.Size > size {
			t.note("partition %d ends at %#x, and the disk has %#x bytes", p.Number, p.Start+p.Size, size)
		}
		if !p.Container && p.Size > 0 {
			sorted = append(sorted, p)
		}
	}
	slices.SortStableFunc(sorted, func(a, b Partition) int { return int(min(max(a.Start-b.Start, -1), 1)) })
	for n := 1; n < len(sorted); n++ {
		if a, b := sorted[n-1], sorted[n]; a.Start+a.Size > b.Start {
			t.note("partitions %d and %d overlap", a.Number, b.Number)
		}
	}
}
