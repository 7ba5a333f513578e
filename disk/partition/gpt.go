package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/outsight-vmi/outsight/disk"
)

// As in the UEFI specification 2.10, 5.3. Everything is little-endian.
const (
	gptMagic   = "EFI PART"
	gptHeader  = 92      // bytes
	maxEntries = 4 << 20 // bytes; what is usual are 16 KiB
)

// gpt is one of the two copies.
type gpt struct {
	sector      int64  // bytes
	at          uint64 // this header, in sectors
	other       uint64 // the other one
	first, last uint64 // sectors that partitions may have
	guid        string
	entriesAt   uint64
	count, size uint32
	entriesCRC  uint32
	entries     []byte
}

// readGPT gives nil if there is none. Linux takes a GPT for one if the MBR protects it.
func readGPT(d disk.Device, boot boot, sizes []int64) (*Table, error) {
	var damage error // of the first copy
	for _, size := range sizes {
		g, err := readCopy(d, size, 1)
		if err == nil {
			return g.primary(d, boot), nil
		}
		var broken *disk.CorruptError
		if errors.As(err, &broken) {
			damage = err
		} else if !errors.Is(err, disk.ErrUnknown) {
			return nil, err
		}
	}
	if !boot.protective && (damage == nil || boot.valid && boot.used()) {
		return nil, nil // a copy at the end is of what the disk was before
	}
	for _, size := range sizes {
		g, err := readCopy(d, size, uint64(d.Size()/size-1))
		if err == nil {
			t := g.table(d)
			if damage == nil {
				damage = errors.New("it is not there")
			}
			t.Notes = append([]string{fmt.Sprintf("the GPT at the start of the disk is damaged (%v): this is its copy from the end", damage)}, t.Notes...)
			return t, nil
		}
		var broken *disk.CorruptError
		if !errors.As(err, &broken) && !errors.Is(err, disk.ErrUnknown) {
			return nil, err
		}
	}
	if damage == nil {
		damage = &disk.CorruptError{Format: "gpt", Offset: -1, What: "the MBR says that there is a GPT, and neither its start nor its copy at the end of the disk is one"}
	}
	return nil, damage
}

// primary is the table of a first copy in order; nil if Linux would not take it.
func (g *gpt) primary(d disk.Device, boot boot) *Table {
	if !boot.protective && boot.valid && boot.used() {
		return nil // an MBR with partitions of its own: the GPT is what the disk had before
	}
	t := g.table(d)
	if !boot.protective {
		t.note("no MBR protects the GPT: Linux does not see these partitions")
	}
	if boot.hybrid {
		t.note("the MBR has partitions of its own beside the GPT")
	}
	switch backup, err := readCopy(d, g.sector, g.other); {
	case err != nil:
		t.note("the copy of the GPT is not in order: %v", err)
	case backup.entriesCRC != g.entriesCRC || backup.guid != g.guid:
		t.note("the copy of the GPT at sector %d has other partitions", g.other)
	case g.other != uint64(d.Size()/g.sector-1):
		t.note("the copy of the GPT is at sector %d, which is not the last one: the disk was made larger", g.other)
	}
	return t
}

func corrupt(sector int64, at uint64, format string, args ...any) error {
	return &disk.CorruptError{Format: "gpt", Offset: int64(at) * sector, What: fmt.Sprintf(format, args...)}
}

// readCopy reads the header at a sector, and its entries.
func readCopy(d disk.Device, sector int64, at uint64) (*gpt, error) {
	if at > uint64(maxSector) {
		return nil, fmt.Errorf("gpt: %w at sector %d", disk.ErrUnknown, at)
	}
	b, err := readSector(d, int64(at), sector)
	if err != nil {
		return nil, err
	}
	if len(b) < gptHeader || string(b[:8]) != gptMagic {
		return nil, fmt.Errorf("gpt: %w: no \"EFI PART\" at sector %d", disk.ErrUnknown, at)
	}
	le := binary.LittleEndian
	length := le.Uint32(b[12:])
	if length < gptHeader || int64(length) > sector {
		return nil, corrupt(sector, at, "a header of %d bytes", length)
	}
	crc := le.Uint32(b[16:])
	le.PutUint32(b[16:], 0)
	if got := crc32.ChecksumIEEE(b[:length]); got != crc {
		return nil, corrupt(sector, at, "a header with checksum %#08x, and not %#08x as it says", got, crc)
	}
	if version := le.Uint32(b[8:]); version>>16 != 1 {
		return nil, fmt.Errorf("gpt: %w: version %#x", disk.ErrUnsupported, version)
	}
	g := &gpt{
		sector: sector, at: le.Uint64(b[24:]), other: le.Uint64(b[32:]), first: le.Uint64(b[40:]), last: le.Uint64(b[48:]), guid: guid(b[56:]),
		entriesAt: le.Uint64(b[72:]), count: le.Uint32(b[80:]), size: le.Uint32(b[84:]), entriesCRC: le.Uint32(b[88:]),
	}
	if g.at != at {
		return nil, corrupt(sector, at, "a header that says it is at sector %d", g.at)
	}
	return g, g.readEntries(d)
}

func (g *gpt) readEntries(d disk.Device) error {
	if g.size < 128 || g.size&(g.size-1) != 0 || uint64(g.count)*uint64(g.size) > maxEntries {
		return corrupt(g.sector, g.at, "%d partition entries of %d bytes", g.count, g.size)
	}
	if g.entriesAt > uint64(maxSector) || int64(g.entriesAt)*g.sector > d.Size() {
		return corrupt(g.sector, g.at, "partition entries at sector %d, beyond the end of the disk", g.entriesAt)
	}
	g.entries = make([]byte, g.count*g.size)
	switch err := disk.ReadFull(d, g.entries, int64(g.entriesAt)*g.sector); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return corrupt(g.sector, g.at, "partition entries at sector %d, beyond the end of the disk", g.entriesAt)
	case err != nil:
		return fmt.Errorf("gpt: %w", err)
	}
	if got := crc32.ChecksumIEEE(g.entries); got != g.entriesCRC {
		return corrupt(g.sector, g.entriesAt, "partition entries with checksum %#08x, and not %#08x as their header says", got, g.entriesCRC)
	}
	return nil
}

func (g *gpt) table(d disk.Device) *Table {
	t := &Table{Scheme: GPT, UUID: g.guid, SectorSize: g.sector}
	le := binary.LittleEndian
	for n := range int(g.count) {
		e := g.entries[n*int(g.size):][:g.size]
		if [16]byte(e) == ([16]byte{}) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if first > last || last > uint64(maxSector) {
			t.note("partition %d goes from sector %d to %d: it is left out", n+1, first, last)
			continue
		}
		if first < g.first || last > g.last {
			t.note("partition %d goes from sector %d to %d, outside of what the GPT has for partitions", n+1, first, last)
		}
		kind := guid(e)
		t.Partitions = append(t.Partitions, Partition{
			Number: n + 1, Name: name(e[56:128]), Type: kind, TypeName: gptTypes[kind], UUID: guid(e[16:]), Flags: flags(le.Uint64(e[48:])),
			Start: int64(first) * g.sector, Size: int64(last-first+1) * g.sector,
		})
	}
	t.look(d.Size())
	return t
}

// guid writes a GUID as Linux does.
func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func name(b []byte) string {
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return strings.ToValidUTF8(string(utf16.Decode(units)), "\ufffd")
}

// gptFlags are the common ones, and those of the Discoverable Partitions Specification.
var gptFlags = []struct {
	bit  uint
	name string
}{
	{0, "required"}, {1, "no-block-io"}, {2, "legacy-boot"}, {59, "grow-file-system"}, {60, "read-only"}, {62, "hidden"}, {63, "no-auto"},
}

func flags(bits uint64) []string {
	var names []string
	for _, f := range gptFlags {
		if bits>>f.bit&1 != 0 {
			names = append(names, f.name)
		}
		bits &^= 1 << f.bit
	}
	if bits != 0 {
		names = append(names, fmt.Sprintf("%#x", bits))
	}
	return names
}
