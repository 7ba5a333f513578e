package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq [5]uint64
}

// An uringEntry is struct io_uring_sqe.
type uringEntry struct {
	opcode, flags uint8
	priority      uint16
	fd            int32
	offset, addr  uint64
	len, opFlags  uint32
	userData      uint64
	_             [3]uint64
}

const (
	registerBuffers = 0
	registerFiles   = 2
	registerEventfd = 4

	opPollAdd = 6
	opAccept  = 13
	opRead    = 22
)

type uring struct {
	fd      int
	p       uringParams
	ring    []byte
	entries []byte
	queued  uint32
}

func newUring(s *server, entries, flags uint32) (*uring, error) {
	u := &uring{p: uringParams{flags: flags, sqThreadIdle: 50}}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&u.p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	u.fd = int(fd)
	var err error
	// IORING_OFF_SQ_RING and IORING_OFF_SQES.
	if u.ring, err = unix.Mmap(u.fd, 0, int(u.p.sq.array+u.p.sqEntries*4), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	if u.entries, err = unix.Mmap(u.fd, 0x10000000, int(u.p.sqEntries)*int(unsafe.Sizeof(uringEntry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, fmt.Errorf("map the entries: %w", err)
	}
	s.keep = append(s.keep, u)
	return u, nil
}

// add queues a request; enter hands the queue over.
func (u *uring) add(e uringEntry) {
	tail := (*uint32)(unsafe.Pointer(&u.ring[u.p.sq.tail]))
	at := *tail & (u.p.sqEntries - 1)
	*(*uringEntry)(unsafe.Pointer(&u.entries[uintptr(at)*unsafe.Sizeof(e)])) = e
	*(*uint32)(unsafe.Pointer(&u.ring[u.p.sq.array+at*4])) = at
	atomic.StoreUint32(tail, *tail+1)
	u.queued++
}

func (u *uring) enter(flags uintptr) error {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), uintptr(u.queued), 0, flags, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
	if uint32(n) != u.queued {
		return fmt.Errorf("io_uring_enter took %d of %d requests", n, u.queued)
	}
	u.queued = 0
	return nil
}

func (u *uring) register(what, count int, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(u.fd), uintptr(what), uintptr(arg), uintptr(count), 0, 0); errno != 0 {
		return fmt.Errorf("register %d: %w", what, errno)
	}
	return nil
}

// ioUring has two registered files, a registered buffer, and requests that wait for what
// never comes: a poll, a read and a read through a registered file.
func (s *server) ioUring() error {
	u, err := newUring(s, 8, 0)
	if err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	listener, err := listen4(8096, 1, nil)
	if err != nil {
		return err
	}
	files := []int32{int32(pipe[0]), int32(null)}
	buffer, err := s.area(-1, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, 4)
	if err != nil {
		return err
	}
	address := uint64(uintptr(unsafe.Pointer(&buffer[0])))
	vector := unix.Iovec{Base: &buffer[0], Len: uint64(len(buffer))}
	err = errors.Join(
		u.register(registerFiles, len(files), unsafe.Pointer(&files[0])),
		u.register(registerBuffers, 1, unsafe.Pointer(&vector)))
	event, e := unix.Eventfd(0, unix.EFD_CLOEXEC)
	number := int32(event)
	err = errors.Join(err, e, u.register(registerEventfd, 1, unsafe.Pointer(&number)))
	const fixedFile = 1
	u.add(uringEntry{opcode: opPollAdd, fd: int32(pipe[0]), opFlags: unix.POLLIN, userData: 0x1111})
	u.add(uringEntry{opcode: opRead, fd: int32(pipe[0]), addr: address, len: 512, userData: 0x2222})
	u.add(uringEntry{opcode: opRead, flags: fixedFile, fd: 0, addr: address + 512, len: 512, userData: 0x3333})
	u.add(uringEntry{opcode: opAccept, fd: int32(listener), userData: 0x4444})
	return errors.Join(err, u.enter(0))
}

// ioUringSQPoll has a thread of the kernel that takes the requests. It sleeps when it has
// had none for 50 ms.
func (s *server) ioUringSQPoll() error {
	const sqPoll = 1 << 1
	u, err := newUring(s, 16, sqPoll)
	if err != nil {
		return err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	files := []int32{int32(event)}
	if err := u.register(registerFiles, 1, unsafe.Pointer(&files[0])); err != nil {
		return err
	}
	const fixedFile, wakeUp = 1, 1 << 1
	u.add(uringEntry{opcode: opPollAdd, flags: fixedFile, opFlags: unix.POLLIN, userData: 0x5555})
	return u.enter(wakeUp)
}
