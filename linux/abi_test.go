package linux

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/virt"
)

func TestABI(t *testing.T) {
	for _, old := range []bool{false, true} {
		g := synth.New(synth.Options{Old: old})
		var mms []uint64
		for i, abi := range []string{"", "ia32", "x32"} {
			task := g.Add(synth.Process{PID: int32(i + 1), Comm: "p", ABI: abi})
			mms = append(mms, g.Get(task, "task_struct", "mm"))
		}
		s := open(t, g)
		for i, want := range []ABI{ABI64, ABIIA32, ABIX32} {
			if got, err := s.ABI(virt.Addr(mms[i])); got != want || err != nil {
				t.Errorf("old %v: %s, %v, want %s", old, got, err, want)
			}
		}
		if got, err := s.ABI(0x1234); err == nil {
			t.Errorf("of nothing: %s", got)
		}
	}
}
