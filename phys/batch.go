package phys

// Read is one read of a batch: fill P from guest-physical address Addr.
type Read struct {
	P    []byte
	Addr Addr
	Err  error // set by ReadBatch; P is undefined when it is not nil
}

// Batcher is memory that does many small reads for much less than one by one
// (one system call for hundreds of them).
type Batcher interface {
	// ReadBatch does all of reads. A read that fails has its Err set and does
	// not stop the others; the result is the first such error.
	ReadBatch(reads []Read) error
}

// ReadBatch does reads through m's [Batcher], or one by one when it has none.
func ReadBatch(m Memory, reads []Read) error {
	if b, ok := As[Batcher](m); ok {
		return b.ReadBatch(reads)
	}
	var first error
	for i := range reads {
		_, err := m.ReadAt(reads[i].P, reads[i].Addr)
		if reads[i].Err = err; err != nil && first == nil {
			first = err
		}
	}
	return first
}
