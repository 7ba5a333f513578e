// Package phys is guest-physical memory: what a machine's RAM holds at which
// guest-physical address, read from outside.
//
// It knows no virtual machine monitor and no operating system. One small
// interface, [Memory], is all that the rooms above need; whatever else a source
// of memory can do (zero-copy mapping, telling what is populated, writing) is an
// optional capability found with [As].
package phys

import (
	"errors"
	"fmt"
)

// PageSize is the smallest unit in which memory is mapped, in bytes.
const PageSize = 4096

// Addr is a guest-physical address.
type Addr uint64

func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// Range is the half-open interval [Start, End) of guest-physical addresses.
type Range struct {
	Start, End Addr
}

// Size is the length of r in bytes.
func (r Range) Size() uint64 { return uint64(r.End - r.Start) }

// Contains reports whether the n bytes at a all lie in r. It is safe against
// overflow.
func (r Range) Contains(a Addr, n uint64) bool {
	return a >= r.Start && a < r.End && n <= uint64(r.End-a)
}

func (r Range) String() string { return fmt.Sprintf("[%#x, %#x)", uint64(r.Start), uint64(r.End)) }

// Errors that every source of memory uses, so that callers can distinguish them
// with [errors.Is].
var (
	// ErrNotPresent says that no RAM exists at an address: a hole in the
	// guest-physical map, or a part of a dump that was cut off.
	ErrNotPresent = errors.New("no memory at this guest-physical address")
	// ErrGone says that the backing went away while it was read: the machine
	// stopped, or the file shrank.
	ErrGone = errors.New("the memory went away while it was read")
)

// Memory is guest-physical memory.
type Memory interface {
	// ReadAt fills p from guest-physical address pa. n < len(p) implies an
	// error, [ErrNotPresent] for a hole. It is safe for concurrent use and never
	// retains p. Memory that exists but was never touched reads as zeros.
	ReadAt(p []byte, pa Addr) (n int, err error)
	// Ranges is what exists: ascending and non-overlapping. The caller must not
	// change it.
	Ranges() []Range
}

// Mapper is memory that can be seen without a copy.
type Mapper interface {
	// Map returns the n bytes at pa, and whether they are available in one
	// piece. The bytes of a running guest change while they are looked at: copy
	// first, then parse the copy. Touching them faults if the backing shrinks:
	// use them inside [Guard]. Package virt does so for all that is read through it.
	Map(pa Addr, n int) ([]byte, bool)
}

// Worder is memory from which single words that lie far from each other, such as the
// entries of page tables, are had for less than the pages around them.
type Worder interface {
	// Word reads the little-endian word at pa, which is a multiple of 8.
	Word(pa Addr) (uint64, error)
}

// Populated is memory that knows which of its parts the host has ever backed.
// The others read as zeros; reading them would be a waste, and on shared memory
// would allocate pages on the host.
type Populated interface {
	// NextPopulated returns the first populated run at or after pa. A source may
	// cut a long run into several and may call more populated than is, never
	// less. ok is false when nothing populated follows.
	NextPopulated(pa Addr) (r Range, ok bool)
}

// Prober is memory that can report cheaply about one page whether the host ever
// backed it, for those who look at few pages of many. Memory without it reads a
// page that is not backed as fast as one that is, and leaves it so.
type Prober interface {
	// Backed may say yes for what is not, never no for what is.
	Backed(pa Addr) bool
}

// Refresher is memory that keeps what was read of a source which may change meanwhile.
type Refresher interface {
	// Fresh is the same memory, but what is read through it was read from the source
	// after the call.
	Fresh() Memory
	// Loads counts what was read from the source so far: while it stays the same, all
	// answers were of what is kept.
	Loads() uint64
}

// Writer is memory that can be changed. Nothing in outsight writes unless the
// user said so with a flag of its own.
type Writer interface {
	// WriteAt writes p at pa, and refuses what is no memory. Whether a processor of the guest can see a part of
	// it is up to the source: mapped memory stores a word in one piece, the memory of a process is
	// written by the host's kernel, which promises nothing.
	WriteAt(p []byte, pa Addr) (n int, err error)
}

// Wrapper is a Memory built over another. [As] looks through it.
type Wrapper interface {
	Unwrap() Memory
}

// As finds capability T in m or in what m wraps.
func As[T any](m Memory) (t T, ok bool) {
	for m != nil {
		if t, ok = m.(T); ok {
			return t, true
		}
		w, isWrapper := m.(Wrapper)
		if !isWrapper {
			return t, false
		}
		m = w.Unwrap()
	}
	return t, false
}

// NotPresent is the error for a read of n bytes at pa that hits no memory.
func NotPresent(pa Addr, n int) error {
	return fmt.Errorf("read %d bytes at guest-physical %#x: %w", n, uint64(pa), ErrNotPresent)
}
