package mapped

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore fills v with one byte per page of b, a part of a mapping that begins
// on a page: bit 0 is set when the page is in memory. v must have room for all.
func mincore(b, v []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(unsafe.Pointer(unsafe.SliceData(v))))
	if errno != 0 {
		return errno
	}
	return nil
}
