package qemu

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
)

// ramRow is guest RAM in the flat view of the system address space.
type ramRow struct {
	start, last uint64 // guest-physical, last is inclusive
	name        string // of the RAM block
	offset      uint64 // in the block, in bytes
}

// row matches what "info mtree -f" prints for each part of a flat view
// (system/memory.c, mtree_print_flatview); behind the offset, KVM says which rows
// it knows:
//
//	0000000000100000-000000007fffffff (prio 0, ram): m @0000000000100000 KVM
var row = regexp.MustCompile(`^\s*([0-9a-f]{1,16})-([0-9a-f]{1,16}) \(prio (-?\d+), ram\): (.*?)(?: @([0-9a-f]{1,16}))?(?: [A-Z]+)?$`)

// parseMtree finds the RAM rows of the system address space in the output of
// "info mtree -f". blocks are the memory backends. Other rows of kind ram are not
// the machine's RAM: video memory, and shared memory of a PCI device (which has
// priority 1).
func parseMtree(text string, blocks map[string]uint64) []ramRow {
	var rows []ramRow
	system := false // in the view that the system address space has
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n ")
		switch {
		case strings.HasPrefix(line, "FlatView #"):
			if system {
				return mergeRows(rows)
			}
		case strings.HasPrefix(line, ` AS "memory"`):
			system = true
		}
		if !system || !strings.Contains(line, ", ram): ") { // spares the costly match
			continue
		}
		m := row.FindStringSubmatch(line)
		if m == nil || m[3] != "0" {
			continue
		}
		// Old machine types name a block by its path, /objects/ID.
		name := m[4][strings.LastIndexByte(m[4], '/')+1:]
		size, ok := blocks[name]
		if !ok {
			continue
		}
		r := ramRow{name: name}
		r.start, _ = strconv.ParseUint(m[1], 16, 64) // the expression leaves no error
		r.last, _ = strconv.ParseUint(m[2], 16, 64)
		r.offset, _ = strconv.ParseUint(m[5], 16, 64) // "" is 0
		if r.last < r.start || r.offset > size || r.last-r.start >= size-r.offset {
			continue
		}
		rows = append(rows, r)
	}
	return mergeRows(rows)
}

// mergeRows joins the rows of a block whose addresses and offsets run in
// parallel, over the gaps between them: what lies over RAM there (the VGA window,
// shadowed ROM, a PCI device that the guest placed on top) hides it from the
// guest's CPUs, but the RAM is there.
func mergeRows(rows []ramRow) []ramRow {
	slices.SortFunc(rows, func(a, b ramRow) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	var out []ramRow
next:
	for _, r := range rows {
		for i := range out {
			o := &out[i]
			if o.name == r.name && o.start-o.offset == r.start-r.offset {
				o.last = max(o.last, r.last)
				continue next
			}
		}
		out = append(out, r)
	}
	return out
}

// layout is the guest-physical map of rows, over blocks one after the other in
// the order given.
func layout(rows []ramRow, order []string, blocks map[string]uint64) phys.Layout {
	base := map[string]uint64{}
	var at uint64
	for _, name := range order {
		base[name] = at
		at += blocks[name]
	}
	l := phys.Layout{Name: "as QEMU says"}
	for _, r := range rows {
		l.Segments = append(l.Segments, phys.Segment{
			Start: phys.Addr(r.start), Size: r.last - r.start + 1, Offset: base[r.name] + r.offset,
		})
	}
	return l
}

var hva = regexp.MustCompile(`^Host virtual address for 0x[0-9a-f]+ \(.*\) is 0x([0-9a-f]{1,16})\s*$`)

// parseHVA parses what "gpa2hva ADDR" prints.
func parseHVA(text string) (uint64, bool) {
	m := hva.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseUint(m[1], 16, 64)
	return v, err == nil
}
