package kdump

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/phys/file"
)

// Signature is what a kdump file begins with.
const Signature = "KDUMP   "

// header is what the two headers of a file say (diskdump_mod.h of makedumpfile;
// offsets are those of 64-bit machines).
type header struct {
	level                uint32
	pages                uint64 // one more than the highest
	bitmaps, bitmapSize  uint64 // in bytes
	descs                uint64
	infoOffset, infoSize uint64
	noteOffset, noteSize uint64
	incomplete           bool
	machine              string // of the kernel's utsname; "": unknown
}

const (
	mainSize = 464 // of the main header without the task pointers
	subSize  = 104 // of the sub header, version 6
)

// Status bits (DUMP_DH_…).
const statusIncomplete = 8

func readHeader(src file.Source) (*header, error) {
	var b [mainSize]byte
	if err := file.ReadFull(src, b[:], 0); err != nil {
		return nil, fmt.Errorf("header of the kdump file: %w", err)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	version, status, block := u32(8), u32(424), u32(428)
	switch {
	case string(b[:8]) != Signature:
		return nil, errors.New("not a kdump file")
	case version < 1 || version > 1<<16:
		return nil, errors.New("a kdump file of a big-endian machine, another architecture than x86-64")
	case block != pageSize:
		return nil, fmt.Errorf("a kdump file with pages of %d bytes, not %d: it is of another architecture than x86-64 (its header names %q)", block, pageSize, utsMachine(b[12:402]))
	}
	subBlocks, bitmapBlocks := uint64(u32(432)), uint64(u32(436))
	h := &header{
		pages:      uint64(u32(440)),
		bitmaps:    (1 + subBlocks) * pageSize,
		bitmapSize: bitmapBlocks * pageSize,
		descs:      (1 + subBlocks + bitmapBlocks) * pageSize,
		incomplete: status&statusIncomplete != 0,
		machine:    utsMachine(b[12:402]),
	}
	if subBlocks > 0 {
		if err := h.readSub(src, version); err != nil {
			return nil, err
		}
	}
	if h.pages > maxPages {
		return nil, fmt.Errorf("a kdump file of %d pages", h.pages)
	}
	return h, nil
}

func (h *header) readSub(src file.Source, version uint32) error {
	var b [subSize]byte
	if err := file.ReadFull(src, b[:], pageSize); err != nil {
		return fmt.Errorf("second header of the kdump file: %w", err)
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	h.level = binary.LittleEndian.Uint32(b[8:])
	if version >= 2 && binary.LittleEndian.Uint32(b[12:]) != 0 {
		return errors.New("one of several files that a kdump was split into: join them with makedumpfile --reassemble")
	}
	if version >= 3 {
		h.infoOffset, h.infoSize = u64(32), u64(40)
	}
	if version >= 4 {
		h.noteOffset, h.noteSize = u64(48), u64(56)
	}
	if version >= 6 {
		h.pages = u64(96)
	}
	return nil
}

// utsMachine is the machine in a struct new_utsname, "" if it is not text.
func utsMachine(b []byte) string {
	const field, machine = 65, 4
	b = b[machine*field : (machine+1)*field]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return ""
}
