package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

// TestOperationsParts: what an earlier part said of a table is not said again, and nothing else is left out.
func TestOperationsParts(t *testing.T) {
	const table, other = 0x1000, 0x2000
	before := []*opsPart{
		{seen: map[opsKey]bool{{kind: &fileOps, table: table}: true}},
		{seen: map[opsKey]bool{{kind: &fileOps, table: table, of: kernelItself}: true}, faulty: map[virt.Addr]bool{other: true}},
	}
	for name, c := range map[string]struct {
		r     opsResult
		known bool
	}{
		"judged before":                           {opsResult{key: opsKey{kind: &fileOps, table: table}}, true},
		"as a table of another kind":              {opsResult{key: opsKey{kind: &inodeOps, table: table}}, false},
		"another table":                           {opsResult{key: opsKey{kind: &fileOps, table: other}}, false},
		"by another server":                       {opsResult{key: opsKey{kind: &fileOps, table: table, of: 7}}, false},
		"in no table":                             {opsResult{}, false},
		"in the place of another, and faulty":     {opsResult{key: opsKey{kind: &headerOps, table: other}, doubted: other}, true},
		"in the place of another, and not faulty": {opsResult{key: opsKey{kind: &headerOps, table: table}, doubted: table}, false},
	} {
		if got := c.r.knownTo(before); got != c.known {
			t.Errorf("%s: known is %t", name, got)
		}
	}
}
