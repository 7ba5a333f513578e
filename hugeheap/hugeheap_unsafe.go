// Package hugeheap puts the beginning of the Go heap into huge pages.
//
// A run of the command takes milliseconds and uses a few MiB of heap, each page of which
// costs a page fault when it is first touched. On a host that is a virtual machine itself a
// fault can take 20 µs, so that they were half of the time that a view took. What is
// imported for its effect must be set up before the packages that allocate: Go sets up
// those that depend on least first. docs/decisions/0005-start-in-huge-pages.md has what was measured.
package hugeheap

import (
	"syscall"
	"unsafe"
)

// hugePage is the size of a huge page, in bytes: of amd64, and of arm64 with small pages
// of 4 KiB. What the runtime takes from the system at a time is twice that.
const hugePage = 2 << 20

// Advices to madvise; package syscall has the first one only.
const (
	adviseHugePage = syscall.MADV_HUGEPAGE
	adviseCollapse = 25 // Linux 6.1
)

func init() {
	// Errors do not matter: it is slower then, as it was.
	here := uintptr(unsafe.Pointer(new([64]byte))) &^ (hugePage - 1)
	advise(here, 3*hugePage, adviseHugePage)
	// Some pages of the first are in use already.
	advise(here, hugePage, adviseCollapse)
}

func advise(start, size uintptr, advice int) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, start, size, uintptr(advice))
}
