package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mkswap writes a swap header of version 1: the numbers after 1024 bytes, the magic at
// the page's end.
func mkswap(f *os.File, size int64, label string) error {
	head := make([]byte, page)
	binary.NativeEndian.PutUint32(head[1024:], 1)
	binary.NativeEndian.PutUint32(head[1028:], uint32(size/page-1))
	copy(head[1036:1052], "outsight-swap-id")
	copy(head[1052:1068], label)
	copy(head[page-10:], "SWAPSPACE2")
	_, err := f.WriteAt(head, 0)
	return err
}

func swapon(path string, priority int) error {
	name := append([]byte(path), 0)
	const prefer = 0x8000
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(&name[0])), uintptr(prefer|priority), 0); errno != 0 {
		return fmt.Errorf("swapon %s: %w", path, errno)
	}
	return nil
}

// pageOut has memory of ours swapped out. The contents differ from page to page: zeros
// and copies may be kept without any swap.
func (s *server) pageOut(text string, pages int) error {
	mem, err := s.area(-1, 0, pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, 0)
	if err != nil {
		return err
	}
	for i := range pages {
		line := fmt.Appendf(nil, "%s page %d ", text, i)
		copy(mem[i*page:(i+1)*page], bytes.Repeat(line, page/len(line)+1))
	}
	return unix.Madvise(mem, unix.MADV_PAGEOUT)
}

// swapFile is on a file system that can swap: tmpfs cannot, so it is an ext4 of our own on
// a loop device, or the disk.
func (s *server) swapFile() error {
	dir := "/var"
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.RAMFS_MAGIC || fs.Type == unix.TMPFS_MAGIC {
		// No disk: a loop device over a file in memory serves as well.
		const size = 16 << 20
		f, err := os.OpenFile(s.path("swap.img"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if err := f.Truncate(size); err != nil {
			return err
		}
		device, err := attachLoop(f, 0)
		if err != nil {
			return err
		}
		if err := mkswap(f, size, "loop"); err != nil {
			return err
		}
		return errors.Join(swapon(device, 5), s.pageOut("swapped to a loop device", 64))
	}
	const size = 16 << 20
	f, err := os.OpenFile(dir+"/outsight-swap", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil { // no holes
		return err
	}
	if err := errors.Join(mkswap(f, size, "file"), f.Sync()); err != nil {
		return err
	}
	return errors.Join(swapon(dir+"/outsight-swap", 5), s.pageOut("swapped to a file", 64))
}

// zram has a higher priority, so that what is paged out later goes there.
func (s *server) zram() error {
	const size = 16 << 20
	if err := os.WriteFile("/sys/block/zram0/disksize", fmt.Append(nil, size), 0); err != nil {
		return fmt.Errorf("%w (module zram)", err)
	}
	f, err := os.OpenFile("/dev/zram0", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(mkswap(f, size, "zram"), f.Close()); err != nil {
		return err
	}
	if err := swapon("/dev/zram0", 50); err != nil {
		return err
	}
	return errors.Join(s.pageOut("swapped to zram", 64), s.pageOut("also in zram", 200))
}
