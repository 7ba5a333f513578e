package told_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace/told"
)

// TestGuestAsk: what a program is told by io_uring and recvmmsg is what others are told by plain calls.
func TestGuestAsk(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "gcc")
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	program := filepath.Join(t.TempDir(), "ask")
	if out, err := exec.Command("gcc", "-static", "-O1", "-o", program, filepath.Join("testdata", "ask.c")).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = []string{"6.1", "6.12", "7.2"}
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			modules := []string{"veth", "bridge", "unix_diag"}
			g := labtest.Up(t, lab.Options{Name: "ask-" + k, Kernel: k, SMP: 2, Plugin: path, Modules: modules, Files: map[string]string{"/ask": program}})
			labtest.Output(t, g, "for m in veth bridge unix_diag; do modprobe $m; done; ip link add type veth; /ask hold </dev/null >/tmp/held 2>&1 & while ! grep -q ok /tmp/held; do sleep 0.1; done; echo ok")
			s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, how := range []string{"", "async", "sqpoll", "fixed", "selected"} {
				t.Run(how, func(t *testing.T) { ask(t, g, s, "/ask "+how) })
			}
		})
	}
}

// ask compares what the program is told with what cat is.
func ask(t *testing.T, g *lab.Guest, s *guest.Guest, command string) {
	l, err := told.Listen(t.Context(), s, nil)
	if err != nil {
		t.Fatal(err)
	}
	labtest.Output(t, g, command+" && cat /proc/modules /proc/net/unix /proc/net/dev >/dev/null; echo ok")
	time.Sleep(time.Second) // what happened is on its way
	heard, err := l.Stop()
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*told.Reading{}
	for _, r := range heard.Readings {
		t.Logf("%v, in %d calls: %d names, %d sockets", r, r.Calls, len(r.Names), len(r.Inodes))
		by[r.Call+" "+r.What] = r
	}
	for asked, as := range map[string]string{
		"io_uring:read /proc/modules":                  "read /proc/modules",
		"io_uring:read /proc/net/unix":                 "read /proc/net/unix",
		"io_uring:readv /proc/net/dev":                 "read /proc/net/dev",
		"io_uring:recvfrom SOCK_DIAG_BY_FAMILY (unix)": "read /proc/net/unix",
		"io_uring:recvmsg RTM_GETLINK":                 "read /proc/net/dev",
		"recvmmsg SOCK_DIAG_BY_FAMILY (unix)":          "read /proc/net/unix",
	} {
		got, want := by[asked], by[as]
		switch {
		case got == nil || want == nil:
			t.Errorf("%s: heard: %t, %s: %t", asked, got != nil, as, want != nil)
		case !maps.Equal(got.Names, want.Names) || !maps.Equal(got.Inodes, want.Inodes) || len(got.Names)+len(got.Inodes) == 0:
			t.Errorf("%s: %v %v, and %s: %v %v", asked, got.Names, got.Inodes, as, want.Names, want.Inodes)
		case got.Net() != want.Net() && len(got.Inodes) > 0:
			t.Errorf("%s: of network namespace %#x, not %#x", asked, got.Net(), want.Net())
		}
	}
}
