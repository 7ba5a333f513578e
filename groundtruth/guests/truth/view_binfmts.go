package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func init() { views["binfmts"] = tellBinfmts }

// tellBinfmts reports the entries of binfmt_misc; no file reports the handlers.
func tellBinfmts(emit func(any) error) error {
	const dir = "/proc/sys/fs/binfmt_misc"
	status, err := os.ReadFile(dir + "/status")
	if errors.Is(err, fs.ErrNotExist) {
		if err = unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); errors.Is(err, unix.ENODEV) {
			return nil // it is not loaded
		}
		if err == nil {
			status, err = os.ReadFile(dir + "/status")
		}
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "register" || e.Name() == "status" {
			continue
		}
		row := map[string]any{"kind": "misc", "name": e.Name(), "flags": nil, "extension": nil, "offset": nil, "magic": nil, "mask": nil, "load": nil}
		if err := lines(dir+"/"+e.Name(), func(line string) error { return miscLine(row, line, string(status)) }); err != nil {
			return err
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}

// miscLine takes one line of an entry.
func miscLine(row map[string]any, line, status string) error {
	key, value, _ := strings.Cut(line, " ")
	switch key {
	case "enabled", "disabled":
		row["enabled"] = key == "enabled" && strings.TrimSpace(status) == "enabled"
	case "interpreter", "magic", "mask":
		row[key] = value
	case "flags:":
		if value != "" {
			row["flags"] = value
		}
	case "extension":
		row[key] = strings.TrimPrefix(value, ".")
	case "offset":
		n, err := strconv.Atoi(value)
		row[key] = n
		return err
	default:
		return fmt.Errorf("%q", line)
	}
	return nil
}
