package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func init() { views["interrupts"] = tellInterrupts }

// tellInterrupts reports the interrupt lines by /sys/kernel/irq, and the software
// interrupts by /proc/softirqs.
func tellInterrupts(emit func(any) error) error {
	numbers, err := numbers("/sys/kernel/irq")
	if err != nil {
		return err
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		say := func(name string) string {
			b, _ := os.ReadFile(filepath.Join("/sys/kernel/irq", strconv.Itoa(n), name)) // an empty one cannot be read
			return strings.TrimSpace(string(b))
		}
		orNull := func(s string) any {
			if s == "" {
				return nil
			}
			return s
		}
		var count uint64
		for word := range strings.SplitSeq(say("per_cpu_count"), ",") {
			c, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				return fmt.Errorf("interrupt %d: %q: %w", n, word, err)
			}
			count += c
		}
		hardware := any(nil)
		if h, err := strconv.ParseUint(say("hwirq"), 10, 64); err == nil {
			hardware = h
		}
		for name := range strings.SplitSeq(say("actions"), ",") {
			row := map[string]any{"kind": "irq", "number": n, "count": count, "chip": orNull(say("chip_name")), "trigger": orNull(say("name")), "name": orNull(name)}
			if hardware != nil {
				row["hardware"] = hardware
			}
			if err := emit(row); err != nil {
				return err
			}
		}
	}
	rank := -1
	return lines("/proc/softirqs", func(line string) error {
		if rank++; rank == 0 {
			return nil // the processors
		}
		f := strings.Fields(line)
		var count uint64
		for _, word := range f[1:] {
			c, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				return err
			}
			count += c
		}
		return emit(map[string]any{"kind": "softirq", "number": rank - 1, "name": strings.TrimSuffix(f[0], ":"), "count": count, "hardware": nil})
	})
}
