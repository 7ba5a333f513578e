package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func init() {
	views["disks"] = tellDisks
	views["pci"] = tellPCI
	views["vmcoreinfo"] = tellVmcoreinfo
	views["runqueues"] = tellRunqueues
}

// sysfs reads a file of few words.
func sysfs(path ...string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(path...))
	return strings.Fields(string(b)), err
}

// sysfsNumber reads a file that holds a number.
func sysfsNumber(path ...string) (uint64, error) {
	f, err := sysfs(path...)
	if err != nil || len(f) == 0 {
		return 0, err
	}
	return strconv.ParseUint(f[0], 0, 64)
}

// tellDisks reports the block devices by /sys/class/block.
func tellDisks(emit func(any) error) error {
	const class = "/sys/class/block"
	entries, err := os.ReadDir(class)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		row := map[string]any{"name": e.Name(), "partition": nil, "start": nil}
		dev, err := sysfs(dir, "dev")
		if err != nil {
			return err
		}
		var major, minor uint64
		if _, err := fmt.Sscanf(dev[0], "%d:%d", &major, &minor); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		row["major"], row["minor"] = major, minor
		if n, err := sysfsNumber(dir, "partition"); err == nil {
			start, err := sysfsNumber(dir, "start")
			if err != nil {
				return err
			}
			row["partition"], row["start"] = n, start*512
		} else if n, err := sysfsNumber(dir, "removable"); err == nil {
			row["removable"] = n != 0
		}
		size, err1 := sysfsNumber(dir, "size")
		readOnly, err2 := sysfsNumber(dir, "ro")
		stat, err3 := sysfs(dir, "stat")
		if err1 != nil || err2 != nil || err3 != nil || len(stat) < 7 {
			return fmt.Errorf("%s: %d words in stat: %w", dir, len(stat), errors.Join(err1, err2, err3))
		}
		row["size"], row["read_only"] = size*512, readOnly != 0
		for i, name := range map[int]string{0: "reads", 4: "writes"} {
			n, err := strconv.ParseUint(stat[i], 10, 64)
			if err != nil {
				return fmt.Errorf("%s/stat: %w", dir, err)
			}
			row[name] = n
		}
		for i, name := range map[int]string{2: "read_bytes", 6: "write_bytes"} {
			n, err := strconv.ParseUint(stat[i], 10, 64)
			if err != nil {
				return fmt.Errorf("%s/stat: %w", dir, err)
			}
			row[name] = n * 512
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}

// tellPCI reports the devices by /sys/bus/pci.
func tellPCI(emit func(any) error) error {
	const bus = "/sys/bus/pci/devices"
	entries, err := os.ReadDir(bus)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(bus, e.Name())
		hex := func(name string, digits int) string {
			n, nameErr := sysfsNumber(dir, name)
			if nameErr != nil && err == nil {
				err = nameErr
			}
			return fmt.Sprintf("%0*x", digits, n)
		}
		row := map[string]any{
			"slot": e.Name(), "class": hex("class", 6), "vendor": hex("vendor", 4), "device": hex("device", 4),
			"subsystem": hex("subsystem_vendor", 4) + ":" + hex("subsystem_device", 4), "driver": nil,
		}
		revision, revisionErr := sysfsNumber(dir, "revision")
		if err != nil || revisionErr != nil {
			return fmt.Errorf("%s: %w", dir, errors.Join(err, revisionErr))
		}
		row["revision"] = revision
		if driver, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			row["driver"] = filepath.Base(driver)
		}
		windows := []string{}
		err := lines(filepath.Join(dir, "resource"), func(line string) error {
			f := strings.Fields(line)
			flags, err := strconv.ParseUint(f[2], 0, 64)
			if err != nil {
				return err
			}
			kind := ""
			if flags&0x100 != 0 {
				kind = "port "
			}
			if flags&0x300 != 0 && f[0] != f[1] {
				windows = append(windows, kind+trimHex(f[0])+"-"+trimHex(f[1]))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(windows) > 0 {
			row["resources"] = windows
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}

// tellVmcoreinfo reports the note that /proc/kcore holds.
func tellVmcoreinfo(emit func(any) error) error {
	core, err := elf.Open("/proc/kcore")
	if err != nil {
		return err
	}
	defer func() { _ = core.Close() }()
	for _, p := range core.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return err
		}
		for len(b) >= 12 {
			align := func(n uint32) int { return int(n+3) &^ 3 }
			name, size := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
			rest := b[12:]
			if align(name)+align(size) > len(rest) {
				break
			}
			text := rest[align(name):][:size]
			if string(bytes.TrimRight(rest[:name], "\x00")) == "VMCOREINFO" {
				for line := range strings.Lines(string(bytes.TrimRight(text, "\x00"))) {
					key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
					if ok {
						if err := emit(map[string]any{"key": key, "value": value}); err != nil {
							return err
						}
					}
				}
				return nil
			}
			b = rest[align(name)+align(size):]
		}
	}
	return fmt.Errorf("/proc/kcore has no VMCOREINFO")
}

// tellRunqueues reports the programs that the test left spinning, which always run or
// want to, on one processor each.
func tellRunqueues(emit func(any) error) error {
	pids, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, path := range pids {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		head, tail, _ := strings.Cut(string(b), ") ")
		pid, comm, _ := strings.Cut(head, " (")
		f := strings.Fields(tail)
		if !strings.HasPrefix(comm, "osspin") || f[0] != "R" {
			continue
		}
		n, err1 := strconv.Atoi(pid)
		cpu, err2 := strconv.Atoi(f[36]) // field 39 of proc(5)
		priority, err3 := strconv.Atoi(f[15])
		if err1 != nil || err2 != nil || err3 != nil {
			return fmt.Errorf("%s: %w", path, errors.Join(err1, err2, err3))
		}
		if err := emit(map[string]any{"cpu": cpu, "pid": n, "tid": n, "comm": comm, "class": "fair", "priority": priority + 100}); err != nil {
			return err
		}
	}
	return nil
}
