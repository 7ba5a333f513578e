package kobj

import (
	"bytes"
	"fmt"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Reader reads words and strings and remembers the first error, so that a run of
// reads needs one check. After an error every answer is zero.
type Reader struct {
	Space *virt.Space
	Err   error // the first error; set it to nil to read on
	buf   []byte
	Left  int // how many reads it may still do
}

// readBudget bounds the reads of one listing: what is bounded for each process
// alone adds up to minutes for as many fake ones as fit into memory. A listing of
// 100,000 processes with 128 processors stays below it.
const readBudget = 64 << 20

// ErrBudget says that one listing has read as much as it may.
var ErrBudget = fmt.Errorf("%w: more than a healthy guest has", ErrBroken)

// Reader returns a reader with the budget of one listing.
func (s *Walker) Reader() Reader { return Reader{Space: s.Space, Left: readBudget} }

// may reports whether one more read may be done, and counts it.
func (r *Reader) may() bool {
	if r.Err != nil {
		return false
	}
	if r.Left--; r.Left < 0 {
		r.Left, r.Err = 0, ErrBudget
		return false
	}
	return true
}

// U64 reads a 64-bit number.
func (r *Reader) U64(a virt.Addr) uint64 {
	if !r.may() {
		return 0
	}
	var v uint64
	v, r.Err = r.Space.U64(a)
	return v
}

// Ptr reads a pointer.
func (r *Reader) Ptr(a virt.Addr) virt.Addr { return virt.Addr(r.U64(a)) }

// U32 reads a 32-bit number.
func (r *Reader) U32(a virt.Addr) uint32 {
	if !r.may() {
		return 0
	}
	var v uint32
	v, r.Err = r.Space.U32(a)
	return v
}

const minScratch = 256

// Scratch returns n bytes to read into, good until the next call. Large ones are not
// kept.
func (r *Reader) Scratch(n int) []byte {
	if n > phys.PageSize {
		return make([]byte, n)
	}
	if len(r.buf) < n { // most readers read short strings alone
		size := minScratch
		if n > size {
			size = phys.PageSize
		}
		r.buf = make([]byte, size)
	}
	return r.buf[:n]
}

// ReadInto fills p from a and reports whether it could; p is zero otherwise.
func (r *Reader) ReadInto(p []byte, a virt.Addr) bool {
	if r.may() {
		_, r.Err = r.Space.ReadAt(p, a)
	}
	if r.Err != nil {
		clear(p)
	}
	return r.Err == nil
}

// Bytes returns n bytes that are good until the next call.
func (r *Reader) Bytes(a virt.Addr, n int) []byte {
	b := r.Scratch(n)
	r.ReadInto(b, a)
	return b
}

// CString reads a string of at most limit bytes, page by page: what follows it
// may not be mapped. Of what follows it little is read: most strings are short, and what stands
// behind a name in its structure changes while the name does not.
func (r *Reader) CString(a virt.Addr, limit int) string {
	const short, long = 16, 64
	var out []byte
	for len(out) < limit && r.Err == nil {
		at, step := a+virt.Addr(len(out)), virt.Addr(short)
		if len(out) >= 2*short {
			step = long
		}
		n := min(limit-len(out), int(step-at%step)) // never over the end of a page
		b := r.Bytes(at, n)
		if i := bytes.IndexByte(b, 0); i >= 0 || r.Err != nil {
			return string(append(out, b[:max(i, 0)]...))
		}
		out = append(out, b...)
	}
	return string(out)
}

// NameAt reads the name at a, of at most 256 bytes; it is empty for no pointer.
func (r *Reader) NameAt(a virt.Addr) string {
	if a == 0 {
		return ""
	}
	return r.CString(a, 256)
}

// CString cuts b at its first NUL.
func CString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// Read runs read, which uses r, and returns the first error of its reads, with r fit for
// the next use unless its budget is spent.
func Read[T any](r *Reader, read func() T) (T, error) {
	v := read()
	err := r.Err
	if r.Left > 0 {
		r.Err = nil
	}
	return v, err
}
