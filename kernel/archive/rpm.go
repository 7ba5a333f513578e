package archive

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// An RPM package is a lead of fixed size, a header of signatures, a header of metadata, and
// a packed cpio archive (docs/manual/format_v4.md of rpm). Of the headers only the size
// matters: how the payload is packed it says itself.

const (
	rpmMagic     = "\xed\xab\xee\xdb"
	rpmLead      = 96
	rpmHeader    = 16        // its magic, 4 bytes reserved, the number of entries, the size of their data
	rpmIndex     = 16        // of an entry
	maxRPMHeader = 256 << 20 // RPM's own limit
	rpmStart     = "\x8e\xad\xe8\x01"
)

func (w *walker) rpm(r io.ReaderAt, size int64) error {
	at := int64(rpmLead)
	for i := range 2 {
		n, err := rpmHeaderSize(r, at, size)
		if err != nil {
			return err
		}
		if at += n; i == 0 {
			at = (at + 7) &^ 7 // the signatures are padded
		}
	}
	if at > size {
		return fmt.Errorf("%w: it ends before its payload", ErrDamaged)
	}
	p, err := w.payload(io.NewSectionReader(r, at, size-at))
	if err != nil {
		return err
	}
	defer p.Close()
	return CPIO(bufio.NewReaderSize(p, 64<<10), func(int64) error { return w.entry() }, w.file)
}

// rpmHeaderSize is the size of the header at at.
func rpmHeaderSize(r io.ReaderAt, at, size int64) (int64, error) {
	var h [rpmHeader]byte
	if at > size-rpmHeader {
		return 0, fmt.Errorf("%w: it ends before its header at %#x", ErrDamaged, at)
	}
	if _, err := r.ReadAt(h[:], at); err != nil {
		return 0, fmt.Errorf("read the package: %w", err)
	}
	entries, data := int64(binary.BigEndian.Uint32(h[8:])), int64(binary.BigEndian.Uint32(h[12:]))
	n := rpmHeader + rpmIndex*entries + data
	if string(h[:4]) != rpmStart || n > maxRPMHeader || n > size-at {
		return 0, fmt.Errorf("%w: invalid header of %d bytes at %#x", ErrDamaged, n, at)
	}
	return n, nil
}
