package main

import (
	"fmt"
	"os"
	"strings"
)

func init() { views["iomem"] = tellResources }

// tellResources reads /proc/iomem and /proc/ioports.
func tellResources(emit func(any) error) error {
	for path, kind := range map[string]string{"/proc/iomem": "memory", "/proc/ioports": "port"} {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			depth := (len(line) - len(strings.TrimLeft(line, " "))) / 2
			span, name, _ := strings.Cut(strings.TrimSuffix(strings.TrimLeft(line, " "), "\n"), " : ")
			var start, end uint64
			if _, err := fmt.Sscanf(span, "%x-%x", &start, &end); err != nil {
				return fmt.Errorf("%s: %q: %w", path, line, err)
			}
			row := map[string]any{"kind": kind, "start": fmt.Sprintf("%#x", start), "end": fmt.Sprintf("%#x", end), "name": name}
			if depth < 4 { // they are shown no deeper than that
				row["depth"] = depth
			}
			if err := emit(row); err != nil {
				return err
			}
		}
	}
	return nil
}
