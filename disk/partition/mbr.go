package partition

import (
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/disk"
)

const (
	entriesAt  = 446 // in a boot sector
	entrySize  = 16
	maxLogical = 256 // partitions of a disk, as in Linux
	maxLinks   = 100 // between logical ones that follow each other without a partition, as in Linux

	protective = 0xee
)

// boot is the first sector of a disk, or of a part of an extended partition.
type boot struct {
	valid      bool // it is like an MBR
	protective bool // it says that the disk has a GPT
	hybrid     bool // … beside partitions of its own
	signature  uint32
	entries    [4]entry
}

type entry struct {
	active      bool
	kind        byte
	start, size uint32 // in sectors
}

func (e entry) used() bool { return e.size != 0 && e.kind != 0 }

func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func (b boot) used() bool {
	for _, e := range b.entries {
		if e.used() {
			return true
		}
	}
	return false
}

func parseBoot(s []byte) boot {
	var b boot
	signed := s[510] == 0x55 && s[511] == 0xaa
	b.valid = signed
	b.signature = binary.LittleEndian.Uint32(s[440:])
	others := 0
	for n := range b.entries {
		e := s[entriesAt+n*entrySize:]
		if e[0]&0x7f != 0 {
			b.valid = false // a boot sector with code there, as FAT has it
		}
		b.entries[n] = entry{e[0] != 0, e[4], binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])}
		switch {
		case e[4] == protective && b.entries[n].start == 1:
			b.protective = true
		case b.entries[n].used() && e[4] != protective:
			others++
		}
	}
	b.protective = b.protective && signed
	b.hybrid = b.protective && others > 0
	return b
}

// An mbrReader collects the partitions of a disk.
type mbrReader struct {
	*Table
	d         disk.Device
	signature uint32
	next      int // the number of the next logical partition
}

func readMBR(d disk.Device, b boot, sector int64) (*Table, error) {
	r := mbrReader{&Table{Scheme: MBR, UUID: fmt.Sprintf("%#08x", b.signature), SectorSize: sector}, d, b.signature, 5}
	for n, e := range b.entries {
		if e.used() {
			r.add(n+1, 0, e)
		}
	}
	for _, e := range b.entries {
		if e.used() && e.extended() {
			if err := r.chain(int64(e.start), int64(e.size)); err != nil {
				return nil, err
			}
		}
	}
	r.look(d.Size())
	return r.Table, nil
}

func (r *mbrReader) add(number int, base int64, e entry) {
	p := Partition{
		Number: number, Type: fmt.Sprintf("%#02x", e.kind), TypeName: mbrTypes[e.kind], UUID: fmt.Sprintf("%08x-%02x", r.signature, number),
		Start: (base + int64(e.start)) * r.SectorSize, Size: int64(e.size) * r.SectorSize, Container: e.extended(),
	}
	if e.active {
		p.Flags = []string{"active"}
	}
	r.Partitions = append(r.Partitions, p)
}

// chain follows the logical partitions of an extended one, as parse_extended in Linux's block/partitions/msdos.c: each has
// a sector with itself and a link to the next one.
func (r *mbrReader) chain(first, size int64) error {
	seen := map[int64]bool{}
	for at, links := first, 0; ; {
		switch {
		case seen[at]:
			r.note("the logical partitions come back to sector %d, and end there", at)
			return nil
		case r.next > maxLogical || links > maxLinks:
			r.note("the disk has more than %d logical partitions: those after them are left out", r.next-5)
			return nil
		}
		seen[at] = true
		s, err := readSector(r.d, at, r.SectorSize)
		if err != nil {
			return err
		}
		if s == nil || s[510] != 0x55 || s[511] != 0xaa {
			r.note("sector %d, which should have a logical partition, has none", at)
			return nil
		}
		links++
		next := int64(0)
		for n, e := range parseBoot(s).entries {
			switch {
			case !e.used():
			case e.extended():
				if next == 0 {
					next = int64(e.start) + first
				}
			case n >= 2 && !within(at, int64(e.start), int64(e.size), first, size):
				// what some systems leave in the last two is not meant
			case r.next <= maxLogical:
				r.add(r.next, at, e)
				r.next++
				links = 0
			}
		}
		if next == 0 {
			return nil
		}
		at = next
	}
}

// within reports whether a partition that a sector has is in the extended one.
func within(at, start, length, first, size int64) bool {
	return start+length <= size && at+start >= first && at+start+length <= first+size
}
