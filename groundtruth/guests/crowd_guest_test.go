package guests_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// The crowd comes together in a small guest, and truth reports it.
func TestGuestCrowd(t *testing.T) {
	g := guests.UpCrowd(t, lab.Options{Memory: 256 << 20})
	if log := labtest.Output(t, g, "cat /run/crowd.log"); !strings.HasPrefix(log, "READY 300") {
		t.Errorf("the crowd complains: %s", log)
	}
	states, spaces, rows := map[string]int{}, map[int]int{}, 0
	longest, longLine := 0, labtest.Output(t, g, "/truth")
	for line := range strings.Lines(longLine) {
		var p struct {
			Kind    string
			State   string
			NSPID   []int  `json:"ns_pid"`
			Cmdline []byte `json:"cmdline_b64"`
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatal(err)
		}
		if p.Kind == "process" {
			rows++
			states[p.State]++
			spaces[len(p.NSPID)]++
			longest = max(longest, len(p.Cmdline))
		}
	}
	if rows < 300 || states["Z"] < 13 || states["T"] != 1 || states["t"] != 1 || spaces[4] != 3 || longest < 100_000 {
		t.Errorf("%d processes, states %v, depths %v, longest command line %d", rows, states, spaces, longest)
	}
}
