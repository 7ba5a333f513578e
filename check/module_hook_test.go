package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
)

func TestForeignTaint(t *testing.T) {
	for _, c := range []struct {
		taints  uint64
		signing bool
		want    string
	}{
		{0, true, ""}, {linux.TaintUnsigned, true, "unsigned"}, {linux.TaintUnsigned, false, ""}, {linux.TaintOutOfTree, false, "out of tree"}, {linux.TaintOutOfTree | linux.TaintUnsigned, true, "out of tree, unsigned"},
	} {
		if got := foreignTaint(&linux.Module{Taints: c.taints}, c.signing); got != c.want {
			t.Errorf("taints %#x, others signed %v: %q, not %q", c.taints, c.signing, got, c.want)
		}
	}
}
