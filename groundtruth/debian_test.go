package groundtruth

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestDebian compares a guest with a whole Debian in it: systemd, its
// services, sessions and control groups.
func TestGuestDebian(t *testing.T) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "mmdebstrap")
	g := labtest.Up(t, lab.Options{
		Userland: lab.Debian, Memory: gib, SMP: 2,
		Files: map[string]string{"/truth": labtest.Program(t, "truth"), "/server": labtest.Program(t, "server")},
	})
	w := witness{t: t, g: g, few: true}
	// What the other guests have few of: libraries, terminals, and bash.
	t.Run("views", func(t *testing.T) {
		if skipped := labtest.StartServer(t, g, "-only", "shell"); skipped != "" {
			t.Error(skipped)
		}
		for _, name := range []string{"cpus", "elves", "history", "libs", "ttys"} {
			t.Run(name, func(t *testing.T) { viewCases[name].compare(t, g) })
		}
	})
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
