package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

func init() { views["zones"] = tellZones }

// tellZones reports the zones by /proc/zoneinfo and /proc/buddyinfo, which has those with
// memory.
func tellZones(emit func(any) error) error {
	blocks := map[string][]uint64{}
	err := lines("/proc/buddyinfo", func(line string) error {
		head, tail, _ := strings.Cut(line, ", zone")
		f := strings.Fields(tail)
		if len(f) == 0 {
			return fmt.Errorf("/proc/buddyinfo: %q", line)
		}
		key := head + " " + f[0]
		for _, w := range f[1:] {
			n, err := strconv.ParseUint(w, 10, 64)
			if err != nil {
				return fmt.Errorf("/proc/buddyinfo: %q: %w", line, err)
			}
			blocks[key] = append(blocks[key], n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/zoneinfo")
	if err != nil {
		return err
	}
	for part := range strings.SplitSeq(string(b), "Node ") {
		head, rest, _ := strings.Cut(part, "\n")
		node, zone, _ := strings.Cut(head, ", zone")
		zone = strings.TrimSpace(zone)
		free := blocks["Node "+node+" "+zone]
		if free == nil {
			continue
		}
		n, err := strconv.Atoi(node)
		if err != nil {
			return fmt.Errorf("/proc/zoneinfo: %q: %w", head, err)
		}
		row := map[string]any{"node": n, "zone": zone, "free_blocks": free}
		for line := range strings.Lines(rest) {
			f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "pages"))
			if len(f) != 2 {
				continue
			}
			name := strings.TrimSuffix(f[0], ":")
			pages, err := strconv.ParseUint(f[1], 10, 64)
			if err != nil || row[name] != nil { // pagesets report "high" too
				continue
			}
			switch name {
			case "free", "min", "low", "high", "spanned", "present", "managed":
				row[name] = pages * pageSize
			case "start_pfn":
				row["start"] = hexAddr(pages * pageSize)
			}
		}
		if err := emit(row); err != nil {
			return err
		}
	}
	return nil
}
