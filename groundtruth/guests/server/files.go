package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// open opens a file, writes to it and seeks. The descriptor stays.
func (s *server) open(name string, flags int, text string, position int64) error {
	fd, err := unix.Open(name, flags, 0o640)
	if err != nil {
		return fmt.Errorf("open %q: %w", name, err)
	}
	if text != "" {
		_, err = unix.Write(fd, []byte(text))
	}
	if position >= 0 {
		_, e := unix.Seek(fd, position, unix.SEEK_SET)
		err = errors.Join(err, e)
	}
	return err
}

// files keeps descriptors of every kind.
func (s *server) files() error {
	var errs []error
	do := func(err ...error) { errs = append(errs, err...) }
	rw := unix.O_CREAT | unix.O_RDWR
	text := strings.Repeat("0123456789", 1000)
	do(
		s.open(s.path("plain"), rw, text, 1234),
		s.open(s.path("append"), rw|unix.O_APPEND|unix.O_CLOEXEC, "abc", -1),
		s.open(s.path("plain"), unix.O_RDONLY|unix.O_NOATIME|unix.O_NONBLOCK, "", 1<<40),
		s.open(s.path("sync"), rw|unix.O_SYNC, "", -1),
		s.open(s.path("path-only"), rw, "x", -1),
		s.open(s.path("path-only"), unix.O_PATH, "", -1),
		s.open(s.path("deleted"), rw, text, 77), os.Remove(s.path("deleted")),
		s.open(s.path("deleted \x1b[31m\nred"), rw, "x", -1), os.Remove(s.path("deleted \x1b[31m\nred")),
		s.open(s.path("not (deleted)"), rw, "x", -1),
		s.open(s.dir, unix.O_TMPFILE|unix.O_RDWR, "no name", 3),
		s.open(s.dir, unix.O_DIRECTORY|unix.O_RDONLY, "", -1),
		s.open("/dev/null", unix.O_RDWR, "", -1),
		s.open("/dev/zero", unix.O_RDONLY, "", -1),
		s.open("/dev/urandom", unix.O_RDONLY|unix.O_LARGEFILE, "", -1),
		s.open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, "", -1),
		s.open("/proc/self/maps", unix.O_RDONLY, "", -1),
		s.open("/proc/1/ns/net", unix.O_RDONLY, "", -1),
		s.open("/sys/kernel/uevent_seqnum", unix.O_RDONLY, "", -1),
	)
	do(os.MkdirAll(s.path("dir/gone"), 0o755), s.open(s.path("dir/gone"), unix.O_DIRECTORY|unix.O_RDONLY, "", -1), os.Remove(s.path("dir/gone")))
	do(unix.Mkfifo(s.path("fifo"), 0o600), s.open(s.path("fifo"), unix.O_RDWR|unix.O_NONBLOCK, "in the fifo", -1))
	// Renamed while open: the path follows.
	do(s.open(s.path("before"), rw, "x", -1), os.Rename(s.path("before"), s.path("after")))
	// Hidden under a mount that came later.
	do(os.MkdirAll(s.path("covered"), 0o755), s.open(s.path("covered/below"), rw, "x", -1),
		unix.Mount("cover", s.path("covered"), "tmpfs", 0, "size=64k"))
	// Deep: some 200 levels, 2000 bytes.
	deep := s.path("deep") + strings.Repeat("/level-dir", 200)
	do(os.MkdirAll(deep, 0o755), s.open(deep+"/file", rw, "x", -1))

	var pipe [2]int
	do(unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	_, err := unix.Write(pipe[1], []byte("in the pipe"))
	do(err)
	do(unix.Pipe2(pipe[:], unix.O_NONBLOCK|unix.O_DIRECT))
	if dup, err := unix.Dup(pipe[0]); err == nil { // shares the description
		_, err = unix.FcntlInt(uintptr(dup), unix.F_SETPIPE_SZ, 1<<16)
		do(err)
	}
	if _, err := unix.FcntlInt(uintptr(pipe[1]), unix.F_DUPFD, 700); err != nil { // a table of more than one page
		do(err)
	}
	return errors.Join(append(errs, s.anonymousFiles(), s.watches())...)
}

// anonymousFiles have no path.
func (s *server) anonymousFiles() error {
	var errs []error
	event, err := unix.Eventfd(42, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE)
	errs = append(errs, err)
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK)
	if err == nil {
		err = unix.TimerfdSettime(timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(1e15), Interval: unix.NsecToTimespec(7e15)}, nil)
	}
	errs = append(errs, err)
	_, err = unix.Signalfd(-1, &unix.Sigset_t{Val: [16]uint64{1<<9 | 1<<11}}, unix.SFD_CLOEXEC)
	errs = append(errs, err)
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		for _, fd := range []int{event, timer} {
			err = errors.Join(err, unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLPRI | unix.EPOLLET, Fd: int32(fd)}))
		}
	}
	errs = append(errs, err)
	memory, err := unix.MemfdCreate("hidden payload", unix.MFD_ALLOW_SEALING)
	if err == nil {
		_, err = unix.Write(memory, []byte("\x7fELF not quite"))
		_, e := unix.FcntlInt(uintptr(memory), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
		err = errors.Join(err, e)
	}
	errs = append(errs, err)
	pidfd, err := unix.PidfdOpen(1, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(pidfd), unix.F_SETFD, unix.FD_CLOEXEC)
	}
	errs = append(errs, err)
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if int(fd) < 0 {
		errs = append(errs, fmt.Errorf("userfaultfd: %w", errno))
	}
	return errors.Join(errs...)
}

// watches are told of what happens to files.
func (s *server) watches() error {
	notify, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		for _, name := range []string{"/etc", s.dir} {
			_, e := unix.InotifyAddWatch(notify, name, unix.IN_CREATE|unix.IN_DELETE)
			err = errors.Join(err, e)
		}
	}
	all, e := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY)
	if e == nil {
		e = unix.FanotifyMark(all, unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, unix.FAN_OPEN_EXEC, unix.AT_FDCWD, s.dir)
	}
	return errors.Join(err, e)
}

// locks are held until we end.
func (s *server) locks() error {
	var errs []error
	for i, lock := range []func(fd int) error{
		func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 20})
		},
		func(fd int) error { return unix.Flock(fd, unix.LOCK_EX) },
		func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 5})
		},
		func(fd int) error { _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); return err },
	} {
		fd, err := unix.Open(fmt.Sprint(s.path("lock"), i), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = lock(fd)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("lock %d: %w", i, err))
		}
	}
	if _, err := s.again("lock", nil); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
