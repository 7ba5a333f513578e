package syscall

import "testing"

// BenchmarkCalls writes what a program does most; nothing is allocated.
func BenchmarkCalls(b *testing.B) {
	for _, c := range []struct {
		name string
		v    Values
	}{
		{"read", Values{Args: [6]uint64{3, 0x7fff0000, 832}, Data: []Data{text(0, "\x7fELF\x02\x01\x01\x03\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00\x01\x00\x00\x00\x20\x90\x02\x00\x00\x00\x00\x00")}, Returned: true, Result: 832}},
		{"openat", Values{Args: [6]uint64{0xffffffffffffff9c, 1, 0x80000}, Data: []Data{text(0, "/etc/ld.so.cache")}, Returned: true, Result: 3}},
		{"close", Values{Args: [6]uint64{3}, Returned: true}},
		{"mmap", Values{Args: [6]uint64{0, 8192, 3, 0x22, 0xffffffff, 0}, Returned: true, Result: 0x7f1234560000}},
		{"newfstatat", Values{Args: [6]uint64{3, 1, 2, 0x1000}, Data: []Data{text(0, ""), {Tag: 1, Bytes: make([]byte, 144)}}, Returned: true}},
		{"futex", Values{Args: [6]uint64{0x7f00, 129, 1}, Returned: true, Result: 1}},
		{"getppid", Values{Returned: true, Result: 1}},
	} {
		k := call(b, c.name)
		v := &c.v
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				out = k.AppendArgs(out[:0], v, Options{})
				out = k.AppendResult(out, v)
			}
		})
	}
}

func TestNothingIsAllocated(t *testing.T) {
	k := call(t, "openat")
	v := &Values{Args: [6]uint64{0xffffffffffffff9c, 1, 0x80000}, Data: []Data{text(0, "/etc/ld.so.cache")}, Returned: true, Result: -2}
	out := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		out = k.AppendArgs(out[:0], v, Options{})
		out = k.AppendResult(out, v)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
