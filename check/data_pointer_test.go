package check

import "testing"

func TestHandedOut(t *testing.T) {
	for _, c := range []struct {
		symbol, module string
		want           bool
	}{
		{"kvm_posted_intr_wakeup_handler", "kvm_intel", true},
		{"__SCK____perf_guest_state", "kvm", true},
		{"kvm_posted_intr_wakeup_handler", "fu", false},
		{"__SCK____perf_guest_state", "kvmx", false},
		{"arp_tbl", "kvm", false},
	} {
		if got := handedOut(c.symbol, c.module); got != c.want {
			t.Errorf("%s to %s: %v", c.symbol, c.module, got)
		}
	}
}
