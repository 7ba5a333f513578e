package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// clocks are the bases of high-resolution timers, in the order of /proc/timer_list.
var clocks = []string{"monotonic", "realtime", "boottime", "tai", "monotonic_soft", "realtime_soft", "boottime_soft", "tai_soft"}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func init() {
	// /proc/timer_list reports the high-resolution timers, not the wheels.
	views["timers"] = func(emit func(any) error) error {
		cpu, clock, function := int64(-1), int64(0), ""
		return lines("/proc/timer_list", func(line string) error {
			f := strings.Fields(strings.ReplaceAll(line, ",", ""))
			switch {
			case len(f) == 2 && f[0] == "cpu:":
				cpu = number(f[1])
			case len(f) == 2 && f[0] == "clock":
				clock = number(strings.TrimSuffix(f[1], ":"))
			case len(f) == 4 && strings.HasPrefix(f[0], "#"):
				function = f[2]
			case len(f) > 4 && f[0] == "#" && f[1] == "expires" && cpu >= 0 && int(clock) < len(clocks):
				_, hard, _ := strings.Cut(f[3], "-") // the earliest and the latest time
				return emit(map[string]any{
					"cpu": cpu, "kind": "high resolution", "base": clocks[clock], "expires": number(hard), "function_symbol": function,
				})
			}
			return nil
		})
	}
	// Of the queues, sysfs has those made with WQ_SYSFS.
	views["workqueues"] = func(emit func(any) error) error {
		dirs, err := filepath.Glob("/sys/devices/virtual/workqueue/*/max_active")
		if err != nil {
			return err
		}
		for _, file := range dirs {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			row := map[string]any{"name": filepath.Base(filepath.Dir(file)), "max_active": number(strings.TrimSpace(string(b)))}
			if err := emit(row); err != nil {
				return err
			}
		}
		return nil
	}
}
