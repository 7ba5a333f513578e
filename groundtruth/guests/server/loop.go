package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attachLoop makes a block device of a file and gives its path.
func attachLoop(f *os.File, flags uint32) (string, error) {
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("loop-control: %w (module loop)", err)
	}
	defer unix.Close(control)
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", fmt.Errorf("free loop device: %w", err)
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_FD, int(f.Fd())); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	info := unix.LoopInfo64{Flags: flags}
	copy(info.File_name[:], f.Name())
	return path, unix.IoctlLoopSetStatus64(fd, &info)
}
