package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Handle refers to one process permanently: a later process with the same number is
// another. Close it.
type Handle struct{ f *os.File }

// Open returns a handle on the process that [Get] described as p. The error is
// [os.ErrNotExist] if it has ended.
func Open(p Process) (*Handle, error) {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", p.PID, gone(err))
	}
	h := &Handle{os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", p.PID))}
	// The number may have been given to another process before the handle was taken.
	if now, err := Get(p.PID); err != nil || now.Started != p.Started {
		h.f.Close()
		return nil, fmt.Errorf("process %d: %w", p.PID, os.ErrNotExist)
	}
	return h, nil
}

// Alive reports whether the process runs. One that has ended and was not reaped does
// not. It costs one system call.
func (h *Handle) Alive() bool {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		for err == unix.EINTR {
			n, err = unix.Poll(fds, 0)
		}
		alive = err == nil && n == 0 // a handle becomes readable when its process ends
	})
	return err == nil && alive
}

// Wait returns when the process has ended or the handle was closed.
func (h *Handle) Wait() {
	raw, err := h.f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(uintptr) bool { return !h.Alive() })
}

// Close releases the handle.
func (h *Handle) Close() error { return h.f.Close() }
