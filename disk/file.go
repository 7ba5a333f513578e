package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A File is a file or block device of the host as a Device. It may grow while it is read: ReadAt gives what is there then,
// and Size what was when it was opened.
type File struct {
	f    *os.File
	size int64
}

// OpenFile opens a regular file or block device for reading.
func OpenFile(name string) (*File, error) {
	// A FIFO would wait for somebody who writes.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	d, err := NewFile(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// NewFile makes a Device of an open file, which Close closes. What is neither a regular file nor a block device is an error.
func NewFile(f *os.File) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("disk: %w", err)
	}
	if t := info.Mode().Type(); t != 0 && t != fs.ModeDevice {
		return nil, fmt.Errorf("disk: %s is neither a regular file nor a block device (%s)", f.Name(), info.Mode())
	}
	size, err := f.Seek(0, io.SeekEnd) // Stat does not know the size of block devices
	if err != nil {
		return nil, fmt.Errorf("disk: size of %s: %w", f.Name(), err)
	}
	return &File{f: f, size: size}, nil
}

// ReadAt reads as io.ReaderAt has it.
func (f *File) ReadAt(p []byte, offset int64) (int, error) { return f.f.ReadAt(p, offset) }

// Size is what the file or device had when it was opened, in bytes.
func (f *File) Size() int64 { return f.size }

// Name is the path that it was opened by.
func (f *File) Name() string { return f.f.Name() }

// File is the open file itself, for who hands it on. It stays the Device's.
func (f *File) File() *os.File { return f.f }

// Stat is what the host knows of the file.
func (f *File) Stat() (fs.FileInfo, error) { return f.f.Stat() }

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
