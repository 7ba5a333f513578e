package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

func init() {
	views["mounts"] = func(emit func(any) error) error {
		seen := map[string]bool{}
		return eachProcess(func(pid int) error {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
			info, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
			if err != nil || err2 != nil || seen[link] {
				return nil
			}
			seen[link] = true
			ns, _ := strconv.ParseUint(strings.Trim(strings.TrimPrefix(link, "mnt:"), "[]"), 10, 64)
			for line := range strings.Lines(string(info)) {
				if err := emit(mountLine(ns, line)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func mountLine(ns uint64, line string) map[string]any {
	before, after, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	f, g := strings.Split(before, " "), strings.Split(after, " ")
	id, _ := strconv.Atoi(f[0])
	parent, _ := strconv.Atoi(f[1])
	super := []string{}
	for o := range strings.SplitSeq(g[2], ",") {
		if slices.Contains([]string{"ro", "rw", "sync", "dirsync", "mand", "lazytime"}, o) {
			super = append(super, o)
		}
	}
	propagation := []string{}
	for _, p := range f[6:] {
		if p != "" && !strings.HasPrefix(p, "propagate_from") {
			propagation = append(propagation, p)
		}
	}
	return map[string]any{
		"mnt_ns": ns, "mount_id": id, "parent_id": parent, "device": f[2], "root": unescape(f[3]),
		"mount_point": unescape(f[4]), "options": strings.Split(f[5], ","), "propagation": propagation,
		"type": unescape(g[0]), "source": unescape(g[1]), "super_options": super,
	}
}
