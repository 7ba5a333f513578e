package qemu

import (
	"errors"
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

// parseRow parses what "info mtree -f" prints for each part of a flat view
// (system/memory.c, mtree_print_flatview), if it is RAM of priority 0; behind the
// offset, KVM says which rows it knows:
//
//	0000000000100000-000000007fffffff (prio 0, ram): m @0000000000100000 KVM
func parseRow(line string) (r ramRow, ok bool) {
	where, what, ok := strings.Cut(line, " (prio 0, ram): ")
	first, last, ok2 := strings.Cut(strings.TrimLeft(where, " \t"), "-")
	if !ok || !ok2 {
		return r, false
	}
	if name, word, ok := cutLast(what); ok && strings.Trim(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
		what = name
	}
	offset := "0"
	if name, word, ok := cutLast(what); ok && strings.HasPrefix(word, "@") {
		what, offset = name, word[1:]
	}
	var errs [3]error
	r.start, errs[0] = strconv.ParseUint(first, 16, 64)
	r.last, errs[1] = strconv.ParseUint(last, 16, 64)
	r.offset, errs[2] = strconv.ParseUint(offset, 16, 64)
	// Old machine types name a block by its path, /objects/ID.
	r.name = what[strings.LastIndexByte(what, '/')+1:]
	return r, errors.Join(errs[:]...) == nil
}

// cutLast cuts s at its last space.
func cutLast(s string) (before, word string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

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
		if !system {
			continue
		}
		r, ok := parseRow(line)
		if !ok {
			continue
		}
		size, ok := blocks[r.name]
		if !ok {
			continue
		}
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

// parseHVA parses what "gpa2hva ADDR" prints:
//
//	Host virtual address for 0x100000 (pc.ram) is 0x7f4ce7f00000
func parseHVA(text string) (uint64, bool) {
	rest, ok := strings.CutPrefix(text, "Host virtual address for 0x")
	i := strings.LastIndex(rest, ") is 0x")
	if !ok || i < 0 {
		return 0, false
	}
	v, err := strconv.ParseUint(strings.TrimSpace(rest[i+len(") is 0x"):]), 16, 64)
	return v, err == nil
}
