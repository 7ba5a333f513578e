package linux

import "github.com/outsight-vmi/outsight/virt"

// Held reports whether somebody holds one of the kernel's mutexes, as space shows memory: then
// what it guards may be half changed. A mutex that this kernel does not have is not held.
func (s *System) Held(space *virt.Space, mutexes ...string) bool {
	owner, err := s.Member("mutex", "owner", "rtmutex.owner") // the other with CONFIG_PREEMPT_RT
	if err != nil {
		return false
	}
	const flags = 7 // MUTEX_FLAGS
	for _, name := range mutexes {
		a, ok := s.Address(name)
		if !ok {
			continue
		}
		if v, err := space.U64(owner.At(a)); err == nil && v&^flags != 0 {
			return true
		}
	}
	return false
}
