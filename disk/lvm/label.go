package lvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/outsight-vmi/outsight/disk"
)

// As in lib/format_text/layout.h and lib/label/label.h of LVM2. Everything is little-endian.
const (
	sector     = 512 // bytes; also what sizes are counted in, whatever the device has
	labels     = 4   // sectors that may have the label
	labelMagic = "LABELONE"
	labelType  = "LVM2 001"
	areaMagic  = " LVM2 x[5A%r0N*>"

	maxAreas    = 16
	maxMetadata = 16 << 20 // bytes; what is usual is 1 MiB for all copies
	ignored     = 1        // of a place of metadata: it is not used
)

// label is what a physical volume begins with.
type label struct {
	uuid  string
	size  int64  // bytes
	areas []area // of metadata
}

type area struct{ offset, size int64 } // in bytes

// checksum is LVM's: a CRC-32 that begins with a number of its own, and is not inverted.
func checksum(b []byte) uint32 {
	const initial = 0xf597a6cf
	return ^crc32.Update(^uint32(initial), crc32.IEEETable, b)
}

func corrupt(offset int64, format string, args ...any) error {
	return &disk.CorruptError{Format: "lvm", Offset: offset, What: fmt.Sprintf(format, args...)}
}

func readLabel(d disk.Device) (*label, error) {
	var buffer [labels * sector]byte
	n, err := d.ReadAt(buffer[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("lvm: %w", err)
	}
	for at := 0; at+sector <= n; at += sector {
		b := buffer[at : at+sector]
		if string(b[:8]) != labelMagic || string(b[24:32]) != labelType {
			continue
		}
		le := binary.LittleEndian
		if where := le.Uint64(b[8:]); where != uint64(at/sector) {
			return nil, corrupt(int64(at), "a label that says it is at sector %d", where)
		}
		if want, got := le.Uint32(b[16:]), checksum(b[20:]); got != want {
			return nil, corrupt(int64(at), "a label with checksum %#08x, and not %#08x as it says", got, want)
		}
		return parseLabel(b, int64(at))
	}
	return nil, fmt.Errorf("lvm: %w: no \"LABELONE\" in its first sectors", disk.ErrUnknown)
}

func parseLabel(b []byte, at int64) (*label, error) {
	le := binary.LittleEndian
	offset := le.Uint32(b[20:])
	if offset < 32 || offset > sector-40 {
		return nil, corrupt(at, "a label whose content is at %d", offset)
	}
	b = b[offset:]
	l := &label{uuid: formatUUID(b[:32]), size: int64(le.Uint64(b[32:]))}
	b = b[40:]
	for lists := 0; lists < 2; { // areas of data, which the metadata repeats, and areas of metadata
		if len(b) < 16 {
			return nil, corrupt(at, "lists of areas without an end")
		}
		a := area{int64(le.Uint64(b)), int64(le.Uint64(b[8:]))}
		b = b[16:]
		switch {
		case a.offset == 0:
			lists++
		case lists == 1 && len(l.areas) < maxAreas:
			l.areas = append(l.areas, a)
		}
	}
	return l, nil
}

// formatUUID writes one as LVM's tools do.
func formatUUID(b []byte) string {
	s := string(b)
	return s[0:6] + "-" + s[6:10] + "-" + s[10:14] + "-" + s[14:18] + "-" + s[18:22] + "-" + s[22:26] + "-" + s[26:32]
}

// metadata reads the text that an area has; nil: it has none.
func (a area) metadata(d disk.Device) ([]byte, error) {
	if a.offset < 0 || a.size < 2*sector || a.offset > d.Size() || a.size > d.Size()-a.offset {
		return nil, corrupt(a.offset, "an area of metadata of %d bytes, and the device has %d: it was cut off", a.size, d.Size())
	}
	h := make([]byte, sector)
	if err := disk.ReadFull(d, h, a.offset); err != nil {
		return nil, fmt.Errorf("lvm: %w", err)
	}
	le := binary.LittleEndian
	if string(h[4:20]) != areaMagic {
		return nil, corrupt(a.offset, "an area of metadata that does not begin as one")
	}
	if want, got := le.Uint32(h), checksum(h[4:]); got != want {
		return nil, corrupt(a.offset, "an area of metadata with checksum %#08x, and not %#08x as it says", got, want)
	}
	if version := le.Uint32(h[20:]); version != 1 {
		return nil, fmt.Errorf("lvm: %w: metadata areas of version %d", disk.ErrUnsupported, version)
	}
	if start := le.Uint64(h[24:]); start != uint64(a.offset) {
		return nil, corrupt(a.offset, "an area of metadata that says it is at %#x", start)
	}
	place := h[40:] // the first place has what is committed
	offset, size, sum, flags := int64(le.Uint64(place)), int64(le.Uint64(place[8:])), le.Uint32(place[16:]), le.Uint32(place[20:])
	if offset == 0 || flags&ignored != 0 {
		return nil, nil
	}
	if offset < sector || offset >= a.size || size <= 0 || size > min(a.size-sector, maxMetadata) {
		return nil, corrupt(a.offset, "%d bytes of metadata at %#x of an area of %d", size, offset, a.size)
	}
	text := make([]byte, size)
	first := min(size, a.size-offset)
	if err := disk.ReadFull(d, text[:first], a.offset+offset); err != nil {
		return nil, fmt.Errorf("lvm: %w", err)
	}
	if err := disk.ReadFull(d, text[first:], a.offset+sector); err != nil { // it goes on where the area begins
		return nil, fmt.Errorf("lvm: %w", err)
	}
	if got := checksum(text); got != sum {
		return nil, corrupt(a.offset+offset, "metadata with checksum %#08x, and not %#08x as its area says", got, sum)
	}
	return text, nil
}

// newest is the newest metadata of a device; nil: it has none. That other copies are damaged is in the notes.
func (l *label) newest(d disk.Device) (newest *group, notes []string, err error) {
	for _, a := range l.areas {
		text, failed := a.metadata(d)
		if failed == nil && text == nil {
			continue
		}
		var g *group
		if failed == nil {
			g, failed = parseGroup(text)
		}
		switch {
		case failed != nil:
			err = errors.Join(err, failed)
		case newest == nil || g.sequence > newest.sequence:
			newest = g
		}
	}
	if newest != nil && err != nil {
		notes, err = append(notes, fmt.Sprintf("a copy of the metadata on physical volume %s is damaged: %v", l.uuid, err)), nil
	}
	return newest, notes, err
}
