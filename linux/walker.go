package linux

import (
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// Walker reads the objects of one running kernel. It is safe for concurrent use.
type Walker struct {
	*kernel.Kernel

	cpus    []virt.Addr // __per_cpu_offset of each possible CPU
	cpusErr error       // why cpus is not all of them
	layouts layouts
}

// NewWalker prepares to read the objects of the guest that runs k.
func NewWalker(k *kernel.Kernel) *Walker {
	w := &Walker{Kernel: k}
	w.cpusErr = w.readCPUs()
	return w
}
