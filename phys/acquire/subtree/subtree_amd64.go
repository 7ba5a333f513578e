package subtree

import "golang.org/x/sys/cpu"

var fast = cpu.X86.HasAVX512F

// chunks has the chaining values of sixteen chunks, none of which is a root. The counters
// are their numbers in the content: the low words, then the high ones.
//
//go:noescape
func chunks(out *[lanes][8]uint32, in *[lanes * chunkSize]byte, counters *[2][lanes]uint32)

// parents has those of sixteen parents. It reads in before it writes out.
//
//go:noescape
func parents(out *[lanes][8]uint32, in *[2 * lanes][8]uint32)
