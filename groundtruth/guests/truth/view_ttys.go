package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["ttys"] = tellTTYs }

// teletypes are what this guest's kernel says of its terminals.
type teletypes struct {
	drivers []ttyDriver
	ldiscs  map[int]string
	console uint64 // device behind /dev/console; 0: not known
	rows    map[string]map[string]any
}

type ttyDriver struct {
	name, driver string
	major        uint32
	first, last  uint32
}

// tellTTYs reports the terminals that processes have open or are controlled by.
func tellTTYs(emit func(any) error) error {
	t := &teletypes{ldiscs: map[int]string{}, rows: map[string]map[string]any{}}
	if err := errors.Join(t.readDrivers(), lines("/proc/tty/ldiscs", func(line string) error {
		var name string
		var number int
		_, err := fmt.Sscan(line, &name, &number)
		t.ldiscs[number] = name
		return err
	})); err != nil {
		return err
	}
	if b, err := os.ReadFile("/sys/class/tty/console/active"); err == nil {
		names := strings.Fields(string(b))
		var major, minor uint32
		if dev, err := os.ReadFile("/sys/class/tty/" + names[len(names)-1] + "/dev"); err == nil {
			if _, err := fmt.Sscanf(string(dev), "%d:%d", &major, &minor); err != nil {
				return err
			}
			t.console = unix.Mkdev(major, minor)
		}
	}
	if err := eachProcess(t.process); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(t.rows)) {
		if err := emit(t.rows[key]); err != nil {
			return err
		}
	}
	return nil
}

func (t *teletypes) readDrivers() error {
	return lines("/proc/tty/drivers", func(line string) error {
		f := strings.Fields(line)
		if len(f) < 4 {
			return fmt.Errorf("%q", line)
		}
		major, err := strconv.ParseUint(f[2], 10, 32)
		first, last, isRange := strings.Cut(f[3], "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 32)
		if f[0] == "unknown" { // the driver has no name
			f[0] = ""
		}
		t.drivers = append(t.drivers, ttyDriver{filepath.Base(f[1]), f[0], uint32(major), uint32(a), uint32(b)})
		return errors.Join(err, err1, err2)
	})
}

// row is that of a device; nil if it is not a terminal, but something that leads to one.
func (t *teletypes) row(dev uint64) map[string]any {
	major, minor := unix.Major(dev), unix.Minor(dev)
	for _, d := range t.drivers {
		if d.major != major || minor < d.first || minor > d.last || major == 5 {
			continue
		}
		key := devText(dev)
		if t.rows[key] == nil {
			row := map[string]any{"device": key, "driver": nil, "index": minor - d.first, "open_by": nil}
			if d.driver != "" {
				row["driver"] = d.driver
			}
			switch d.name {
			case "pts":
				row["name"] = fmt.Sprintf("pts/%d", minor)
			case "tty":
				row["name"] = fmt.Sprintf("tty%d", minor)
			default:
				row["name"] = fmt.Sprintf("%s%d", d.name, minor-d.first)
			}
			t.rows[key] = row
		}
		return t.rows[key]
	}
	return nil
}

// process adds the terminals of a process.
func (t *teletypes) process(pid int) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil //nolint:nilerr // it has gone
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	session, err1 := strconv.Atoi(f[3])
	number, err2 := strconv.ParseInt(f[4], 10, 64)
	group, err3 := strconv.Atoi(f[5])
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("%s: %w", stat, err)
	}
	// As new_encode_dev makes it.
	controlling := unix.Mkdev(uint32(number>>8&0xfff), uint32(number&0xff|number>>12&0xfff00))
	if number != 0 {
		if row := t.row(controlling); row != nil {
			row["session"] = session
			if group > 0 {
				row["pgrp"] = group
			}
		}
	}
	fds, err := os.ReadDir(dir + "fd")
	if err != nil {
		return nil //nolint:nilerr // it has gone
	}
	for _, fd := range fds {
		var st unix.Stat_t
		if unix.Stat(dir+"fd/"+fd.Name(), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
			continue
		}
		dev := st.Rdev
		switch dev {
		case unix.Mkdev(5, 0):
			dev = 0 // the terminal that controlled it when it was opened
		case unix.Mkdev(5, 1):
			dev = t.console
		case unix.Mkdev(5, 2):
			dev = master(dir + "fdinfo/" + fd.Name())
		}
		row := t.row(dev)
		if row == nil {
			continue
		}
		pids, _ := row["open_by"].([]int)
		if !slices.Contains(pids, pid) {
			row["open_by"] = append(pids, pid)
		}
		if st.Rdev != unix.Mkdev(5, 2) && row["discipline"] == nil {
			if err := t.ask(dir+"fd/"+fd.Name(), row); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EIO) {
				return fmt.Errorf("%s%s: %w", dir, fd.Name(), err)
			}
		}
	}
	return nil
}

// master is the device of the pseudo-terminal whose master is open.
func master(fdinfo string) (dev uint64) {
	_ = lines(fdinfo, func(line string) error {
		if index, ok := strings.CutPrefix(line, "tty-index:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(index), 10, 20)
			dev = unix.Mkdev(128, uint32(n))
			return err
		}
		return nil
	})
	return dev
}

// ask opens a terminal once more, and asks it.
func (t *teletypes) ask(path string, row map[string]any) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGETD)
	if err != nil {
		return err
	}
	row["rows"], row["columns"], row["discipline"] = size.Row, size.Col, t.ldiscs[number]
	row["receive_owner"], row["discipline_owner"], row["write_owner"] = "kernel", "kernel", "kernel"
	return nil
}
