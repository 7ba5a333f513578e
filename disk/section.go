package disk

import (
	"fmt"
	"io"
)

// Section is a part of a device, as a partition is.
func Section(d Device, offset, size int64) (Device, error) {
	if offset < 0 || size < 0 || offset > d.Size() || size > d.Size()-offset {
		return nil, fmt.Errorf("disk: %d bytes at %#x are not within the %d bytes of the device", size, offset, d.Size())
	}
	return io.NewSectionReader(d, offset, size), nil
}

// ReadFull reads all of p from a device. That a device ends before is io.ErrUnexpectedEOF.
func ReadFull(d io.ReaderAt, p []byte, offset int64) error {
	n, err := d.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %#x: %w", len(p), offset, err)
}
