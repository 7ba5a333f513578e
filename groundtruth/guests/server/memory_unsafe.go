package main

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const page = 4096

// area maps memory, keeps it and touches the pages asked for.
func (s *server) area(fd int, offset int64, pages, prot, flags, touch int) ([]byte, error) {
	mem, err := unix.Mmap(fd, offset, pages*page, prot, flags)
	if err != nil {
		return nil, fmt.Errorf("mmap prot %#x flags %#x: %w", prot, flags, err)
	}
	s.keep = append(s.keep, mem)
	for i := range touch {
		if prot&unix.PROT_WRITE != 0 {
			mem[i*page] = byte(i + 1)
		} else {
			s.keep = append(s.keep, mem[i*page])
		}
	}
	return mem, nil
}

// maps are areas of memory that differ in what /proc/PID/maps and smaps report of them.
func (s *server) maps() error {
	var errs []error
	const r, w, x = unix.PROT_READ, unix.PROT_WRITE, unix.PROT_EXEC
	const private, shared, anon = unix.MAP_PRIVATE, unix.MAP_SHARED, unix.MAP_ANON
	file, err := os.OpenFile(s.path("mapped"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := file.Truncate(64 * page); err != nil {
		return err
	}
	gone, err := os.OpenFile(s.path("mapped-and-deleted"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if err := gone.Truncate(8 * page); err != nil {
		return err
	}
	s.keep = append(s.keep, file, gone)
	f, g := int(file.Fd()), int(gone.Fd())
	for _, m := range []struct {
		fd                        int
		offset                    int64
		pages, prot, flags, touch int
	}{
		{f, 0, 16, r, private, 3},
		{f, 3 * page, 5, r | w, private, 2},
		{f, 0, 64, r | w, shared, 9},
		{f, page, 2, r | x, private, 1},
		{f, 0, 1, r, shared, 0},
		{g, 0, 8, r | w, shared, 8},
		{g, 2 * page, 2, r, private, 1},
		{-1, 0, 32, r | w, private | anon, 7},
		{-1, 0, 16, r | w, shared | anon, 5},
		{-1, 0, 1, unix.PROT_NONE, private | anon, 0},
		{-1, 0, 4, r | w | x, private | anon, 4},
		{-1, 0, 4, r | x, private | anon, 0},
		{-1, 0, 8, r | w, private | anon | unix.MAP_NORESERVE, 1},
		{-1, 0, 64, r | w, private | anon | unix.MAP_GROWSDOWN, 0},
		{-1, 0, 4, r | w, private | anon | unix.MAP_LOCKED | unix.MAP_POPULATE, 0},
	} {
		_, err := s.area(m.fd, m.offset, m.pages, m.prot, m.flags, m.touch)
		errs = append(errs, err)
	}
	errs = append(errs, os.Remove(s.path("mapped-and-deleted")))
	for _, advice := range []int{unix.MADV_DONTFORK, unix.MADV_DONTDUMP, unix.MADV_WIPEONFORK, unix.MADV_MERGEABLE, unix.MADV_SEQUENTIAL, unix.MADV_NOHUGEPAGE} {
		mem, err := s.area(-1, 0, 8, r|w, private|anon, 2)
		if err == nil {
			err = unix.Madvise(mem, advice)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("madvise %d: %w", advice, err))
		}
	}
	mem, err := s.area(-1, 0, 4, r|w, private|anon, 1)
	if err == nil {
		// An area of a name (since 5.17, and only where it is configured: not in Debian).
		name := append([]byte("outsight area"), 0)
		_ = unix.Prctl(unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&name[0])))
		const onFault = 1 // MLOCK_ONFAULT
		if _, _, errno := unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), onFault); errno != 0 {
			err = fmt.Errorf("mlock2: %w", errno)
		}
	}
	errs = append(errs, err)
	if secret, _, errno := unix.Syscall(unix.SYS_MEMFD_SECRET, 0, 0, 0); errno == 0 { // 5.14, and only if asked for at boot until 6.5
		errs = append(errs, unix.Ftruncate(int(secret), 2*page))
		mem, err := s.area(int(secret), 0, 2, r|w, shared, 1)
		if err == nil {
			copy(mem, "a secret")
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sysv makes objects that no process need hold.
func (s *server) sysv() error {
	id, err := unix.SysvShmGet(0x0511, 3*page, unix.IPC_CREAT|0o640)
	if err != nil {
		return fmt.Errorf("shmget: %w", err)
	}
	mem, err := unix.SysvShmAttach(id, 0, 0)
	if err == nil {
		copy(mem, "shared the old way")
		s.keep = append(s.keep, mem)
	}
	// One that is marked to go when the last detaches.
	id, err1 := unix.SysvShmGet(unix.IPC_PRIVATE, page, unix.IPC_CREAT|0o600)
	if err1 == nil {
		mem, e := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY)
		s.keep = append(s.keep, mem)
		_, e2 := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		err1 = errors.Join(e, e2)
	}
	_, _, errno := unix.Syscall(unix.SYS_SEMGET, 0x0512, 5, unix.IPC_CREAT|0o600)
	var err2 error
	if errno != 0 {
		err2 = fmt.Errorf("semget: %w", errno)
	}
	if _, _, errno = unix.Syscall(unix.SYS_MSGGET, 0x0513, unix.IPC_CREAT|0o600, 0); errno != 0 {
		err2 = errors.Join(err2, fmt.Errorf("msgget: %w", errno))
	}
	name := append([]byte("outsight-queue"), 0)
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(&name[0])), unix.O_CREAT|unix.O_RDWR, 0o600, 0, 0, 0)
	if errno != 0 {
		err2 = errors.Join(err2, fmt.Errorf("mq_open: %w", errno))
	} else {
		text := []byte("a message")
		_, _, _ = unix.Syscall6(unix.SYS_MQ_TIMEDSEND, fd, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)), 3, 0, 0)
	}
	return errors.Join(err, err1, err2)
}

func (s *server) hugetlb() error {
	if err := os.WriteFile("/proc/sys/vm/nr_hugepages", []byte("4"), 0); err != nil {
		return err
	}
	mem, err := unix.Mmap(-1, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_HUGETLB)
	if err != nil {
		return fmt.Errorf("map a huge page: %w", err)
	}
	mem[0] = 1
	s.keep = append(s.keep, mem)
	fd, err := unix.MemfdCreate("huge", unix.MFD_HUGETLB)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 2<<20); err != nil {
		return err
	}
	mem, err = unix.Mmap(fd, 0, 2<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		mem[0] = 2
		s.keep = append(s.keep, mem)
	}
	return err
}
