package md

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/outsight-vmi/outsight/disk"
)

// As in include/uapi/linux/raid/md_p.h and drivers/md/md.c of Linux 6.12.
const (
	sector = 512
	magic  = 0xa92b4efc

	size090, size1, most1 = 4096, 256, 4096 // bytes of superblocks
	maxMembers            = 1920            // roles that fit into a superblock of version 1
	maxSectors            = 1 << 52
)

// Levels.
const (
	linear = -1
	raid0  = 0
	raid1  = 1
)

// Features of version 1.
const (
	recoveryOffset = 1 << 1
	reshape        = 1 << 2
	badBlocks      = 1 << 3
	replacement    = 1 << 4
	newOffset      = 1 << 6
)

// Roles from here on are no places in the array.
const (
	roleJournal = 0xfffd
	roleFaulty  = 0xfffe
	roleSpare   = 0xffff
)

// super is a superblock, with sizes in bytes.
type super struct {
	version, uuid, name string
	level               int32
	members             int // that the array has
	chunk               int64
	size                int64 // of RAID 1: of what a member has of the array
	start, length       int64 // what the member has for data
	events              uint64
	role                int
	roles               []int // of all members, by their numbers
	rebuilt             bool  // it has all data
	reshaped            bool  // the array was being given another shape
	bad                 int   // ranges that the kernel knows it cannot read
}

func corrupt(offset int64, format string, args ...any) error {
	return &disk.CorruptError{Format: "md", Offset: offset, What: fmt.Sprintf(format, args...)}
}

// readSuper finds a superblock where one of the versions has it.
func readSuper(d disk.Device) (*super, error) {
	sectors := d.Size() / sector
	end0, end1 := sectors&^127-128, (sectors-16)&^7
	var damage error
	for _, place := range []struct {
		version string
		at      int64 // sectors
	}{{"1.2", 8}, {"1.1", 0}, {"1.0", end1}, {"0.90", end0}} {
		if place.at < 0 || place.at >= sectors {
			continue
		}
		var s *super
		var err error
		if place.version == "0.90" {
			s, err = read090(d, place.at*sector)
		} else {
			s, err = read1(d, place.at, place.version)
		}
		switch {
		case err == nil:
			return s, nil
		case !errors.Is(err, disk.ErrUnknown) && damage == nil:
			damage = err // another version may be in order
		}
	}
	if damage != nil {
		return nil, damage
	}
	return nil, fmt.Errorf("md: %w: no superblock where versions 0.90, 1.0, 1.1 and 1.2 have it", disk.ErrUnknown)
}

// read reads what is at a place and begins as a superblock.
func read(d disk.Device, at int64, size int) ([]byte, error) {
	b := make([]byte, size)
	n, err := d.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("md: %w", err)
	}
	if n < 8 || binary.LittleEndian.Uint32(b) != magic {
		if n >= 8 && binary.BigEndian.Uint32(b) == magic {
			return nil, fmt.Errorf("md: %w: a superblock of a big-endian machine", disk.ErrUnsupported)
		}
		return nil, disk.ErrUnknown
	}
	return b[:n], nil
}

// sum adds up a superblock as the kernel does.
func sum(b []byte) uint32 {
	var total uint64
	for ; len(b) >= 4; b = b[4:] {
		total += uint64(binary.LittleEndian.Uint32(b))
	}
	if len(b) == 2 {
		total += uint64(binary.LittleEndian.Uint16(b))
	}
	return uint32(total) + uint32(total>>32)
}

// checked compares the checksum that is at a place, and counts as 0.
func checked(b []byte, at int, offset int64) error {
	want := binary.LittleEndian.Uint32(b[at:])
	clear(b[at : at+4])
	if got := sum(b); got != want {
		return corrupt(offset, "a superblock with checksum %#08x, and not %#08x as it says", got, want)
	}
	return nil
}

func read1(d disk.Device, at int64, version string) (*super, error) {
	b, err := read(d, at*sector, most1)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if len(b) < size1 || le.Uint32(b[4:]) != 1 || le.Uint64(b[144:]) != uint64(at) {
		return nil, disk.ErrUnknown // a superblock of another place: what was here before
	}
	devices := le.Uint32(b[220:])
	if devices > maxMembers || size1+int(devices)*2 > len(b) {
		return nil, corrupt(at*sector, "a superblock with the roles of %d devices", devices)
	}
	b = b[:size1+devices*2]
	if err := checked(b, 216, at*sector); err != nil {
		return nil, err
	}
	s := &super{
		version: version, uuid: fmt.Sprintf("%08x:%08x:%08x:%08x", b[16:20], b[20:24], b[24:28], b[28:32]), name: text(b[32:64]),
		level: int32(le.Uint32(b[72:])), members: int(le.Uint32(b[92:])), chunk: int64(le.Uint32(b[88:])) * sector,
		events: le.Uint64(b[200:]), role: roleSpare, rebuilt: true,
	}
	features := le.Uint32(b[8:])
	s.reshaped = features&(reshape|newOffset) != 0
	for n := range int(devices) {
		s.roles = append(s.roles, int(le.Uint16(b[size1+n*2:])))
	}
	if number := le.Uint32(b[160:]); number < devices {
		s.role = s.roles[number]
	}
	if features&recoveryOffset != 0 && le.Uint64(b[152:]) != math.MaxUint64 {
		s.rebuilt = false
	}
	if features&replacement != 0 {
		s.role = roleSpare // it is being made the copy of another
	}
	for _, f := range []struct {
		to *int64
		at int
	}{{&s.size, 80}, {&s.start, 128}, {&s.length, 136}} {
		v := le.Uint64(b[f.at:])
		if v > maxSectors {
			return nil, corrupt(at*sector, "a superblock that says %#x sectors", v)
		}
		*f.to = int64(v) * sector
	}
	if features&badBlocks != 0 {
		s.bad, err = bad(d, at+int64(int32(le.Uint32(b[188:]))), int64(le.Uint16(b[186:])))
	}
	return s, err
}

// bad counts the ranges that a log of bad blocks has.
func bad(d disk.Device, at, sectors int64) (int, error) {
	const most = 8 // sectors that the kernel uses
	if at < 0 || sectors == 0 {
		return 0, nil
	}
	b := make([]byte, min(sectors, most)*sector)
	if err := disk.ReadFull(d, b, at*sector); err != nil {
		return 0, fmt.Errorf("md: bad blocks: %w", err)
	}
	count := 0
	for ; len(b) >= 8; b = b[8:] {
		switch v := binary.LittleEndian.Uint64(b); {
		case v == math.MaxUint64:
			return count, nil
		case v&0x3ff != 0:
			count++
		}
	}
	return count, nil
}

func read090(d disk.Device, at int64) (*super, error) {
	b, err := read(d, at, size090)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	word := func(n int) uint32 { return le.Uint32(b[n*4:]) }
	if len(b) < size090 || word(1) != 0 || word(2) < 90 || word(2) > 91 {
		return nil, disk.ErrUnknown
	}
	if err := checked(b, 38*4, at); err != nil {
		return nil, err
	}
	s := &super{
		version: "0.90", uuid: fmt.Sprintf("%08x:%08x:%08x:%08x", word(5), word(13), word(14), word(15)),
		level: int32(word(7)), members: int(word(10)), chunk: int64(word(65)), size: int64(word(8)) << 10,
		length: at, events: uint64(word(40))<<32 | uint64(word(39)), role: roleSpare, rebuilt: true,
		reshaped: word(2) == 91,
	}
	const (
		disks, words, most = 128, 32, 27
		this               = 992
		faulty, inSync     = 1 << 0, 1 << 2
	)
	for n := range most {
		role, state := word(disks+n*words+3), word(disks+n*words+4)
		switch {
		case state&faulty != 0 || state&inSync == 0:
			role = roleFaulty
		case role >= most:
			role = roleSpare
		}
		s.roles = append(s.roles, int(role))
	}
	if number := word(this); number < most {
		s.role = s.roles[number]
	}
	return s, nil
}

// text is a string that ends at a 0.
func text(b []byte) string {
	for n, c := range b {
		if c == 0 {
			return string(b[:n])
		}
	}
	return string(b)
}
