package main

import (
	"fmt"
	"strconv"
	"strings"
)

func init() {
	views["meminfo"] = tellMeminfo
	views["slabs"] = tellSlabs
	views["vmalloc"] = tellVmallocs
	views["symbols"] = tellSymbols
}

// tellMeminfo reports what /proc/meminfo has in kB.
func tellMeminfo(emit func(any) error) error {
	return lines("/proc/meminfo", func(line string) error {
		name, value, _ := strings.Cut(line, ":")
		number, kb := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		if !kb {
			return nil // a number of huge pages
		}
		return emit(map[string]any{"name": name, "size": n << 10})
	})
}

// tellSlabs reports the caches by /proc/slabinfo.
func tellSlabs(emit func(any) error) error {
	return lines("/proc/slabinfo", func(line string) error {
		if strings.HasPrefix(line, "slabinfo") || strings.HasPrefix(line, "#") {
			return nil
		}
		var name, tunables, data string
		var active, objects, size, perSlab, pages, limit, batch, shared, activeSlabs, slabs, avail uint64
		// A name may hold anything but blanks; so far none does.
		if _, err := fmt.Sscanf(line, "%s %d %d %d %d %d : %s %d %d %d : %s %d %d %d", &name, &active, &objects, &size, &perSlab, &pages,
			&tunables, &limit, &batch, &shared, &data, &activeSlabs, &slabs, &avail); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		return emit(map[string]any{
			"name": name, "active": active, "objects": objects, "size": size, "per_slab": perSlab, "pages_per_slab": pages, "slabs": slabs,
		})
	})
}

// tellVmallocs reports the areas in use by /proc/vmallocinfo.
func tellVmallocs(emit func(any) error) error {
	return lines("/proc/vmallocinfo", func(line string) error {
		f := strings.Fields(line)
		start, end, _ := strings.Cut(f[0], "-")
		size, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		row := map[string]any{"start": trimHex(start), "end": trimHex(end), "size": size, "pages": nil, "physical": nil, "caller_symbol": nil}
		kinds := []string{}
		for _, w := range f[2:] {
			key, value, isValue := strings.Cut(w, "=")
			switch {
			case w == "unpurged" || w == "vm_area":
				return nil
			case key == "pages" && isValue:
				n, err := strconv.ParseUint(value, 10, 64)
				if err != nil {
					return fmt.Errorf("%q: %w", line, err)
				}
				row["pages"] = n
			case key == "phys" && isValue:
				row["physical"] = trimHex(value)
			case strings.HasPrefix(w, "["): // the module of the caller
			case strings.Contains(w, "+0x"):
				row["caller_symbol"] = strings.TrimSuffix(w[:strings.LastIndexByte(w, '/')], "+0x0")
			case strings.HasPrefix(w, "N") && isValue || w == "vpages":
			default:
				kinds = append(kinds, w)
			}
		}
		row["kinds"] = kinds
		return emit(row)
	})
}

// trimHex takes the leading zeros from a number that begins with 0x.
func trimHex(s string) string {
	digits := strings.TrimLeft(strings.TrimPrefix(s, "0x"), "0")
	if digits == "" {
		digits = "0"
	}
	return "0x" + digits
}

// tellSymbols reports one of 32 symbols of the kernel's own, which take minutes to distinguish from
// an emulated guest, and all others.
func tellSymbols(emit func(any) error) error {
	n := 0
	return eachSymbol(func(a uint64, kind, name, module string) error {
		row := map[string]any{"address": fmt.Sprintf("%#x", a), "type": kind, "name": name, "module": nil}
		if module != "" {
			row["module"] = module
		} else if n++; n%32 != 0 {
			return nil
		}
		return emit(row)
	})
}
