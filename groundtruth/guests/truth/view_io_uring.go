package main

import (
	"os"
	"strconv"
	"strings"
)

func init() { views["io_uring"] = viewIOUring }

// viewIOUring reads the fdinfo of each ring (io_uring_show_fdinfo). Which of its lines a
// kernel has differs: what it lacks is left out.
func viewIOUring(emit func(any) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid)
		fds, err := numbers(dir + "/fd")
		if err != nil {
			continue
		}
		for _, fd := range fds {
			n := strconv.Itoa(fd)
			if to, _ := os.Readlink(dir + "/fd/" + n); to != "anon_inode:[io_uring]" {
				continue
			}
			text, err := os.ReadFile(dir + "/fdinfo/" + n)
			if err != nil {
				continue // closed meanwhile
			}
			row := map[string]any{"pid": pid, "fd": fd}
			for line := range strings.Lines(string(text)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
				value = strings.TrimSpace(value)
				number, err := strconv.ParseInt(value, 0, 64)
				if err != nil {
					continue
				}
				switch name {
				case "SqMask":
					row["sq_entries"] = number + 1
				case "CqMask":
					row["cq_entries"] = number + 1
				case "SqHead":
					row["sq_head"] = number
				case "SqTail":
					row["sq_tail"] = number
				case "CqHead":
					row["cq_head"] = number
				case "CqTail":
					row["cq_tail"] = number
				case "UserBufs":
					row["buffers"] = number
				case "SqThread":
					if row["sq_thread"] = number; number <= 0 {
						row["sq_thread"] = nil
					}
				}
			}
			if err := emit(row); err != nil {
				return err
			}
		}
	}
	return nil
}
