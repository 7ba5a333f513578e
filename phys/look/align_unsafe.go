package look

import "unsafe"

// aligned is b from its first address on that is a multiple of n, a power of two no larger
// than b.
func aligned(b []byte, n int) []byte {
	return b[-uintptr(unsafe.Pointer(unsafe.SliceData(b)))&uintptr(n-1):]
}
