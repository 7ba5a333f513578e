package kobj

import (
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// SymbolAddr is the address of a variable or function that this kernel must have.
func (s *Walker) SymbolAddr(name string) (virt.Addr, error) {
	a, ok := s.Address(name)
	if !ok {
		return 0, s.NoSymbol(name)
	}
	return a, nil
}

// Pointer reads the 64-bit variable of that name, which this kernel must have.
func (s *Walker) Pointer(name string) (virt.Addr, error) {
	if _, err := s.SymbolAddr(name); err != nil {
		return 0, err
	}
	return s.Kernel.Pointer(name)
}

// ListHead finds a list head by its name, which static variables of several files may
// share ("formats" with CONFIG_PREEMPT_RT): the first from which a list with elements leads
// out and back. Where there is none it is the first of all, so that damage is told.
func (s *Walker) ListHead(name string) (virt.Addr, error) {
	first, err := s.SymbolAddr(name)
	if err != nil || s.leadsBack(first) {
		return first, err
	}
	all, err := s.Choose("all "+name, func(k kernel.Symbol) bool { return k.Name == name && !k.Percpu })
	if err != nil {
		return first, nil //nolint:nilerr // what there is to choose from
	}
	for _, k := range all {
		if a := s.Text + virt.Addr(k.Rel); s.leadsBack(a) {
			return a, nil
		}
	}
	return first, nil
}

// leadsBack reports whether there is an element behind a list head that has it before itself.
func (s *Walker) leadsBack(head virt.Addr) bool {
	next, err := s.Word(head)
	if err != nil || virt.Addr(next) == head || !s.Space.KernelHalf(virt.Addr(next)) {
		return false
	}
	back, err := s.Word(virt.Addr(next) + 8)
	return err == nil && virt.Addr(back) == head
}

// Since reports whether the kernel is of that release or later: for what changed and
// left no trace in its types. A back-port can make it wrong.
func (s *Walker) Since(major, minor int) bool {
	var a, b int
	n, _ := fmt.Sscanf(s.Release, "%d.%d", &a, &b)
	return n == 2 && (a > major || a == major && b >= minor)
}
