package archive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
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
	return w.cpio(bufio.NewReaderSize(p, 64<<10))
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

const (
	cpioHeader  = 110
	cpioNew     = "070701"
	cpioCRC     = "070702"
	cpioTrailer = "TRAILER!!!"
	maxCPIOName = 4096 // PATH_MAX
	modeType    = 0o170000
	modeRegular = 0o100000
)

// cpio visits the files of a cpio archive in the "new ASCII" format (cpio(5)).
func (w *walker) cpio(r io.Reader) error {
	var h [cpioHeader]byte
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return damaged(err) // there must be a trailer
		}
		mode, size, length, err := cpioFields(h[:])
		if err != nil {
			return err
		}
		name := make([]byte, length+(4-(cpioHeader+length)%4)%4)
		if _, err := io.ReadFull(r, name); err != nil {
			return damaged(err)
		}
		if name[length-1] != 0 {
			return fmt.Errorf("%w: a name in the archive has no end", ErrDamaged)
		}
		name = name[:length-1]
		if string(name) == cpioTrailer {
			return nil
		}
		if err := w.entry(); err != nil {
			return err
		}
		content := &cpioContent{r: r, n: size}
		if mode&modeType == modeRegular && size > 0 {
			if err := w.file(string(name), size, content); err != nil {
				return err
			}
		}
		if _, err := io.CopyN(io.Discard, r, content.n+(4-size%4)%4); err != nil {
			return damaged(err)
		}
	}
}

// cpioFields reads the fields of a header that matter.
func cpioFields(h []byte) (mode, size, nameLength int64, err error) {
	if m := string(h[:6]); m != cpioNew && m != cpioCRC {
		// 07070X: sizes are in the RPM header, for files of 4 GiB and more.
		return 0, 0, 0, fmt.Errorf("%w: cpio archive of format %q", ErrDamaged, m)
	}
	field := func(i int) int64 {
		v, e := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
		err = errors.Join(err, e)
		return int64(v)
	}
	mode, size, nameLength = field(1), field(6), field(11)
	if err != nil || nameLength < 1 || nameLength > maxCPIOName {
		return 0, 0, 0, fmt.Errorf("%w: invalid header in the cpio archive", ErrDamaged)
	}
	return mode, size, nameLength, nil
}

// cpioContent is the content of a file. Unlike an [io.LimitedReader] it does not end where
// the archive was cut off.
type cpioContent struct {
	r io.Reader
	n int64
}

func (c *cpioContent) Read(p []byte) (int, error) {
	if c.n == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.n)])
	c.n -= int64(n)
	if errors.Is(err, io.EOF) && c.n > 0 {
		err = damaged(io.ErrUnexpectedEOF)
	}
	return n, err
}
