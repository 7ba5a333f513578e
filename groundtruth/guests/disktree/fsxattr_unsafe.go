package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// getVersion is FS_IOC_GETVERSION.
const getVersion = 0x80087601

// Bits of FS_IOC_GETFLAGS.
const (
	flagImmutable = 0x10
	flagAppend    = 0x20
)

// struct fsxattr: flags, hint, extents, project, cow hint, 8 bytes of padding.
const (
	getFSXattr = 0x801c581f
	putFSXattr = 0x401c5820
)

func fsxattr(f *os.File) (x [7]uint32, err error) {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getFSXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		err = errno
	}
	return x, err
}

func setFSXattr(f *os.File, x [7]uint32) (err error) {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), putFSXattr, uintptr(unsafe.Pointer(&x))); errno != 0 {
		err = errno
	}
	return err
}
