package main

import (
	"fmt"
	"strconv"
	"strings"
)

func init() { views["locks"] = tellLocks }

// tellLocks reports file locks by /proc/locks:
// "1: POSIX  ADVISORY  WRITE 199 00:1d:12 10 29", one that waits with "->" in front.
func tellLocks(emit func(any) error) error {
	return lines("/proc/locks", func(line string) error {
		f := strings.Fields(line)
		row := map[string]any{"blocked": false}
		if f[1] == "->" {
			row["blocked"], f = true, append(f[:1], f[2:]...)
		}
		row["kind"], row["mode"] = f[1], f[3]
		pid, err := strconv.Atoi(f[4])
		if err != nil {
			return err
		}
		if row["pid"] = pid; pid <= 0 {
			row["pid"] = nil
		}
		var major, minor, inode uint64
		if _, err := fmt.Sscanf(f[5], "%x:%x:%d", &major, &minor, &inode); err != nil {
			return fmt.Errorf("%q: %w", f[5], err)
		}
		row["device"], row["inode"] = fmt.Sprintf("%d:%d", major, minor), inode
		if row["start"], err = strconv.ParseInt(f[6], 10, 64); err != nil {
			return err
		}
		row["end"] = nil
		if f[7] != "EOF" {
			if row["end"], err = strconv.ParseInt(f[7], 10, 64); err != nil {
				return err
			}
		}
		return emit(row)
	})
}
