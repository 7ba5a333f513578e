package kobj

import (
	"fmt"
	"math/bits"

	"github.com/outsight-vmi/outsight/virt"
)

// maxCPUs is the most that amd64 kernels can be built for (NR_CPUS).
const maxCPUs = 8192

// readCPUs reads where each possible CPU's area lies.
func (s *Walker) readCPUs() error {
	n, ok1 := s.Address("nr_cpu_ids")
	table, ok2 := s.Address("__per_cpu_offset")
	if !ok1 && ok2 {
		return s.countCPUs(table)
	}
	if !ok2 {
		return fmt.Errorf("processors: %w", s.NoSymbol("__per_cpu_offset"))
	}
	count, err := s.Space.U32(n)
	if err != nil {
		return fmt.Errorf("number of processors: %w", err)
	}
	possible, known := s.possibleCPUs()
	for cpu := range min(count, maxCPUs, possible) {
		off, err := s.Space.U64(table + virt.Addr(cpu)*8)
		if err != nil {
			return fmt.Errorf("area of processor %d: %w", cpu, err)
		}
		s.CPUAreas = append(s.CPUAreas, virt.Addr(off))
	}
	if count == 0 || count > maxCPUs || known && count != possible {
		return fmt.Errorf("%w: the kernel prepared for %d processors", ErrBroken, count)
	}
	return nil
}

// countCPUs counts the processors of a kernel that does not name nr_cpu_ids: each has an
// area in the direct map, and the table begins with theirs. Behind them is where the areas
// were linked (BOOT_PERCPU_OFFSET), which is in the image, or nothing.
func (s *Walker) countCPUs(table virt.Addr) error {
	for cpu := range maxCPUs {
		off, err := s.Space.U64(table + virt.Addr(cpu)*8)
		if err != nil {
			return fmt.Errorf("area of processor %d: %w", cpu, err)
		}
		area := virt.Addr(off)
		if _, ok := s.Space.DirectMapped(area); !ok {
			// Up to 6.14 areas are linked at 0; since, what is added is a difference.
			if _, ok = s.Space.DirectMapped(area + s.Text); !ok {
				break
			}
		}
		s.CPUAreas = append(s.CPUAreas, area)
	}
	if len(s.CPUAreas) == 0 {
		return fmt.Errorf("%w: the table of processors at %#x has none", ErrBroken, uint64(table))
	}
	return nil
}

// possibleCPUs is one more than the highest processor that can exist: what nr_cpu_ids
// must be too, so that a lie about either costs nothing.
func (s *Walker) possibleCPUs() (n uint32, known bool) {
	mask, ok := s.Address("__cpu_possible_mask")
	if !ok {
		return maxCPUs, false
	}
	var b [maxCPUs / 8]byte
	size := s.CPUMaskSize()
	if _, err := s.Space.ReadAt(b[:size], mask); err != nil {
		return maxCPUs, false
	}
	for i := size - 1; i >= 0; i-- {
		if b[i] != 0 {
			return uint32(8*i + bits.Len8(b[i])), true
		}
	}
	return maxCPUs, false
}

// CPUs is how many processors the kernel prepared for (nr_cpu_ids).
func (s *Walker) CPUs() int { return len(s.CPUAreas) }

// PerCPU is where the per-CPU variable name lies for a possible CPU. Its symbol is
// an offset in each CPU's area up to 6.14, and an address since: what the kernel
// adds is the same.
func (s *Walker) PerCPU(name string, cpu int) (virt.Addr, error) {
	if cpu < 0 || cpu >= len(s.CPUAreas) {
		return 0, fmt.Errorf("processor %d: %w: there are %d", cpu, ErrBroken, len(s.CPUAreas))
	}
	sym, ok := s.Symbol(name)
	if !ok {
		return 0, fmt.Errorf("%w: %w", ErrUnsupported, s.NoSymbol(name))
	}
	if sym.Percpu {
		return virt.Addr(sym.Rel) + s.CPUAreas[cpu], nil
	}
	return s.Text + virt.Addr(sym.Rel) + s.CPUAreas[cpu], nil
}

// CPUMaskSize is how many bytes a mask of processors has.
func (s *Walker) CPUMaskSize() int {
	// NR_CPUS of distributions is 8192 or, in small kernels, 64 and more: what lies
	// behind a shorter mask are others' variables, so its length is the type's.
	if n, err := s.StructSize("cpumask"); err == nil {
		return int(min(n, maxCPUs/8))
	}
	return maxCPUs / 8
}
