package main

import (
	"os"
	"strconv"
	"strings"
)

func init() {
	views["filesystems"] = func(emit func(any) error) error {
		b, err := os.ReadFile("/proc/filesystems")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			nodev, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if name == "" {
				nodev, name = "", nodev
			}
			if err := emit(map[string]any{"name": name, "nodev": nodev == "nodev"}); err != nil {
				return err
			}
		}
		return nil
	}
	views["swaps"] = func(emit func(any) error) error {
		b, err := os.ReadFile("/proc/swaps")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) != 5 || f[0] == "Filename" {
				continue
			}
			path, deleted := strings.CutSuffix(unescape(f[0]), " (deleted)")
			priority, _ := strconv.Atoi(f[4])
			if err := emit(map[string]any{
				"path": path, "deleted": deleted, "type": f[1], "size": kilo(f[2]), "used": kilo(f[3]), "priority": priority,
			}); err != nil {
				return err
			}
		}
		return nil
	}
}
