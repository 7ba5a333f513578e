package ram

import (
	"testing"

	"github.com/outsight-vmi/outsight/phys"
)

// TestOpenGone: a process that ended leaves no memory behind, nor a nil pointer that looks
// like some.
func TestOpenGone(t *testing.T) {
	const nobody = 1 << 30 // above every pid_max
	mem, _, _, err := Open(nobody, nil, []Block{{HVA: 0x1000, Size: phys.PageSize}}, true, []phys.Layout{{Segments: []phys.Segment{{Start: 0, Size: phys.PageSize}}}})
	if err == nil || mem != nil {
		t.Errorf("memory %#v, error %v", mem, err)
	}
}
