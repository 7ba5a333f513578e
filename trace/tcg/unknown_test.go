package tcg

import (
	"testing"

	"github.com/outsight-vmi/outsight/trace"
)

// TestUnknown names calls that no table has.
func TestUnknown(t *testing.T) {
	for _, c := range []struct {
		nr         uint64
		name, args string
	}{
		{511, "syscall_0x1ff", "0x1, 0, 0xffffffffffffffff, 0, 0, 0"},
		{abi32<<32 | 511, "syscall_0x1ff", "0x1, 0, 0xffffffffffffffff, 0, 0, 0"},
		{x32Bit + 1, "write_x32", "0x1, 0, 0xffffffffffffffff, 0, 0, 0"},
		{x32Bit + 511, "syscall_0x400001ff", "0x1, 0, 0xffffffffffffffff, 0, 0, 0"},
		{0xffffffff, "syscall_0xffffffff", "0x1, 0, 0xffffffffffffffff, 0, 0, 0"},
	} {
		var j joiner
		var e trace.Event
		j.unknown(&e, &call{nr: c.nr, seen: true, returned: true, result: -38, args: [6]uint64{1, 0, 1<<64 - 1}})
		if e.Name != c.name || e.Args != c.args || e.Result != "-1 ENOSYS (Function not implemented)" || e.Errno != "ENOSYS" {
			t.Errorf("%#x: %s(%s) = %s, %s", c.nr, e.Name, e.Args, e.Result, e.Errno)
		}
	}
}
