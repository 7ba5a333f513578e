package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

func init() {
	views["mounts"] = func(emit func(any) error) error {
		// A process is told only of the mounts below its own root: the one that is told
		// of most sees the namespace best.
		most := map[string]string{}
		err := eachProcess(func(pid int) error {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
			info, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
			if err == nil && err2 == nil && strings.Count(string(info), "\n") > strings.Count(most[link], "\n") {
				most[link] = string(info)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, link := range slices.Sorted(maps.Keys(most)) {
			ns, _ := strconv.ParseUint(strings.Trim(strings.TrimPrefix(link, "mnt:"), "[]"), 10, 64)
			for line := range strings.Lines(most[link]) {
				if err := emit(mountLine(ns, line)); err != nil {
					return err
				}
			}
		}
		return nil
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
	root, deleted := strings.CutSuffix(unescape(f[3]), "//deleted")
	return map[string]any{
		"deleted": deleted, "mnt_ns": ns, "mount_id": id, "parent_id": parent, "device": f[2], "root": root,
		"mount_point": unescape(f[4]), "options": strings.Split(f[5], ","), "propagation": propagation,
		"type": unescape(g[0]), "source": unescape(g[1]), "super_options": super,
	}
}
