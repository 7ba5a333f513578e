package guest

import (
	"context"

	"github.com/outsight-vmi/outsight/vm"
)

// paging is what the processors' registers say about page tables.
type paging struct {
	roots []uint64 // CR3 of those that have paging on
	off   bool     // none has
}

// paging asks the machine for its registers. Where it does not show them, memory
// alone must do.
func askPaging(ctx context.Context, m *vm.Machine) (p paging) {
	r := m.Control.Registers
	if r == nil {
		return p
	}
	regs, err := r.Registers(ctx)
	if err != nil {
		return p
	}
	return pagingOf(regs)
}

func pagingOf(regs []vm.Registers) (p paging) {
	const pg = 1 << 31
	known := false
	for _, cpu := range regs {
		if cpu.Partial {
			continue
		}
		known = true
		if cpu.CR0&pg != 0 {
			p.roots = append(p.roots, cpu.CR3)
		}
	}
	p.off = known && len(p.roots) == 0
	return p
}
