package groundtruth

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm"
)

// debianKernels are those under which the Debian guest is looked at: the one that its
// release has, or, as OUTSIGHT_SLOW and OUTSIGHT_DEBIAN ask, others.
func debianKernels() []string {
	if names := os.Getenv("OUTSIGHT_DEBIAN"); names != "" {
		return strings.Split(names, ",")
	}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		return lab.KernelNames()
	}
	return []string{"6.12"}
}

// TestGuestDebian compares a guest with a whole Debian in it: systemd, its services,
// sessions and control groups, a firewall, a container, and all that lab/guest/server does.
func TestGuestDebian(t *testing.T) {
	labtest.NeedQEMU(t)
	only := strings.FieldsFunc(os.Getenv("OUTSIGHT_VIEWS"), func(r rune) bool { return r == ',' })
	for _, kernel := range debianKernels() {
		t.Run(kernel, func(t *testing.T) {
			g := labtest.UpServer(t, lab.Options{Kernel: kernel, Userland: lab.Debian, Memory: gib, SMP: 2})
			t.Run("views", func(t *testing.T) {
				for _, name := range slices.Sorted(maps.Keys(viewCases)) {
					c := viewCases[name]
					if len(only) > 0 && !slices.Contains(only, name) || len(c.only) > 0 && !slices.Contains(c.only, kernel) {
						continue
					}
					t.Run(name, func(t *testing.T) {
						if c.prepare != nil {
							c.prepare(t, g)
						}
						c.compare(t, g)
					})
				}
			})
			if len(only) > 0 {
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
