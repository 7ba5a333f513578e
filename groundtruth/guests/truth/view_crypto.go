package main

import (
	"os"
	"strconv"
	"strings"
)

func init() { views["crypto"] = tellAlgorithms }

// tellAlgorithms reads /proc/crypto.
func tellAlgorithms(emit func(any) error) error {
	b, err := os.ReadFile("/proc/crypto")
	if err != nil {
		return err
	}
	for block := range strings.SplitSeq(string(b), "\n\n") {
		row := map[string]any{}
		for line := range strings.Lines(block) {
			key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			switch key {
			case "name", "driver", "module", "selftest", "internal", "type":
				if ok {
					row[key] = value
				}
			case "priority":
				row["priority"], _ = strconv.Atoi(value)
			case "refcnt":
				row["refcount"], _ = strconv.Atoi(value)
			}
		}
		if len(row) == 0 {
			continue
		}
		if t, ok := row["type"]; ok && t == "unknown" {
			delete(row, "type")
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}
