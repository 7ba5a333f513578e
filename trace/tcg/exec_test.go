package tcg

import (
	"testing"

	"github.com/outsight-vmi/outsight/trace/syscall"
)

// TestBothExec knows the return of an execve that began in the other ABI.
func TestBothExec(t *testing.T) {
	var j joiner
	j.calls[abi64], j.calls[abi32] = syscall.Table(syscall.ABI64), syscall.Table(syscall.ABI32)
	const execve64, execveat64, execve32, read64, read32 = 59, 322, abi32<<32 | 11, 0, abi32<<32 | 3
	for _, c := range []struct {
		a, b uint64
		want bool
	}{
		{execve64, execve32, true},
		{execveat64, execve32, true},
		{execve32, execve64, true},
		{read64, read32, false},
		{execve64, read32, false},
		{execve64, execveat64, false},
		{execve64, 1 << 33, false},
	} {
		if got := j.bothExec(c.a, c.b); got != c.want {
			t.Errorf("%#x, %#x: %t", c.a, c.b, got)
		}
	}
}
