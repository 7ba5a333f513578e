package linux

import (
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// hotLayout is where a processor keeps its task from 6.2 to 6.14.
type hotLayout struct{ current kobj.Field }

// CurrentAt is where a possible processor keeps the pointer to the task that it runs: in its variable
// current_task, or, from 6.2 to 6.14, in pcpu_hot.
func (s *System) CurrentAt(cpu int) (virt.Addr, error) {
	o, err := kobj.LayoutOf(s.Walker, "current task", func(r *kobj.Resolver, o *hotLayout) {
		r.Prefetch("current_task", "pcpu_hot")
		o.current = r.Optional("pcpu_hot", "current_task")
	})
	if err != nil {
		return 0, err
	}
	if o.current.Present() {
		if a, err := s.PerCPU("pcpu_hot", cpu); err == nil {
			return o.current.At(a), nil
		}
	}
	return s.PerCPU("current_task", cpu)
}
