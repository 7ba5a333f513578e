package image

import "golang.org/x/sys/unix"

// allocate makes room for an image. Small pages would each cost a fault: as much time as
// unpacking takes, on hosts whose hypervisor shadows page tables.
func allocate(n int) []byte {
	b := make([]byte, n)
	if n >= 4<<20 {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // an optimization: the host may not know it
	}
	return b
}
