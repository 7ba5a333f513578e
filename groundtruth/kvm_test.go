package groundtruth

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestKVM shows on KVM what is claimed for KVM. A guest under TCG is a KVM
// host itself: in it, outsight's own lab boots an unmodified guest with kvm_amd,
// and this very test program, in there, compares that guest with what it says.
// With OUTSIGHT_KVM=all it does so for every kernel, and for every view; with OUTSIGHT_SLOW it also watches by breakpoints.
func TestGuestKVM(t *testing.T) {
	labtest.NeedQEMU(t)
	tests := labtest.Binary(t)
	n := labtest.Nested{Command: command(t), Run: "^TestInside$", Patience: 8 * time.Minute, After: "echo '" + resultsBegin + "'; cat /results"}
	n.Guest.Files = map[string]string{"/crowd": guests.Program(t, "crowd"), "/truth": guests.Program(t, "truth")}
	inner := []innerGuest{{"6.12", vm.SourceShared}, {"7.2", vm.SourcePrivate}}
	if os.Getenv("OUTSIGHT_KVM") == "all" {
		n.Guest = guests.ServerOptions(t, lab.Options{})
		n.Patience = 40 * time.Minute // for every view
		inner = []innerGuest{
			{"5.10", vm.SourceShared},
			{"5.10", vm.SourcePrivate},
			{"6.1", vm.SourceShared},
			{"6.1", vm.SourcePrivate},
			{"6.12", vm.SourceShared},
			{"6.12", vm.SourcePrivate},
			{"7.2", vm.SourceShared},
			{"7.2", vm.SourcePrivate},
		}
	}
	for _, i := range inner {
		t.Run(i.kernel+"-"+string(i.ram), func(t *testing.T) {
			n := n
			n.Guest.Kernel, n.Private = i.kernel, i.ram == vm.SourcePrivate
			n.Env = []string{
				"OUTSIGHT_WITNESS_RAM=" + string(i.ram), "OUTSIGHT_WITNESS_KERNEL=" + i.kernel,
				"OUTSIGHT_KVM=" + os.Getenv("OUTSIGHT_KVM"), "OUTSIGHT_SLOW=" + os.Getenv("OUTSIGHT_SLOW"), "OUTSIGHT_RESULTS=/results",
			}
			for range 3 {
				out, err := n.Try(t, tests)
				if err == nil {
					t.Log(out)
					recordInside(t, out)
					return
				}
				t.Logf("another try, after %v: %s", err, out)
				if strings.Contains(out, "differences") {
					recordInside(t, out)
					break
				}
			}
			t.Error("this guest on KVM was not seen as it is")
		})
	}
}

type innerGuest struct {
	kernel string
	ram    vm.Source
}

// recordInside records what was found in the KVM host.
func recordInside(t *testing.T, out string) {
	t.Helper()
	_, results, _ := strings.Cut(out, "\n"+resultsBegin+"\n")
	for line := range strings.Lines(results) {
		var f fact
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		record(t, f)
	}
}

const resultsBegin = "== results"

// TestInside is what TestGuestKVM runs inside its KVM host.
func TestInside(t *testing.T) {
	g := labtest.NestedGuest(t)
	all := os.Getenv("OUTSIGHT_KVM") == "all"
	if all {
		guests.StartServer(t, g)
	} else {
		guests.StartCrowd(t, g, "-count", "1") // every kind once: it is slow in here
	}
	w := witness{t: t, g: g, few: true}
	w.agree("live", func() seen {
		return look(t, "qemu:"+g.QMP(), vm.Options{}, vm.Source(os.Getenv("OUTSIGHT_WITNESS_RAM")), false)
	})
	if all {
		compareViews(t, g)
	}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		breakpointsOnKVM(t, g)
	}
}
