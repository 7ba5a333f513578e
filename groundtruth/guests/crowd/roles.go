package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// A process without arguments gets its role this way.
	if role := os.Getenv("CROWD_ROLE"); role != "" {
		play(role, nil)
	}
}

// play does what sleep cannot do. A role prints how many processes it has made, and stays.
func play(role string, args []string) {
	c := &crowd{}
	if f := flag.Lookup("busybox"); f != nil {
		c.busybox, c.dir = f.Value.String(), flag.Lookup("dir").Value.String()
	}
	arg := ""
	if len(args) > 0 {
		arg = args[0]
	}
	var err error
	switch role {
	case "idle":
	case "threads":
		err = makeThreads(arg)
	case "leaderless":
		endLeader()
	case "title":
		err = setTitle(arg)
	case "ids":
		err = setIDs()
	case "nest":
		var level int
		if level, err = strconv.Atoi(arg); err == nil {
			err = c.nest(level)
		}
	case "time":
		if err = unix.Unshare(unix.CLONE_NEWTIME); err == nil {
			// Before 6.0 or so a new time namespace refuses vfork, which Go uses: then
			// only time_for_children is new.
			_, _ = c.sleep(nil)
		}
	case "mount":
		err = c.mount()
	case "memory":
		err = useMemory()
	case "busy":
		useTime()
	default:
		err = errors.New("no such role")
	}
	if err != nil {
		log.Fatalf("%s: %v", role, err)
	}
	fmt.Println(c.made)
	pause()
}

// makeThreads makes threads with names of their own.
func makeThreads(arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	named := make(chan error)
	for i := range n {
		go func() {
			runtime.LockOSThread()
			name := fmt.Sprintf("worker %d\n\x1b[3%dm", i, i%8)
			named <- os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", unix.Gettid()), []byte(name), 0)
			pause()
		}()
	}
	for range n {
		err = errors.Join(err, <-named)
	}
	return err
}

// endLeader ends the first thread only; another says that all is done.
func endLeader() {
	leader := os.Getpid()
	go func() {
		for {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", leader))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			time.Sleep(time.Millisecond)
		}
		fmt.Println(0)
		pause()
	}()
	time.Sleep(10 * time.Millisecond)
	// Not syscall.Exit, which ends the whole process.
	_, _, _ = syscall.Syscall(syscall.SYS_EXIT, 0, 0, 0)
}

// setTitle overwrites the process's arguments in place, as setproctitle(3) does.
func setTitle(arg string) error {
	title, err := hex.DecodeString(arg)
	if err != nil {
		return err
	}
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 50 {
		return errors.New("no arg_start in /proc/self/stat")
	}
	field := func(n int) int64 { v, _ := strconv.ParseInt(f[n-3], 10, 64); return v }
	start, end, envEnd := field(48), field(49), field(51)
	area := make([]byte, end-start)
	if len(title) > len(area) {
		// An overlong title takes the environment's place as well, and has no NUL where
		// the arguments ended: that makes the kernel read on.
		area = make([]byte, min(int64(len(title)), envEnd-start-1)+1)
	}
	copy(area, title)
	mem, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	_, err = mem.WriteAt(area, start)
	return err
}

// setIDs has all four ids of each kind different.
func setIDs() error {
	return errors.Join(
		syscall.Setgroups([]int{7, 8, 9}),
		syscall.Setresgid(3001, 3002, 3003),
		syscall.Setfsgid(3001),
		syscall.Setresuid(3101, 3102, 3103),
		syscall.Setfsuid(3101),
	)
}

// useMemory touches memory of three kinds: anonymous, shared and of a file.
func useMemory() error {
	const size = 4 << 20
	touch := func(fd, flags int) error {
		mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			return err
		}
		for i := 0; i < size; i += 4096 {
			mem[i] = 1
		}
		return nil
	}
	f, err := os.CreateTemp("", "crowd-memory-*")
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return errors.Join(
		touch(-1, unix.MAP_PRIVATE|unix.MAP_ANON),
		touch(-1, unix.MAP_SHARED|unix.MAP_ANON),
		touch(int(f.Fd()), unix.MAP_SHARED),
	)
}

// useTime computes and calls the kernel for some tenths of a second each.
func useTime() {
	var sum int
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		for i := range 10_000 {
			sum += i
		}
	}
	buf := make([]byte, 64<<10)
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return
	}
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		_, _ = zero.Read(buf) // what counts is the time it takes
	}
}
