package phys

import "os"

// Host is where a monitor has a part of guest memory: in a file that it shares, or in its own address
// space.
type Host struct {
	Range
	File   *os.File // nil: in its address space. It belongs to the memory.
	Offset uint64   // in File, or the address
}

// Hosted is memory that knows where its monitor has it.
type Hosted interface {
	Hosts() []Host
}
