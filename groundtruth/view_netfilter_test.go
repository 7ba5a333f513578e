package groundtruth

import (
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
)

// hooked loads chains of every family and at several priorities, in two network
// namespaces, a flowtable and a bridge, beside what the server has of iptables' and BPF's.
func hooked(t *testing.T, g *lab.Guest) {
	t.Helper()
	if slices.Contains(nftKernels, kernelOf(g)) { // 5.10 does not know all of the ruleset
		guests.LoadNFT(t, g)
	}
	guests.LoadHooks(t, g)
}

func init() {
	register(viewCase{
		view: "netfilter", keys: []string{"net_ns", "family", "hook", "device", "priority", "function_symbol"},
		prepare: hooked,
		// Debian's kernels have nfnetlink_hook from 6.12 on. Others report chains and tables.
		partly: []string{"5.10", "6.1"},
	})
}
