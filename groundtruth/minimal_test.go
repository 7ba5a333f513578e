package groundtruth

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
)

// TestGuestMinimal reads a kernel that was built with as little in it as can be read: only
// functions have names, and what distributions switch on is left out. What it can say of
// itself is compared; every view shows the truth, or names what the kernel lacks. The first
// run builds the kernel, which takes minutes.
func TestGuestMinimal(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW, or run make minimal: it builds a kernel")
	}
	labtest.NeedQEMU(t)
	labtest.NeedBuildTools(t)
	k, err := lab.BuildKernel(t.Context(), "6.12", lab.MinimalConfig, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	g := labtest.Up(t, lab.Options{
		Kernel: k.Vmlinuz, Memory: gib / 4, SMP: 2, Files: map[string]string{"/truth": guests.Program(t, "truth")},
		// Without ACPI the kernel finds processors in the MP table, which has one of each socket.
		QEMUArgs: []string{"-smp", "2,sockets=2"},
	})
	if n := strings.Count(labtest.Output(t, g, "cat /proc/cpuinfo"), "processor\t"); n != 2 {
		t.Errorf("the guest has %d processors", n)
	}
	labtest.Output(t, g, minimalScene)
	target := "qemu:" + g.QMP()
	look := func(target string, source vm.Source, threads bool) seen {
		s := lookWith(t, target, vm.Options{}, source, threads, namesFunctions)
		for _, p := range s.tasks { // of the initial namespaces /proc shows only this one
			p.NS = linux.Namespaces{Mount: p.NS.Mount}
		}
		return s
	}
	t.Run("ps", func(t *testing.T) {
		w := witness{t: t, g: g, few: true}
		w.agree("live", func() seen { return look(target, vm.SourceShared, false) })
		w.compare("command", func() (int, verdict) {
			rows := printed(t, target)
			for pid, row := range rows {
				row.PIDNS = 0
				rows[pid] = row
			}
			return len(rows), func(before, after account) []string { return printedDifferences(rows, before, after) }
		})
		w.agree("dump", func() seen {
			path := filepath.Join(t.TempDir(), "memory.raw")
			dump(t, g, path, false)
			return look(path, vm.SourceDump, false)
		})
		w = witness{t: t, g: g, few: true, threads: true}
		w.agree("threads", func() seen { return look(target, vm.SourceShared, true) })
	})
	for _, v := range table.All() {
		if !table.SpecOf(v).Host {
			t.Run(v.Name(), func(t *testing.T) { minimalView(t, g, v.Name()) })
		}
	}
}

// minimalScene makes processes of every state, and something for the other views.
const minimalScene = `
sleep 1000 &
(sleep 1000; true) </dev/null >/dev/null 2>&1 &
sh -c 'sleep 0.1 & exec sleep 1000' & # a zombie
sleep 1000 & kill -STOP $!
nc -l -p 7777 </dev/null &
echo marked >/tmp/file; tail -f /tmp/file >/dev/null &
sleep 1`

// namesFunctions accepts the one warning that such a kernel deserves.
func namesFunctions(err error) bool { return strings.Contains(err.Error(), "CONFIG_KALLSYMS_ALL") }

// untold are views of which this kernel cannot say anything itself.
var untold = map[string]string{"tracepoints": "tracefs comes with CONFIG_FTRACE"}

var (
	// lacking matches the name of what a kernel lacks.
	lacking = regexp.MustCompile(`CONFIG_[A-Z0-9_]+|symbol \w+|(struct|member) \w+`)
	crashed = regexp.MustCompile(`panic|runtime error|goroutine \d|fault`)
)

// minimalView runs a view and holds what it says against what the guest does.
func minimalView(t *testing.T, g *lab.Guest, name string) {
	a := run(t, nil, name, "qemu:"+g.QMP(), "-o", "json")
	for line := range strings.Lines(a.stderr) {
		if namesFunctions(fmt.Errorf("%s", line)) {
			continue
		}
		t.Logf("%s", strings.TrimSpace(line))
		if crashed.MatchString(line) || !lacking.MatchString(line) {
			t.Errorf("does not name what the kernel lacks: %s", line)
		}
	}
	if a.status != 0 && a.status != 3 {
		t.Errorf("exit status %d", a.status)
	}
	if a.status == 3 && !lacking.MatchString(a.stderr) {
		t.Errorf("exit status 3, and why is not said: %s", a.stderr)
	}
	rows := strings.Count(a.stdout, "\n")
	t.Logf("%d rows, exit status %d", rows, a.status)
	c, ok := viewCases[name]
	if why := untold[name]; !ok || a.status != 0 || why != "" {
		t.Logf("not compared %s", why)
		return
	}
	if name == "runqueues" {
		c.prepare(t, g)
		defer c.undo(t, g)
	} else {
		c.prepare = nil // made for what this kernel lacks
	}
	c.lacking = lacking
	c.compare(t, g)
}
