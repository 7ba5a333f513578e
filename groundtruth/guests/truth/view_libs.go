package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	views["libs"] = func(emit func(any) error) error {
		return eachProcess(func(pid int) error {
			for _, i := range imagesOf(pid) {
				var st unix.Stat_t
				program := unix.Stat(fmt.Sprintf("/proc/%d/exe", pid), &st) == nil && st.Ino == i.inode
				if err := emit(map[string]any{
					"pid": pid, "base": hexAddr(i.start), "size": i.end - i.start, "path": i.path, "deleted": i.deleted,
					"device": i.device, "inode": i.inode, "program": program,
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func hexAddr(a uint64) string { return fmt.Sprintf("0x%x", a) }

// mapsOf are the mappings of a process; none where it has gone.
func mapsOf(pid int) (all []mapped) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		m, err := mapsLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil
		}
		if m.path != "[vsyscall]" {
			all = append(all, m)
		}
	}
	return all
}

// imagesOf joins the mappings of one file that follow each other, if one of them may be
// executed.
func imagesOf(pid int) (images []mapped) {
	var run mapped
	code := false
	done := func() {
		if code {
			images = append(images, run)
		}
		run, code = mapped{}, false
	}
	for _, m := range mapsOf(pid) {
		if !m.file {
			continue
		}
		if !run.file || m.inode != run.inode || m.device != run.device || m.offset == 0 || m.offset < run.offset {
			done()
			run = m
		}
		run.end, run.offset = m.end, m.offset
		code = code || m.perms[2] == 'x'
	}
	done()
	return images
}
