package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/virt"
)

func TestIsError(t *testing.T) {
	const internal = 1<<64 - 22 // MNT_NS_INTERNAL
	for a, want := range map[virt.Addr]bool{0: false, 0xffff888000001000: false, 1<<64 - 4096: false, 1<<64 - 4095: true, internal: true, 1<<64 - 1: true} {
		if isError(a) != want {
			t.Errorf("%#x is an error: %v, not %v", uint64(a), !want, want)
		}
	}
}
