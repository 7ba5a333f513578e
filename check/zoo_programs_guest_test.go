package check_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// programTrick is one that a program inside the guest does (groundtruth/guests/tricks).
type programTrick struct {
	name    string
	command string   // starts it, and prints "ready" when it is done
	undo    string   // what is left to do after all that it started has ended
	want    []string // the checks that must find it; none of a healthy thing that looks like a trick
}

var programTricks = []programTrick{
	{"program in a memfd", "/tricks memfd payload kworker/0:1", "", []string{"fileless-program"}},
	{"memfd named as runc's, by another", "/tricks memfd runc_cloned:/proc/self/exe sh", "", []string{"fileless-program"}},
	{"script in a memfd", "/tricks memfd-script", "", []string{"fileless-program"}},
	{"deleted in /dev/shm", "/tricks deleted /dev/shm/kdmtmpflush", "", []string{"fileless-program"}},
	{"deleted in /var/lib", "mkdir -p /var/lib/x; /tricks deleted /var/lib/x/agent", "", []string{"fileless-program"}},
	{"healthy: upgraded", "mkdir -p /usr/sbin; /tricks upgraded /usr/sbin/daemon", "rm -f /usr/sbin/daemon", nil},
	{"shell on a connection", "/tricks shell", "", []string{"shell-on-socket"}},
	{"filter with magic", "/tricks filter-magic", "", []string{"packet-filter-backdoor"}},
	{"filter by window", "/tricks filter-window", "", []string{"packet-filter-backdoor"}},
	{"healthy: filter of DHCP", "/tricks filter-dhcp", "", nil},
	{"healthy: sniffer", "/tricks sniff dummy0", "", nil},
	{"promiscuous by flag", "ip link set dummy0 promisc on; echo ready", "ip link set dummy0 promisc off", []string{"promiscuous"}},
}

// TestGuestZooPrograms has programs in guests do what intruders do.
func TestGuestZooPrograms(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{
				Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: []string{"dummy numdummies=1"},
				Files: map[string]string{"/tricks": guests.Program(t, "tricks")},
			})
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			silent(t, s)
			for _, k := range programTricks {
				t.Run(k.name, func(t *testing.T) { performInside(t, g, s, k) })
			}
			silent(t, s)
		})
	}
}

func performInside(t *testing.T, g *lab.Guest, s *guest.Guest, k programTrick) {
	const start = `mkdir -p /run; rm -f /run/trick.log
setsid sh -c '%s' >/run/trick.log 2>&1 </dev/null & echo $!
for try in $(seq 100); do grep -qx ready /run/trick.log && exit 0; sleep 0.1; done
cat /run/trick.log >&2; exit 1`
	pid := strings.TrimSpace(labtest.Output(t, g, fmt.Sprintf(start, k.command)))
	defer labtest.Output(t, g, fmt.Sprintf("kill -9 -%s 2>/dev/null; %s\n:", pid, k.undo))
	r, err := check.Run(t.Context(), s, check.All())
	if err != nil {
		t.Fatal(err)
	}
	judge(t, r, k.want)
}
