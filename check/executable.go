package check

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// executable is memory that the kernel can execute, by its page tables.
type executable struct {
	run
	large bool // it is mapped by pages larger than 4 KiB
}

// maxExecutable bounds the stretches of executable memory that are read: a guest has some hundred,
// one for each program of BPF before 5.18.
const maxExecutable = 1 << 16

// kernelMemory is what the page tables of the kernel's half say.
type kernelMemory struct {
	executable []executable
	// lent is what programs may use, too: nothing, but a page of the time before the vDSO.
	lent []run
}

// readKernelMemory walks the page tables of the kernel's half. An error in holes says that not all were
// followed.
func readKernelMemory(ctx context.Context, s *linux.System) (memory *kernelMemory, holes []error, err error) {
	const kernelHalf = 1 << 63
	memory = &kernelMemory{}
	var all []executable
	walked := s.Space.WalkMappings(kernelHalf, ^virt.Addr(0), func(m virt.Mapping) bool {
		if m.User() && m.Present() && m.VA != callPage {
			memory.lend(m)
		}
		if !m.Executable() || !m.Present() {
			return ctx.Err() == nil
		}
		e := executable{run{m.VA, m.VA + virt.Addr(m.Size), m.Writable()}, m.Size > phys.PageSize}
		if e.end < e.start { // the last page that there is
			e.end = ^virt.Addr(0)
		}
		if n := len(all); n > 0 && all[n-1].end == e.start && all[n-1].writable == e.writable && all[n-1].large == e.large {
			all[n-1].end = e.end
		} else {
			all = append(all, e)
		}
		return ctx.Err() == nil && len(all) < maxExecutable
	})
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case len(all) >= maxExecutable:
		holes = append(holes, fmt.Errorf("more than %d pieces of the kernel's memory are executable: the rest was not looked at", maxExecutable))
	case walked != nil:
		holes = append(holes, fmt.Errorf("the kernel's memory: %w", walked))
	}
	memory.executable = all
	return memory, holes, nil
}

// maxLent bounds the stretches that programs may use.
const maxLent = 256

// lend notes a mapping that programs may use.
func (k *kernelMemory) lend(m virt.Mapping) {
	end := m.VA + virt.Addr(m.Size)
	if n := len(k.lent); n > 0 && k.lent[n-1].end == m.VA && k.lent[n-1].writable == m.Writable() {
		k.lent[n-1].end = end
	} else if n < maxLent {
		k.lent = append(k.lent, run{m.VA, end, m.Writable()})
	}
}
