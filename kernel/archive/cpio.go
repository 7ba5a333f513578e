package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	cpioHeader  = 110
	cpioNew     = "070701"
	cpioCRC     = "070702"
	cpioTrailer = "TRAILER!!!"
	maxCPIOName = 4096 // PATH_MAX
	modeType    = 0o170000
	modeRegular = 0o100000
)

// CPIO visits the regular files of one cpio archive in the "new ASCII" format (cpio(5)), up to its
// trailer. entry is called for each entry of any kind, with the size of its content, and may end the
// walk: it keeps the budget. What is left of a file is passed over. Errors wrap [ErrDamaged], or are the caller's own.
func CPIO(r io.Reader, entry func(size int64) error, file func(name string, size int64, r io.Reader) error) error {
	var h [cpioHeader]byte
	var room [maxCPIOName + 4]byte
	for {
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return damaged(err) // there must be a trailer
		}
		mode, size, length, err := cpioFields(h[:])
		if err != nil {
			return err
		}
		name := room[:length+(4-(cpioHeader+length)%4)%4]
		if _, err := io.ReadFull(r, name); err != nil {
			return damaged(err)
		}
		if name[length-1] != 0 {
			return fmt.Errorf("%w: a name in the archive has no end", ErrDamaged)
		}
		name = bytes.TrimRight(name[:length], "\x00")
		if string(name) == cpioTrailer {
			return nil
		}
		if err := entry(size); err != nil {
			return err
		}
		content := &cpioContent{r: r, n: size}
		if mode&modeType == modeRegular && size > 0 {
			if err := file(string(name), size, content); err != nil {
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
