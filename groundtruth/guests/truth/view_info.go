package main

import (
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
		return emit(map[string]any{
			"hostname": s.Hostname, "release": s.Release, "cpus": s.CPUs, "command_line": strings.TrimSuffix(string(line), "\n"),
			"system_state": "running",
		})
	}
}
