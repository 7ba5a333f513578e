package main

import (
	"fmt"
	"os"
	"strings"
)

func init() {
	views["strings"] = func(emit func(any) error) error { return stringsOf(1, emit) }
}

// stringsOf reports the runs of printable ASCII in the pages that a process has in memory,
// by its pagemap. Pages that follow each other in its address space are one text. What the
// kernel does not let be read (the page of the vDSO's data) is left out.
func stringsOf(pid int, emit func(any) error) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	maps, err := os.ReadFile(dir + "maps")
	if err != nil {
		return err
	}
	p, err := openMemory(pid)
	if err != nil {
		return err
	}
	defer p.close()
	var text []byte
	var start uint64
	tell := func() error {
		defer func() { text = text[:0] }()
		return runs(text, func(at, n int) error {
			return emit(map[string]any{
				"pid": pid, "address": fmt.Sprintf("%#x", start+uint64(at)), "encoding": "ascii", "length": n, "text": string(text[at : at+n]),
			})
		})
	}
	page := make([]byte, pageSize)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		for i, in := range p.present(from, to) {
			a := from + uint64(i)*pageSize
			if !in {
				continue
			}
			if _, err := p.mem.ReadAt(page, int64(a)); err != nil {
				continue
			}
			if start+uint64(len(text)) != a {
				if err := tell(); err != nil {
					return err
				}
				start = a
			}
			text = append(text, page...)
		}
	}
	return tell()
}

// runs calls f with the runs of 6 to 4096 printable bytes. Longer ones, which the view
// cuts, are left out.
func runs(text []byte, f func(at, n int) error) error {
	for i := 0; i < len(text); {
		n := 0
		for i+n < len(text) && (text[i+n] >= ' ' && text[i+n] <= '~' || text[i+n] == '\t') {
			n++
		}
		if n >= 6 && n <= 4096 {
			if err := f(i, n); err != nil {
				return err
			}
		}
		i += n + 1
	}
	return nil
}
