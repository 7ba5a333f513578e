package linux

import (
	"slices"

	"github.com/outsight-vmi/outsight/virt"
)

// Held reports whether somebody holds one of the kernel's mutexes, as space shows memory: then
// what it guards may be half changed. A mutex that this kernel does not have is not held.
func (s *System) Held(space *virt.Space, mutexes ...string) bool {
	return slices.ContainsFunc(mutexes, func(name string) bool { return s.holder(space, name) != 0 })
}

// holder is the task that holds a mutex; 0 for none.
func (s *System) holder(space *virt.Space, mutex string) virt.Addr {
	owner, err := s.Member("mutex", "owner", "rtmutex.owner") // the other with CONFIG_PREEMPT_RT
	a, ok := s.Address(mutex)
	if err != nil || !ok {
		return 0
	}
	v, err := space.U64(owner.At(a))
	if err != nil {
		return 0
	}
	const flags = 7 // MUTEX_FLAGS
	return virt.Addr(v &^ flags)
}
