package qemu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// findRAM finds the blocks of c in maps, and behind them those that are plugged in,
// without QEMU's help: by size, kind and name of their mappings.
func findRAM(maps []proc.Map, c *config) ([]ram.Block, error) {
	_, plugged := c.plugged()
	all := append(c.blocks(), plugged...)
	// QEMU makes the backends of the command line in their order, and then RAM without one.
	made := func(i int) int {
		at := slices.IndexFunc(c.backends, func(b backend) bool { return b.id == all[i].id && b.id != "" })
		if at < 0 {
			return len(c.backends)
		}
		return at
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return made(a) - made(b) })
	found := make([]ram.Block, len(all))
	taken := map[uint64]bool{}
	for _, i := range order {
		b := all[i]
		h, ok := findBlock(maps, b, taken)
		if !ok {
			return nil, fmt.Errorf("%w: no mapping fits block %q of %d bytes", ram.ErrNone, b.id, b.size)
		}
		taken[h.HVA] = true
		found[i] = h
	}
	return found, nil
}

// layouts are the maps that blocks, as [findRAM] found them, can have.
func (c *config) layouts(blocks []ram.Block) []phys.Layout {
	_, plugged := c.plugged()
	own := blocks[:len(blocks)-len(plugged)]
	ls := guesses(c, sizes(own))
	for i := range ls {
		ls[i] = c.place(ls[i], ram.Total(own))
	}
	return ls
}

// findBlock finds one block. QEMU maps one after the other downwards, so of two
// that look the same the upper one comes first.
func findBlock(maps []proc.Map, b backend, taken map[uint64]bool) (best ram.Block, ok bool) {
	bestScore := 0
	for i := len(maps) - 1; i >= 0; i-- {
		m := maps[i]
		// RAM may have been split where its mappings differ in flags.
		h := ram.Block{HVA: m.End - min(m.Size(), b.size), Size: b.size}
		if !m.Writable || m.Executable || m.Size() < b.size || b.size == 0 || taken[h.HVA] {
			continue
		}
		score := 1
		if m.Size() == b.size {
			score += 4
		} else if m.Inode != 0 {
			continue // a file is mapped as one
		}
		switch {
		case b.path != "" && strings.HasPrefix(m.Path, b.path):
			score += 16
		case b.kind == "memory-backend-memfd" && strings.HasPrefix(m.Path, "/memfd:memory-backend-memfd"):
			score += 16
		case b.kind == "memory-backend-shm" && strings.HasPrefix(m.Path, "/dev/shm/"):
			score += 16
		case (m.Inode != 0) != (b.path != "" || b.kind == "memory-backend-memfd"):
			continue // anonymous memory where a file is expected, or the reverse
		}
		if i+1 < len(maps) && maps[i+1].Start == m.End && !maps[i+1].Writable {
			score += 2 // the guard page that QEMU puts behind RAM
		}
		if score > bestScore {
			best, bestScore, ok = h, score, true
		}
	}
	return best, ok
}

// guesses are the maps that RAM as in c can have, most likely first.
func guesses(c *config, sizes []uint64) []phys.Layout {
	var size uint64
	for _, s := range sizes {
		size += s
	}
	var ls []phys.Layout
	switch {
	case c.low != 0:
		ls = append(ls, phys.Split("max-ram-below-4g", size, c.low))
	case strings.Contains(c.machine, "q35"):
		ls = append(ls, phys.Q35(size))
	default:
		ls = append(ls, phys.PC(size))
	}
	ls = append(ls, phys.Candidates(size)...)
	// Two nodes of one size may have been taken for each other.
	if len(sizes) == 2 && sizes[0] == sizes[1] {
		for _, l := range slices.Clone(ls) {
			ls = append(ls, swapHalves(l, size))
		}
	}
	return phys.UniqueLayouts(ls)
}

// swapHalves is l with the two halves of the backing exchanged.
func swapHalves(l phys.Layout, size uint64) phys.Layout {
	out := phys.Layout{Name: l.Name + ", nodes exchanged"}
	half := size / 2
	for _, s := range l.Segments {
		for s.Size > 0 {
			n := s.Size
			to := s.Offset + half
			if s.Offset < half {
				n = min(n, half-s.Offset)
			} else {
				to = s.Offset - half
			}
			out.Segments = append(out.Segments, phys.Segment{Start: s.Start, Size: n, Offset: to})
			s = phys.Segment{Start: s.Start + phys.Addr(n), Size: s.Size - n, Offset: s.Offset + n}
		}
	}
	return out
}
