package phys

// Incomplete is memory of which a part is known to be lost: a dump that was cut off,
// or for which the disk had no room. Reading what is lost is [ErrNotPresent]. What was
// left out on purpose (makedumpfile -d) is not lost.
type Incomplete interface {
	// Lost is how many bytes of memory are lost; 0: none that is known of.
	Lost() uint64
}

// Lost is how many bytes of m, or of what m wraps, are known to be lost.
func Lost(m Memory) uint64 {
	if i, ok := As[Incomplete](m); ok {
		return i.Lost()
	}
	return 0
}
