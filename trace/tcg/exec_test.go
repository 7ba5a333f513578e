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

// TestPieces: a call's pieces are those of its arguments, with the protocol of its socket, without names and what another came for.
func TestPieces(t *testing.T) {
	c := &call{bytes: []byte("abcdef"), data: []piece{{0, syscall.Whole, 0, 1}, {dropped, syscall.Unreadable, 1, 2}, {3, syscall.Cut, 2, 4}, {tagComm, syscall.Whole, 4, 5}, {tagPath, syscall.Whole, 5, 6}, {syscall.TagSocket, syscall.Whole, 0, 2}}}
	got := c.pieces([]syscall.Data{{Tag: 9}})
	if len(got) != 4 || got[3].Tag != syscall.TagSocket || got[0].Tag != 9 || got[1].Tag != 0 || string(got[1].Bytes) != "a" || got[2].Tag != 3 || string(got[2].Bytes) != "cd" || got[2].Status != syscall.Cut {
		t.Errorf("%+v", got)
	}
	for _, calls := range [][]*syscall.Call{syscall.Table(syscall.ABI64), syscall.Table(syscall.ABI32)} {
		for _, k := range calls {
			if k != nil && len(k.Pieces)+len(k.Stack) >= tagComm {
				t.Errorf("%s has %d pieces", k.Name, len(k.Pieces)+len(k.Stack))
			}
		}
	}
}
