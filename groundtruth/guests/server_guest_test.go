package guests_test

import (
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// serverSkips are what the server cannot do on some of Debian's kernels: from which
// kernel on, and up to which, it must be done. Acts not named here must work on all.
var serverSkips = map[string]struct{ since, until string }{
	"mptcp":            {since: "6.1"}, // 5.6; Debian's 5.10 has it off
	"udplite":          {until: "6.12"},
	"bpf kprobe multi": {since: "6.12"}, // 5.18, with fprobe, which the cloud kernel of 6.1 has not
	"bpf netfilter":    {since: "6.12"}, // 6.4
	"bpf tcx":          {since: "6.12"}, // 6.6
	"keys: big_key":    {since: "none"}, // not configured
}

// The server gets ready on the oldest and on the newest kernel, and does all that the
// kernel can.
func TestGuestServer(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it takes minutes")
	}
	names := lab.KernelNames()
	for _, kernel := range []string{"5.10", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			g := guests.UpServer(t, lab.Options{Kernel: kernel, SMP: 2})
			skipped := map[string]bool{}
			for line := range strings.Lines(labtest.Output(t, g, "grep -v '^ready$' /run/server.log || :")) {
				what, ok := strings.CutPrefix(strings.TrimSpace(line), "skipped: ")
				if !ok {
					t.Errorf("the server says %q", line)
					continue
				}
				act, excused := "", false
				for name := range serverSkips {
					if strings.HasPrefix(what, name+":") || strings.HasPrefix(what, name+" ") {
						act, excused = name, !mustDo(names, name, kernel)
					}
				}
				if skipped[act] = true; !excused {
					t.Errorf("not done: %s", what)
				}
			}
			for name := range serverSkips {
				if !mustDo(names, name, kernel) && !skipped[name] {
					t.Errorf("%s: done, though the list says that it cannot be", name)
				}
			}
		})
	}
}

// mustDo says whether a kernel can do an act. The kernels are in order, oldest first.
func mustDo(kernels []string, act, kernel string) bool {
	can := serverSkips[act].since == ""
	for _, k := range kernels {
		can = can || k == serverSkips[act].since
		if k == kernel {
			return can
		}
		if k == serverSkips[act].until {
			return false
		}
	}
	return false
}
