// Package kobj walks the objects of a running kernel: what every reader of kernel
// structures needs, and nothing of what the structures mean.
//
// A [Walker] is one running kernel. Members of structures are found by the names that
// the kernel's own types give them and are kept as a [Field], which knows whether this
// kernel has the member apart from where it lies. A [Reader] reads fields, bit fields
// included, and counts its reads; containers are iterators:
//
//   - [Walker.List], [Walker.HList], [Walker.SList]: lists
//   - [Walker.RBTree], [Walker.XArray], [Walker.IDR], [Walker.Maple]: trees
//   - [Walker.HashBuckets], [Walker.RHashTable]: hash tables
//   - [Walker.PerCPU]: per-CPU variables
//
// The guest is hostile, and runs on while it is read. So every walk has a limit that
// its caller states, ends in cyclic structures, reports what is broken as an error
// beside the elements (which wraps [ErrBroken]) and goes on where it can. A walk whose
// context is cancelled ends with the context's error.
//
// What one kind of object needs is resolved once for each kernel, by [LayoutOf].
package kobj

import (
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Walker reads the objects of one running kernel. It is safe for concurrent use.
type Walker struct {
	*kernel.Kernel

	CPUAreas    []virt.Addr // __per_cpu_offset of each possible CPU
	CPUAreasErr error       // why CPUAreas does not have all of them
	layouts     *Layouts
}

// New prepares to read the objects of the guest that runs k.
func New(k *kernel.Kernel) *Walker {
	w := &Walker{Kernel: k, layouts: &Layouts{}}
	w.CPUAreasErr = w.readCPUs()
	return w
}

// Fresh reads again what is kept of the guest's memory (see [virt.Space.Fresh]): for who
// found that what was read contradicts itself. Where nothing is kept it is s.
func (s *Walker) Fresh() *Walker {
	space := s.Space.Fresh()
	if space == s.Space {
		return s
	}
	k, c := *s.Kernel, *s
	k.Space, k.Memory = space, space.Memory()
	c.Kernel = &k
	return &c
}

// Over reads the objects of the same kernel in other memory: the guest at another time.
// What was resolved for this kernel is shared.
func (s *Walker) Over(mem phys.Memory) *Walker {
	c := *s
	c.Kernel = s.Kernel.Over(mem)
	return &c
}
