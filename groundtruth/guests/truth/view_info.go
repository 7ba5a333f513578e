package main

import (
	"errors"
	"os"
	"strings"
)

func init() {
	views["info"] = func(emit func(any) error) error {
		s, err := system()
		if err != nil {
			return err
		}
		line, err := os.ReadFile("/proc/cmdline")
		if err != nil {
			return err
		}
		present, err1 := cpuSet("present")
		possible, err2 := cpuSet("possible")
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		return emit(map[string]any{
			"cpus_present": len(present), "cpus_possible": len(possible),
			"hostname": s.Hostname, "release": s.Release, "cpus": s.CPUs, "command_line": strings.TrimSuffix(string(line), "\n"),
			"system_state": "running",
		})
	}
}
