package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["cgroups"] = cgroupsView }

// cgroupsView reports the groups of the unified hierarchy, where that is mounted.
func cgroupsView(emit func(any) error) error {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
			continue
		}
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil //nolint:nilerr // it has gone
			}
			row := cgroupOf(root, path)
			if row == nil {
				return nil
			}
			return emit(row)
		})
	}
	return nil
}

func cgroupOf(root, path string) map[string]any {
	read := func(name string) (string, bool) {
		b, err := os.ReadFile(path + "/" + name)
		return strings.TrimSpace(string(b)), err == nil
	}
	controllers, ok := read("cgroup.controllers")
	if !ok {
		return nil
	}
	procs, ok := read("cgroup.procs")
	if !ok {
		return nil
	}
	name := strings.TrimPrefix(path, root)
	if name == "" {
		name = "/"
	}
	row := map[string]any{
		"hierarchy": 0, "version": 2, "path": procsText(name), "controllers": strings.Fields(controllers),
		"processes": len(strings.Fields(procs)), "level": strings.Count(name[1:], "/") + 1,
	}
	if name == "/" {
		row["level"] = 0
	}
	// We, and who runs us, are not there when outsight looks.
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil && strings.Contains("\n"+string(own), "\n0::"+name+"\n") {
		delete(row, "processes")
	}
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil {
		row["id"] = st.Ino
	}
	number := func(column, file string) {
		s, ok := read(file)
		if n, err := strconv.ParseUint(s, 10, 64); err == nil {
			row[column] = n
		} else if ok {
			row[column] = nil // "max"
		}
	}
	number("memory", "memory.current")
	number("memory_max", "memory.max")
	number("pids", "pids.current")
	number("pids_max", "pids.max")
	// What is charged to the groups above is ours, too.
	if own, err := os.ReadFile("/proc/self/cgroup"); err == nil && strings.Contains("\n"+strings.ReplaceAll(string(own), "\n", "/\n"), "\n0::"+strings.TrimSuffix(name, "/")+"/") {
		delete(row, "memory")
		delete(row, "pids")
	}
	if s, ok := read("cgroup.freeze"); ok {
		row["removed"] = false
		row["frozen"] = s == "1"
	}
	return row
}
