package told

import (
	"testing"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// FuzzAssembler feeds answers that a guest may make up. Whatever they say: nothing fails, and bounds hold.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte{0, 1, 24, 0}, dirents(".", "a"))
	f.Add([]byte{1, 2, 9, 1}, []byte("a 1\nb 2\n"))
	f.Add([]byte{4, 3, 40, 0}, netlinkMessage(typeByFamily, 0x301, 5, inetRequestOf(6, 0)))
	f.Add([]byte{5, 3, 40, 0}, netlinkMessage(typeNewLink, 2, 5, append(make([]byte, 16), 7, 0, 3, 0, 'l', 'o', 0, 0)))
	calls := []string{"getdents64", "read", "pread64", "getdents", "sendto", "recvmsg", "bpf", "readv"}
	names := [][3]string{{"/", "/", "/"}, {"modules", "/", "/"}, {"tcp", "net", "1"}, {}, {"unix", "net", "1"}, {"dev", "net", "1"}}
	magics := []uint64{MagicProc, magicSocket, 0xef53, MagicSysfs}
	f.Fuzz(func(t *testing.T, plan, data []byte) {
		g := newKernel()
		reader := &trace.Process{PID: 1}
		for len(plan) >= 4 {
			n := min(int(plan[2]), len(data))
			a := &tcg.Answer{
				Call: calls[int(plan[0])%len(calls)], Process: reader, Data: data[:n], Result: int64(n), Seen: true, ABI: syscall.ABI(plan[3] >> 7),
				File: tcg.File{
					Addr: 1, Magic: magics[int(plan[1])%4], Names: names[int(plan[1])/4%len(names)], Position: int64(plan[3] & 31), Protocol: uint16(plan[3] & 4),
				},
				Asked: 1, Before: int64(plan[3] & 31), Args: [6]uint64{uint64(plan[3]), 0, 0, uint64(plan[3] & 31)},
			}
			if plan[3]&64 != 0 {
				a.Result = int64(plan[2]) * 7
			}
			a.File.Protocol = uint16(plan[1]) & 4
			g.Add(a)
			plan, data = plan[4:], data[n:]
		}
		if len(g.open) > maxOpen || len(g.requests) > maxRequests || len(g.Readings()) > maxKept {
			t.Error("out of bounds")
		}
		for _, r := range g.Readings() {
			if r.Kind == 0 || r.Reader == nil || len(r.Names) > maxEntries || r.String() == "" {
				t.Errorf("%+v", r)
			}
		}
	})
}
