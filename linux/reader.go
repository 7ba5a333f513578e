package linux

import (
	"bytes"
	"fmt"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// reader reads words and strings and remembers the first error, so that a run of
// reads needs one check. After an error every answer is zero.
type reader struct {
	space *virt.Space
	err   error
	buf   []byte
	left  int // how many reads it may still do
}

// readBudget bounds the reads of one listing: what is bounded for each process
// alone adds up to minutes for as many fake ones as fit into memory. A listing of
// 100,000 processes with 128 processors stays below it.
const readBudget = 64 << 20

// errBudget says that one listing has read as much as it may.
var errBudget = fmt.Errorf("%w: more than a healthy guest has", ErrBroken)

func (s *Walker) reader() reader { return reader{space: s.Space, left: readBudget} }

// may reports whether one more read may be done, and counts it.
func (r *reader) may() bool {
	if r.err != nil {
		return false
	}
	if r.left--; r.left < 0 {
		r.left, r.err = 0, errBudget
		return false
	}
	return true
}

func (r *reader) u64(a virt.Addr) uint64 {
	if !r.may() {
		return 0
	}
	var v uint64
	v, r.err = r.space.U64(a)
	return v
}

func (r *reader) ptr(a virt.Addr) virt.Addr { return virt.Addr(r.u64(a)) }

func (r *reader) u32(a virt.Addr) uint32 {
	if !r.may() {
		return 0
	}
	var v uint32
	v, r.err = r.space.U32(a)
	return v
}

// room returns n bytes to read into, good until the next call. Large ones are not
// kept.
func (r *reader) room(n int) []byte {
	if n > phys.PageSize {
		return make([]byte, n)
	}
	if r.buf == nil {
		r.buf = make([]byte, phys.PageSize)
	}
	return r.buf[:n]
}

// readInto fills p from a and reports whether it could; p is zero otherwise.
func (r *reader) readInto(p []byte, a virt.Addr) bool {
	if r.may() {
		_, r.err = r.space.ReadAt(p, a)
	}
	if r.err != nil {
		clear(p)
	}
	return r.err == nil
}

// bytes returns n bytes that are good until the next call.
func (r *reader) bytes(a virt.Addr, n int) []byte {
	b := r.room(n)
	r.readInto(b, a)
	return b
}

// cString reads a string of at most limit bytes, page by page: what follows it
// may not be mapped.
func (r *reader) cString(a virt.Addr, limit int) string {
	var out []byte
	for len(out) < limit && r.err == nil {
		at := a + virt.Addr(len(out))
		n := min(64, limit-len(out), int(4096-at%4096))
		b := r.bytes(at, n)
		if i := bytes.IndexByte(b, 0); i >= 0 || r.err != nil {
			return string(append(out, b[:max(i, 0)]...))
		}
		out = append(out, b...)
	}
	return string(out)
}

// cString cuts b at its first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// netGuarded runs read, which uses r, guarded by itself, and returns its error with
// r fit for the next use.
func netGuarded[T any](r *reader, read func() T) (v T, err error) {
	defer func() {
		if r.err != nil && err == nil {
			err = r.err
		}
		if r.left > 0 {
			r.err = nil
		}
	}()
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	return read(), nil
}
