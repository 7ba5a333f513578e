package check

// held reports whether somebody holds one of the kernel's mutexes, in the guest as it is now: then
// what it guards may be half changed. A mutex that this kernel does not have is not held.
func (s *Subject) held(mutexes ...string) bool {
	owner, err := s.Linux.Member("mutex", "owner", "rtmutex.owner") // the other with CONFIG_PREEMPT_RT
	if err != nil {
		return false
	}
	const flags = 7 // MUTEX_FLAGS
	space := s.Linux.Space.Live()
	for _, name := range mutexes {
		a, ok := s.Linux.Address(name)
		if !ok {
			continue
		}
		if v, err := space.U64(owner.At(a)); err == nil && v&^flags != 0 {
			return true
		}
	}
	return false
}
