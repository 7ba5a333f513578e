package main

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() {
	// Every event that a process holds open is taken from it and asked who it is, what it
	// counted and which program it runs. Nothing reports the kernel's own events.
	views["perf"] = func(emit func(any) error) error {
		return eachProcess(func(pid int) error {
			fds, err := numbers(fmt.Sprintf("/proc/%d/fd", pid))
			if err != nil {
				return nil //nolint:nilerr // it has gone
			}
			for _, fd := range fds {
				link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
				if err != nil || link != "anon_inode:[perf_event]" {
					continue
				}
				row, err := perfEvent(pid, fd)
				if err != nil {
					return err
				}
				if err := emit(row); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func perfEvent(pid, fd int) (map[string]any, error) {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(process) }()
	event, err := unix.PidfdGetfd(process, fd, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d of process %d: %w", fd, pid, err)
	}
	defer func() { _ = unix.Close(event) }()
	var id uint64
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(event), unix.PERF_EVENT_IOC_ID, uintptr(unsafe.Pointer(&id))); e != 0 {
		return nil, fmt.Errorf("id of event %d: %w", fd, e)
	}
	row := map[string]any{"id": id}
	// The count alone is 8 bytes; with more the event was asked to report more.
	var b [64]byte
	if n, err := unix.Read(event, b[:]); err == nil && n == 8 {
		row["count"] = *(*int64)(unsafe.Pointer(&b))
	}
	// struct perf_event_query_bpf: room for ids, how many there are, the ids. All events of
	// one tracepoint share the programs.
	programs := [3]uint32{1}
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(event), unix.PERF_EVENT_IOC_QUERY_BPF, uintptr(unsafe.Pointer(&programs)))
	if e == 0 && programs[1] == 1 {
		row["prog_id"] = programs[2]
	}
	// The server makes its events in its first thread.
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && string(comm) == "server\n" {
		row["owner"] = pid
	}
	return row, nil
}
