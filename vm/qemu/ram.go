package qemu

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/mapped"
	"github.com/outsight-vmi/outsight/phys/process"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// hostRAM is a block of guest RAM in QEMU's address space.
type hostRAM struct {
	hva, size uint64
}

var errNoRAM = errors.New("guest RAM was not found in the address space of its process")

// findRAM finds the blocks of c in maps, without QEMU's help: by size, kind and
// name of their mappings.
func findRAM(maps []proc.Map, c *config) ([]hostRAM, error) {
	var found []hostRAM
	taken := map[uint64]bool{}
	for _, b := range c.blocks() {
		h, ok := findBlock(maps, b, taken)
		if !ok {
			return nil, fmt.Errorf("%w: no mapping fits block %q of %d bytes", errNoRAM, b.id, b.size)
		}
		taken[h.hva] = true
		found = append(found, h)
	}
	return found, nil
}

// findBlock finds one block. QEMU maps one after the other downwards, so of two
// that look the same the upper one comes first.
func findBlock(maps []proc.Map, b backend, taken map[uint64]bool) (best hostRAM, ok bool) {
	bestScore := 0
	for i := len(maps) - 1; i >= 0; i-- {
		m := maps[i]
		// RAM may have been split where its mappings differ in flags.
		h := hostRAM{m.End - min(m.Size(), b.size), b.size}
		if !m.Writable || m.Executable || m.Size() < b.size || b.size == 0 || taken[h.hva] {
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

// openRAM opens the blocks, one after the other, under layouts: mapped where all
// of them are shared files, else through the process. why says why not mapped,
// where it could have been.
func openRAM(pid int, maps []proc.Map, blocks []hostRAM, noMap bool, layouts []phys.Layout) (mem phys.Memory, src vm.Source, why error, err error) {
	if !noMap {
		mem, why = openMapped(pid, maps, blocks, layouts)
		if why == nil {
			return mem, vm.SourceShared, nil, nil
		}
		if errors.Is(why, errPrivate) {
			why = nil
		}
	}
	var ms []process.Mapping
	for _, b := range blocks {
		ms = append(ms, process.Mapping{HVA: b.hva, Size: b.size, Anonymous: isAnonymous(maps, b)})
	}
	mem, err = process.Open(pid, ms, layouts...)
	return mem, vm.SourcePrivate, why, err
}

var errPrivate = errors.New("the RAM is private to its process")

func openMapped(pid int, maps []proc.Map, blocks []hostRAM, layouts []phys.Layout) (phys.Memory, error) {
	var files []mapped.Backing
	defer func() {
		for _, f := range files {
			f.File.Close()
		}
	}()
	for _, b := range blocks {
		m, ok := proc.FindMap(maps, b.hva)
		if !ok {
			return nil, errNoRAM
		}
		if !m.Shared || m.Inode == 0 {
			return nil, errPrivate
		}
		f, err := proc.OpenMapped(pid, m)
		if err != nil {
			return nil, err
		}
		files = append(files, mapped.Backing{File: f, Offset: m.Offset + (b.hva - m.Start), Size: b.size})
	}
	return mapped.Open(files, layouts...)
}

// isAnonymous reports whether all of b is private memory without a file, so that
// pages which QEMU never touched are known to be zero.
func isAnonymous(maps []proc.Map, b hostRAM) bool {
	for at := b.hva; at < b.hva+b.size; {
		m, ok := proc.FindMap(maps, at)
		if !ok || m.Shared || m.Inode != 0 {
			return false
		}
		at = m.End
	}
	return true
}
