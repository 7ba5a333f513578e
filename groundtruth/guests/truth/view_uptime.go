package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { views["uptime"] = tellUptime }

// tellUptime reports what /proc/loadavg and the clocks say; how many threads there are
// changes with who asks.
func tellUptime(emit func(any) error) error {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	var load [3]float64
	if _, err := fmt.Sscan(string(b), &load[0], &load[1], &load[2]); err != nil {
		return fmt.Errorf("/proc/loadavg: %q: %w", b, err)
	}
	s, err := system()
	if err != nil {
		return err
	}
	up, now := clock(unix.CLOCK_BOOTTIME), clock(unix.CLOCK_REALTIME)
	at := func(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
	return emit(map[string]any{
		"cpus": s.CPUs, "load_1": load[0], "load_5": load[1], "load_15": load[2],
		"uptime": float64(up) / 1e9, "clock": at(now), "booted": at(now - up),
	})
}

func init() {
	views["cmdline"] = func(emit func(any) error) error {
		b, err := os.ReadFile("/proc/cmdline")
		if err != nil {
			return err
		}
		for i, word := range strings.Fields(string(b)) { // the lab's have no quotes
			name, value, set := strings.Cut(word, "=")
			row := map[string]any{"position": i, "name": name, "value": nil}
			if set {
				row["value"] = value
			}
			if err := emit(row); err != nil {
				return err
			}
		}
		return nil
	}
}
