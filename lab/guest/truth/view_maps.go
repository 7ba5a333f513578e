package main

import (
	"fmt"
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

func tellMaps(pid int, emit func(any) error) error {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
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
			if row, err = mapsLine(pid, line); err != nil {
				return err
			}
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

// mapsLine takes the first line of a mapping apart.
func mapsLine(pid int, line string) (map[string]any, error) {
	var start, end, offset, inode uint64
	var perms string
	var major, minor uint32
	if _, err := fmt.Sscanf(line, "%x-%x %s %x %x:%x %d", &start, &end, &perms, &offset, &major, &minor, &inode); err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	row := map[string]any{
		"pid": pid, "start": fmt.Sprintf("0x%x", start), "end": fmt.Sprintf("0x%x", end), "size": end - start,
		"perms": perms, "offset": offset, "anonymous": true, "path": nil, "deleted": nil, "device": nil, "inode": nil,
	}
	fields := strings.SplitN(line, " ", 6)
	path := ""
	if len(fields) == 6 {
		path = unescape(strings.TrimLeft(fields[5], " "))
	}
	if inode != 0 || major != 0 || minor != 0 {
		row["anonymous"], row["inode"] = false, inode
		row["device"] = fmt.Sprintf("%d:%d", major, minor)
		path, row["deleted"] = strings.CutSuffix(path, " (deleted)")
	}
	if path != "" {
		row["path"] = path
	}
	return row, nil
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
