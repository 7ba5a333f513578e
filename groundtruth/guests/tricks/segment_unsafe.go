package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// segment gives us a local descriptor table (LDT) of two pages, as emulators and Wine have one.
func segment([]string) error {
	const (
		write      = 0x11            // of modify_ldt
		entry      = 600             // on the second page
		attributes = 1 | 1<<4 | 1<<6 // 32 bits, limits in pages, usable
	)
	d := [4]uint32{entry, 0, 0xf_ffff, attributes} // struct user_desc
	if _, _, errno := unix.Syscall(unix.SYS_MODIFY_LDT, write, uintptr(unsafe.Pointer(&d)), unsafe.Sizeof(d)); errno != 0 {
		return errno
	}
	d[0] = 1
	if _, _, errno := unix.Syscall(unix.SYS_MODIFY_LDT, write, uintptr(unsafe.Pointer(&d)), unsafe.Sizeof(d)); errno != 0 {
		return errno // the second lies in the other area that the kernel has for it under PTI
	}
	return nil
}
