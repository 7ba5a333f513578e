//go:build !amd64

package subtree

const fast = false

func chunks(*[lanes][8]uint32, *[lanes * chunkSize]byte, *[2][lanes]uint32) { panic("not fast") }

func parents(*[lanes][8]uint32, *[2 * lanes][8]uint32) { panic("not fast") }
