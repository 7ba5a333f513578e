package groundtruth

import (
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestDebian compares a guest with a whole Debian in it: systemd, its services,
// sessions and control groups. What its views show most of that other guests have few of
// is compared.
func TestGuestDebian(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "mmdebstrap")
	g := labtest.Up(t, lab.Options{
		Userland: lab.Debian, Memory: gib, SMP: 2,
		Files: map[string]string{"/truth": guests.Program(t, "truth"), "/server": guests.Program(t, "server")},
	})
	t.Run("views", func(t *testing.T) {
		if skipped := guests.StartServer(t, g, "-only", "shell"); skipped != "" {
			t.Error(skipped)
		}
		for _, name := range []string{"cgroups", "cpus", "creds", "elfs", "filesystems", "history", "libs", "modules", "mounts", "namespaces", "ttys"} {
			t.Run(name, func(t *testing.T) { viewCases[name].compare(t, g) })
		}
	})
	t.Run("ps", func(t *testing.T) { debianProcesses(t, g) })
}

// TestGuestDebianServer compares every view, and what Debian's own tools say, in a Debian
// that is a server: a firewall, a web server behind systemd's fences, a container, a
// session over SSH, and all that groundtruth/guests/server does. It takes long: OUTSIGHT_DEBIAN names
// kernels, with commas between them, and OUTSIGHT_SLOW means all.
func TestGuestDebianServer(t *testing.T) {
	kernels := strings.FieldsFunc(os.Getenv("OUTSIGHT_DEBIAN"), func(r rune) bool { return r == ',' })
	if len(kernels) == 0 && os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = lab.KernelNames()
	}
	if len(kernels) == 0 {
		t.Skip("set OUTSIGHT_DEBIAN or OUTSIGHT_SLOW: it takes many minutes")
	}
	labtest.NeedQEMU(t)
	for _, kernel := range kernels {
		t.Run(kernel, func(t *testing.T) {
			g := guests.UpServer(t, lab.Options{Kernel: kernel, Userland: lab.Debian, Memory: gib, SMP: 2})
			t.Run("views", func(t *testing.T) { compareViews(t, g) })
			if os.Getenv("OUTSIGHT_VIEWS") != "" {
				return
			}
			t.Run("tools", func(t *testing.T) { compareTools(t, g) })
			t.Run("ps", func(t *testing.T) { debianProcesses(t, g) })
		})
	}
}

func debianProcesses(t *testing.T, g *lab.Guest) {
	w := witness{t: t, g: g, few: true}
	var last seen
	w.agree("live", func() seen {
		last = look(t, "qemu:"+g.QMP(), vm.Options{}, vm.SourceShared, false)
		return last
	})
	for _, p := range last.tasks {
		if p.Comm == "systemd-journal" && strings.HasSuffix(p.Cgroup, "/systemd-journald.service") {
			return
		}
	}
	t.Error("systemd-journald is not in the control group of its service")
}
