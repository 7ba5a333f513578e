package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/virt"
)

// TestFtraceUsers counts users as the kernel does (ops_references_rec): no filter is every
// function, and what is not to be traced counts in both cases.
func TestFtraceUsers(t *testing.T) {
	v := &ftraceView{named: map[virt.Addr]int{}}
	for _, f := range []*hooks.FtraceOp{
		{Filter: []virt.Addr{1, 2}, FilterSize: 2},
		{Filter: []virt.Addr{2, 3}, FilterSize: 2, NoTrace: []virt.Addr{3}},
		{NoTrace: []virt.Addr{2}},
	} {
		v.add(newFtraceUser(f))
	}
	for ip, want := range map[virt.Addr]int{1: 2, 2: 2, 3: 1, 4: 1} {
		if got := v.users(ip); got != want {
			t.Errorf("function %d has %d users, want %d", ip, got, want)
		}
	}
}
