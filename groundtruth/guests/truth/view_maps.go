package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	views["maps"] = func(emit func(any) error) error {
		return eachProcess(func(pid int) error { return tellMaps(pid, emit) })
	}
}

// eachProcess calls f for every process but this one.
func eachProcess(f func(pid int) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	slices.Sort(pids)
	for _, pid := range pids {
		if pid == os.Getpid() {
			continue
		}
		if err := f(pid); err != nil {
			return err
		}
	}
	return nil
}

// mapFlags are those of VmFlags that mean the same in all kernels since 5.10.
const mapFlags = " rd wr ex sh mr mw me ms gd um pf uw lo io sr rr dc de ac nr ht sf wf dd sd mm hg nh mg "

// tellMaps reports a process's memory by /proc/PID/smaps, or by the lines that smaps shares
// with maps, which a kernel without CONFIG_PROC_PAGE_MONITOR has alone.
func tellMaps(pid int, emit func(any) error) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	}
	if err != nil {
		return nil // it has gone
	}
	var row map[string]any
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, ":")
		switch {
		case !strings.Contains(strings.SplitN(line, " ", 2)[0], ":"):
			if row != nil {
				if err := emit(row); err != nil {
					return err
				}
			}
			m, err := mapsLine(line)
			if err != nil {
				return err
			}
			row = m.row(pid)
		case key == "Rss":
			row["resident"] = kilo(value)
		case key == "VmFlags":
			flags := []string{}
			for f := range strings.FieldsSeq(value) {
				if strings.Contains(mapFlags, " "+f+" ") {
					flags = append(flags, f)
				}
			}
			row["flags"] = flags
		case key == "Swap" && row["perms"].(string)[3] == 'p':
			row["swapped"] = kilo(value)
		}
	}
	if row == nil || row["path"] == "[vsyscall]" {
		return nil
	}
	return emit(row)
}

func kilo(value string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
	return n << 10
}

// mapped is a line of /proc/PID/maps, or several of one file.
type mapped struct {
	start, end, offset, inode uint64
	perms, path, device       string
	file, deleted             bool
}

// mapsLine takes the first line of a mapping apart.
func mapsLine(line string) (m mapped, err error) {
	var major, minor uint32
	if _, err := fmt.Sscanf(line, "%x-%x %s %x %x:%x %d", &m.start, &m.end, &m.perms, &m.offset, &major, &minor, &m.inode); err != nil {
		return m, fmt.Errorf("%q: %w", line, err)
	}
	if fields := strings.SplitN(line, " ", 6); len(fields) == 6 {
		m.path = unescape(strings.TrimLeft(fields[5], " "))
	}
	if m.file = m.inode != 0 || major != 0 || minor != 0; m.file {
		m.device = fmt.Sprintf("%d:%d", major, minor)
		m.path, m.deleted = strings.CutSuffix(m.path, " (deleted)")
	}
	return m, nil
}

// row is what the view maps reports of it.
func (m mapped) row(pid int) map[string]any {
	row := map[string]any{
		"pid": pid, "start": hexAddr(m.start), "end": hexAddr(m.end), "size": m.end - m.start,
		"perms": m.perms, "offset": m.offset, "anonymous": !m.file, "path": orNil(m.path), "deleted": nil, "device": nil, "inode": nil,
	}
	if m.file {
		row["inode"], row["device"], row["deleted"] = m.inode, m.device, m.deleted
	}
	return row
}

// unescape undoes what the kernel does to line breaks (and in mountinfo to spaces).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// devText is a device number as "major:minor".
func devText(dev uint64) string { return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)) }
