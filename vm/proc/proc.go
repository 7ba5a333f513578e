// Package proc reads what /proc shows about the processes of this host that run
// virtual machines.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one process of this host, as it was when it was looked at.
type Process struct {
	PID  int
	UID  int      // effective
	Exe  string   // path of the executable; "" when it may not be looked at
	Args []string // command line
	// Started is in clock ticks (1/100 s) after boot; with PID it names
	// a process permanently.
	Started uint64
}

// maxFile bounds what is read of one file of /proc, in bytes. A command line can
// have 2 MiB and more; a process with 65530 maps (the limit) has 8 MiB of them.
const maxFile = 16 << 20

// path is a file of /proc/PID.
func path(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer // grows faster than what io.ReadAll fills
	_, err = b.ReadFrom(io.LimitReader(f, maxFile))
	return b.Bytes(), err
}

// Get looks at process pid. The error is [os.ErrNotExist] when there is none.
func Get(pid int) (Process, error) {
	p := Process{PID: pid}
	var st unix.Stat_t
	if err := unix.Stat(path(pid, ""), &st); err != nil {
		return p, fmt.Errorf("process %d: %w", pid, err)
	}
	p.UID = int(st.Uid)
	cmdline, err := read(path(pid, "cmdline"))
	if err != nil {
		return p, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	if s := strings.TrimSuffix(string(cmdline), "\x00"); s != "" {
		p.Args = strings.Split(s, "\x00")
	}
	p.Exe, _ = os.Readlink(path(pid, "exe"))
	stat, err := read(path(pid, "stat"))
	if err != nil {
		return p, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	if p.Started, err = startTime(stat); err != nil {
		return p, fmt.Errorf("process %d: %w", pid, err)
	}
	return p, nil
}

// gone turns the error for a process that ended between two looks into the one
// for a process that never was.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return os.ErrNotExist
	}
	return err
}

// startTime is field 22 of /proc/PID/stat. The name, field 2, may hold anything,
// parentheses and spaces too: what counts is the last parenthesis.
func startTime(stat []byte) (uint64, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, errors.New("stat without a name")
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 20 {
		return 0, errors.New("stat with too few fields")
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// CreatedAt is when p started, to 10 ms.
func (p Process) CreatedAt() time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	up := time.Duration(now.Nano())
	// USER_HZ is 100 on every architecture that matters here.
	started := time.Duration(p.Started) * 10 * time.Millisecond
	return time.Now().Add(started - up)
}

// PIDs lists the processes of this host.
func PIDs() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Base is the name of the program that p runs, without folders.
func (p Process) Base() string {
	exe := strings.TrimSuffix(p.Exe, " (deleted)") // after an upgrade
	if exe == "" && len(p.Args) > 0 {
		exe = p.Args[0]
	}
	if exe == "" {
		return ""
	}
	return filepath.Base(exe)
}

// Path resolves a path that p uses: relative to its working directory, in its
// mount namespace.
func (p Process) Path(name string) string {
	if name == "" {
		return ""
	}
	if !filepath.IsAbs(name) {
		cwd, err := os.Readlink(path(p.PID, "cwd"))
		if err != nil {
			return name
		}
		name = filepath.Join(cwd, name)
	}
	// The plain path, where it is the same: it is what people recognise.
	in := path(p.PID, "root") + name
	var here, there unix.Stat_t
	if unix.Stat(in, &there) != nil ||
		unix.Stat(name, &here) == nil && here.Ino == there.Ino && here.Dev == there.Dev {
		return name
	}
	return in
}
