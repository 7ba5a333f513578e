package check_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
)

// upListened boots a guest with the plugin.
func upListened(t *testing.T, o lab.Options) (*lab.Guest, *guest.Guest) {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		t.Skip(err)
	}
	o.Plugin = path
	g := labtest.Up(t, o)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return g, s
}

// readers are what a guest's administrator looks at it with, again and again.
const readers = `while :; do ps; ls /proc /sys/module /sys/class/net; lsmod; netstat -an; ls -R /etc /tmp /lib; /truth sockets; /truth bpf; ifconfig -a; cat /proc/net/dev /proc/net/unix; done >/dev/null 2>&1 </dev/null &`

// hear runs the check while the guest's programs read.
func hear(t *testing.T, s *guest.Guest, d time.Duration) *check.Result {
	t.Helper()
	c, ok := check.Lookup("lied-to")
	if !ok {
		t.Fatal("no check lied-to")
	}
	r, err := check.Run(t.Context(), s, []*check.Check{c}, check.Listen(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Assurances() {
		t.Log(a.Text)
	}
	for _, f := range r.Findings {
		t.Logf("%s; expected %s; seen %s; %v", f.Title, f.Expected, f.Seen, f.Evidence)
	}
	return r
}

// TestGuestListen: what is kept from a guest's own programs is found, with who was lied to, and nothing in a guest whose
// kernel tells the truth.
func TestGuestListen(t *testing.T) {
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g, s := upListened(t, lab.Options{
				Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: zooModules,
				Files: map[string]string{"/truth": guests.Program(t, "truth")},
			})
			labtest.Output(t, g, "for m in "+strings.Join(zooModules, " ")+"; do modprobe $m; done; mkdir -p /etc /tmp; echo x >/tmp/secret; cat /tmp/secret; sleep 100000 </dev/null >/dev/null 2>&1 & nc -l -p 4711 </dev/null >/dev/null 2>&1 & sleep 4; echo ok")
			labtest.Output(t, g, "while :; do /bin/true; done </dev/null >/dev/null 2>&1 & "+readers+" echo ok")
			r := hear(t, s, 8*time.Second)
			if len(r.Findings)+len(r.Gaps) > 0 {
				t.Errorf("in a clean guest: %v, gaps %v", r.Findings, r.Gaps)
			}
		})
	}
}
