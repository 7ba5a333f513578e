package main

import (
	"fmt"
	"strconv"
	"strings"
)

func init() { views["devices"] = tellDevices }

// tellDevices reports the drivers by /proc/devices and /proc/misc, which do not report
// first minor numbers.
func tellDevices(emit func(any) error) error {
	kind := ""
	err := lines("/proc/devices", func(line string) error {
		switch line {
		case "Character devices:":
			kind = "char"
			return nil
		case "Block devices:":
			kind = "block"
			return nil
		case "":
			return nil
		}
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		major, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		return emit(map[string]any{"kind": kind, "major": major, "name": name})
	})
	if err != nil {
		return err
	}
	return lines("/proc/misc", func(line string) error {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		minor, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		return emit(map[string]any{"kind": "misc", "major": 10, "minor": minor, "name": name})
	})
}
