package check_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestTold compares with what a guest's own programs say: the truth at first, then one
// that leaves things out.
func TestGuestTold(t *testing.T) {
	labtest.NeedQEMU(t)
	g := labtest.Up(t, lab.Options{Memory: 512 << 20, Modules: zooModules})
	labtest.Output(t, g, "modprobe loop; sleep 100000 </dev/null >/dev/null 2>&1 & (nc -lp 4444 </dev/null >/dev/null 2>&1 &); sleep 1; echo ok")
	// By the guest's clock: it is not the host's.
	at := time.Unix(0, 0)
	told := func(drop string) *check.Told {
		all := &check.Told{}
		for _, c := range []string{"ps", "cat /proc/modules", "netstat -tuln"} {
			out := labtest.Output(t, g, c)
			seconds, err := strconv.ParseInt(strings.TrimSpace(labtest.Output(t, g, "date +%s")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			at = time.Unix(seconds+60, 0)
			var kept strings.Builder
			for line := range strings.Lines(out) {
				if drop == "" || !strings.Contains(line, drop) {
					kept.WriteString(line)
				}
			}
			if err := all.Read(c, strings.NewReader(kept.String()), at); err != nil {
				t.Fatalf("%s: %v in %s", c, err, out)
			}
		}
		return all
	}
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	only, err := check.Select([]string{"contradicted"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for drop, want := range map[string]string{"": "", "sleep 100000": "process", "loop ": "module", ":4444": "socket"} {
		r, err := check.Run(t.Context(), s, only, check.WithTold(told(drop)))
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, f := range r.Findings {
			if f.Object.Kind != "process" || !strings.Contains(f.Object.Name, "agent") {
				kinds = append(kinds, f.Object.Kind)
			}
			t.Logf("without %q: %s", drop, f.Title)
		}
		if strings.Join(kinds, " ") != want {
			t.Errorf("without %q: found %v, not %q; gaps %v", drop, kinds, want, r.Gaps)
		}
	}
	// A kernel that says that it boots is not judged yet.
	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	z := &zoo{T: t, ram: labtest.OpenRAM(t, g), look: look}
	defer z.restore()
	z.write(z.symbol("system_state"), make([]byte, 4))
	if _, err := check.Run(t.Context(), s, only); !errors.Is(err, vm.ErrNotStarted) || !strings.Contains(err.Error(), "still booting") {
		t.Errorf("while it boots: %v", err)
	}
}
