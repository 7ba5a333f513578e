package trace

import (
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

// However many tasks a guest starts, few are kept, and those that are asked for stay.
func TestProcessesKeepFew(t *testing.T) {
	ps := NewProcesses(nil)
	const busy = virt.Addr(1)
	p := &Process{PID: 1}
	ps.keep(busy, knownTask{process: p})
	for i := range 10 * processesKept {
		ps.keep(virt.Addr(i+2), knownTask{})
		if i%1000 == 0 && ps.Born(t.Context(), busy, 0, 1) != p {
			t.Fatalf("the task that is asked for is forgotten after %d others", i)
		}
		ps.Introduce(virt.Addr(i+2), &Process{PID: int32(i + 2)})
		if n := len(ps.introduced) + len(ps.before); n > 2*processesKept {
			t.Fatalf("%d processes are kept as they were introduced", n)
		}
		if n := len(ps.young) + len(ps.old); n > 2*processesKept {
			t.Fatalf("%d tasks are kept", n)
		}
	}
}
