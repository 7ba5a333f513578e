package file

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// What a file can be instead of a dump.
var (
	ErrDirectory  = errors.New("it is a directory, not a memory dump: name a file in it")
	ErrNotRegular = errors.New("it is not a regular file, and a memory dump is one")
	ErrEmpty      = errors.New("the file is empty: the dump was not written, or not finished")
)

// File is a regular file: a [Source], [Slicer] and [Sparse].
type File struct {
	f    *os.File
	size uint64
	data []byte // mapping of all of f, for small reads; nil: unavailable

	once sync.Once
	runs []run // parts of f that are not holes

	window residency
}

type run struct{ start, end uint64 }

// Open opens the file at path. It does not wait for the other end of a named pipe.
func Open(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	d, err := New(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// New makes a File of an open file, which it takes over.
func New(f *os.File) (*File, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case st.IsDir():
		return nil, ErrDirectory
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%w: it is %s", ErrNotRegular, kindOf(st.Mode()))
	case st.Size() == 0:
		return nil, ErrEmpty
	case st.Size() > math.MaxInt:
		return nil, fmt.Errorf("%d bytes are too many", st.Size())
	}
	d := &File{f: f, size: uint64(st.Size())}
	// Optional: without it every read is a pread.
	d.data, _ = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_NORESERVE)
	d.window.init(d.data)
	return d, nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case m&fs.ModeCharDevice != 0:
		return "a character device"
	case m&fs.ModeDevice != 0:
		return "a block device"
	}
	return "of an unknown kind"
}

// Size implements [Source]: what it was when the file was opened.
func (f *File) Size() uint64 { return f.size }

// Close implements [Source]. Slices must not be used any more.
func (f *File) Close() error {
	var err error
	if f.data != nil {
		err = unix.Munmap(f.data)
		f.data = nil
	}
	return errors.Join(err, f.f.Close())
}

// ReadAt implements [Source]. Small reads come from the mapping (no system call),
// large ones, as of a scan, through pread (nothing stays resident).
func (f *File) ReadAt(p []byte, off int64) (n int, err error) {
	if len(p) < phys.PageSize && off >= 0 && uint64(off) < uint64(len(f.data)) && uint64(len(p)) <= uint64(len(f.data))-uint64(off) && !f.window.lone(uint64(off)) {
		defer phys.Recover(debug.SetPanicOnFault(true), &err)
		f.window.touch(uint64(off), uint64(len(p)))
		return copy(p, f.data[off:]), nil
	}
	n, err = f.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) && n < len(p) && uint64(off)+uint64(len(p)) <= f.size {
		return n, fmt.Errorf("the file was cut short: %w", phys.ErrGone)
	}
	return n, err
}

// sliceMax is the longest slice that is handed out, in bytes. Longer ones are what
// scans ask for.
const sliceMax = phys.PageSize

// Slice implements [Slicer].
func (f *File) Slice(off uint64, n int) ([]byte, bool) {
	if size := uint64(len(f.data)); n < 0 || n > sliceMax || off > size || uint64(n) > size-off {
		return nil, false
	}
	f.window.touch(off, uint64(n))
	return f.data[off : off+uint64(n) : off+uint64(n)], true
}

// Word reads the little-endian word at off.
func (f *File) Word(off uint64) (v uint64, err error) {
	if size := uint64(len(f.data)); off > size || 8 > size-off || f.window.lone(off) {
		var b [8]byte
		n, err := unix.Pread(int(f.f.Fd()), b[:], int64(off))
		if err == nil && n < len(b) {
			err = fmt.Errorf("the file was cut short: %w", phys.ErrGone)
		}
		return binary.LittleEndian.Uint64(b[:]), err
	}
	f.window.touch(off, 8)
	return binary.LittleEndian.Uint64(f.data[off:]), nil
}

// NextData implements [Sparse].
func (f *File) NextData(off uint64) (start, end uint64, ok bool) {
	f.once.Do(func() { f.runs = dataRuns(f.f, f.size) })
	i, _ := slices.BinarySearchFunc(f.runs, off, func(r run, off uint64) int {
		if r.end <= off {
			return -1
		}
		return 1
	})
	if i == len(f.runs) {
		return 0, 0, false
	}
	return max(off, f.runs[i].start), f.runs[i].end, true
}

// maxRuns bounds the list of runs; what follows counts as one.
const maxRuns = 1 << 16

// dataRuns lists the parts of f that are not holes.
func dataRuns(f *os.File, size uint64) (runs []run) {
	for off := int64(0); off < int64(size); {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return runs
		}
		end := int64(size)
		if err != nil || len(runs) == maxRuns {
			start = off
		} else if e, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE); err == nil && e > start {
			end = e
		}
		runs = append(runs, run{uint64(start), uint64(end)})
		off = end
	}
	return runs
}
