// Truth prints what a guest's own kernel says of its processes: the ground truth that a
// view from outside is compared with. It runs inside the guest.
//
// The first line is a JSON object about the system, each further line one about a process
// (with -threads: about a thread), and the last line counts them. Sizes and times are in
// the units of /proc, so that nothing is lost. Bytes that need not be UTF-8 come twice: as
// base64 and, for reading, as text. For kernel threads, /proc adds to comm what is not in
// the task's own 16 bytes (a worker's queue; since 5.17 a long name).
//
// With -view it prints the rows of another view instead; see views.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A System is the first line.
type System struct {
	Kind       string  `json:"kind"` // "system"
	Sysname    string  `json:"sysname"`
	Release    string  `json:"release"`
	Version    string  `json:"version"`
	Machine    string  `json:"machine"`
	Hostname   string  `json:"hostname"`
	BootID     string  `json:"boot_id"`
	BootTime   int64   `json:"btime"`    // seconds since 1970
	Uptime     float64 `json:"uptime"`   // seconds
	BootClock  int64   `json:"boottime"` // CLOCK_BOOTTIME in ns
	RealClock  int64   `json:"realtime"` // CLOCK_REALTIME in ns
	ClockTicks uint64  `json:"clk_tck"`
	PageSize   int     `json:"page_size"`
	CPUs       int     `json:"cpus"`
	Self       int     `json:"self"` // our own pid
}

// An End is the last line.
type End struct {
	Kind     string `json:"kind"` // "end"
	Rows     int    `json:"rows"`
	Vanished int    `json:"vanished"` // seen in the list, gone when looked at
	Uptime   int64  `json:"boottime"` // CLOCK_BOOTTIME in ns
}

func main() {
	threads := flag.Bool("threads", false, "print every thread")
	view := flag.String("view", "", "print the rows of this view instead of the processes")
	flag.Parse()
	out := bufio.NewWriterSize(os.Stdout, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	var err error
	if *view != "" {
		err = tellView(enc, *view)
	} else {
		err = tell(enc, *threads)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "truth:", err)
		os.Exit(1)
	}
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "truth:", err)
		os.Exit(1)
	}
}

func tell(enc *json.Encoder, threads bool) error {
	sys, err := system()
	if err != nil {
		return err
	}
	if err := enc.Encode(sys); err != nil {
		return err
	}
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	end := End{Kind: "end"}
	emit := func(dir string, pid, tid int) error {
		p, _ := process(dir, pid, tid)
		if p == nil { // its error can only mean that
			end.Vanished++
			return nil
		}
		end.Rows++
		return enc.Encode(p)
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		if !threads {
			if err := emit(dir, pid, pid); err != nil {
				return err
			}
			continue
		}
		tids, err := numbers(dir + "/task")
		if err != nil {
			end.Vanished++
			continue
		}
		for _, tid := range tids {
			if err := emit(dir+"/task/"+strconv.Itoa(tid), pid, tid); err != nil {
				return err
			}
		}
	}
	end.Uptime = clock(unix.CLOCK_BOOTTIME)
	return enc.Encode(end)
}

// numbers lists the entries of a directory that are numbers.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	return list, nil
}

func system() (System, error) {
	s := System{Kind: "system", PageSize: os.Getpagesize(), Self: os.Getpid(), ClockTicks: clockTicks()}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return s, err
	}
	s.Sysname, s.Release = unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Release[:])
	s.Version, s.Machine = unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Machine[:])
	s.Hostname = unix.ByteSliceToString(u.Nodename[:])
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	s.BootID = strings.TrimSpace(string(id))
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return s, err
	}
	for line := range strings.Lines(string(stat)) {
		_, _ = fmt.Sscanf(line, "btime %d", &s.BootTime) // all other lines do not match
		if len(line) > 3 && strings.HasPrefix(line, "cpu") && line[3] != ' ' {
			s.CPUs++
		}
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return s, err
	}
	if _, err := fmt.Sscan(string(uptime), &s.Uptime); err != nil {
		return s, fmt.Errorf("/proc/uptime: %w", err)
	}
	s.BootClock, s.RealClock = clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_REALTIME)
	return s, nil
}

func clock(id int32) int64 {
	var t unix.Timespec
	if unix.ClockGettime(id, &t) != nil {
		return 0
	}
	return time.Unix(t.Unix()).UnixNano()
}

// clockTicks reads AT_CLKTCK, the unit of times in /proc, as sysconf does.
func clockTicks() uint64 {
	const atClockTicks = 17
	auxv, _ := os.ReadFile("/proc/self/auxv")
	for ; len(auxv) >= 16; auxv = auxv[16:] {
		if binary.LittleEndian.Uint64(auxv) == atClockTicks {
			return binary.LittleEndian.Uint64(auxv[8:])
		}
	}
	return 100
}
