package groundtruth

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	_ "github.com/outsight-vmi/outsight/table/views"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

const (
	gib      = 1 << 30
	isolated = "pti=on" // whatever processor QEMU shows
)

// machines are every kernel, spread over what changes how a guest is read: shared
// and private RAM, both page-table depths, one and several processors, RAM from
// 256 MiB to across the PCI hole, both machine types, isolated page tables.
var machines = []struct {
	name string
	o    lab.Options
}{
	{"5.10-shared", lab.Options{Kernel: "5.10", Memory: gib / 4, SMP: 1, CPU: "max,la57=off", Append: isolated}},
	{"5.10-private", lab.Options{Kernel: "5.10", Memory: 6 * gib, SMP: 4, CPU: "max,la57=on", Private: true, Machine: "pc"}},
	{"6.1-shared", lab.Options{Kernel: "6.1", Memory: gib, SMP: 4, CPU: "max,la57=on"}},
	{"6.1-private", lab.Options{Kernel: "6.1", Memory: gib / 4, SMP: 1, CPU: "max,la57=off", Private: true}},
	{"6.12-shared", lab.Options{Kernel: "6.12", Memory: 8 * gib, SMP: 4, CPU: "max,la57=on"}},
	{"6.12-private", lab.Options{Kernel: "6.12", Memory: gib / 2, SMP: 1, CPU: "qemu64", Private: true}},
	{"7.2-shared", lab.Options{Kernel: "7.2", Memory: gib / 4, SMP: 1, CPU: "max,la57=off"}},
	{"7.2-private", lab.Options{Kernel: "7.2", Memory: 8 * gib, SMP: 4, CPU: "max,la57=on", Private: true, Append: isolated}},
}

func TestGuestProcesses(t *testing.T) {
	for _, c := range machines {
		t.Run(c.name, func(t *testing.T) {
			if c.o.Memory <= gib { // two of the large ones at once might be too much for the host
				t.Parallel()
			}
			processes(t, c.o)
		})
	}
}

// TestGuestKernel does the same with a kernel that no test names: set
// OUTSIGHT_KERNEL to the paths of vmlinuz files, with colons between them.
func TestGuestKernel(t *testing.T) {
	kernels := os.Getenv("OUTSIGHT_KERNEL")
	if kernels == "" {
		t.Skip("OUTSIGHT_KERNEL names no kernel")
	}
	for i, path := range filepath.SplitList(kernels) {
		t.Run(fmt.Sprint(i), func(t *testing.T) { processes(t, lab.Options{Kernel: path, Memory: gib, SMP: 2}) })
	}
}

// processes boots a guest and compares every way to look at it.
func processes(t *testing.T, o lab.Options) {
	g := guests.UpCrowd(t, o)
	source := vm.SourceShared
	if o.Private {
		source = vm.SourcePrivate
	}
	qmp := "qemu:" + g.QMP()
	w := witness{t: t, g: g}
	w.agree("live", func() seen {
		s := look(t, qmp, vm.Options{}, source, false)
		if o.Append == isolated && !s.pti {
			t.Error("its page tables are isolated, and it was not seen")
		}
		return s
	})
	w.compare("command", func() (int, verdict) {
		rows := printed(t, qmp)
		return len(rows), func(before, after account) []string { return printedDifferences(rows, before, after) }
	})
	w.agree("without QMP", func() seen {
		return look(t, fmt.Sprintf("pid:%d", g.PID()), vm.Options{NoQMP: true}, source, false)
	})
	holes := []bool{false}
	if o.Memory > 2*gib {
		holes = []bool{true, false} // with the PCI hole in it, and without
	}
	for _, hole := range holes {
		w.agree(fmt.Sprintf("dump with hole %v", hole), func() seen {
			path := filepath.Join(t.TempDir(), "memory.raw")
			defer os.Remove(path)
			dump(t, g, path, hole)
			return look(t, path, vm.Options{}, vm.SourceDump, false)
		})
	}
	w = witness{t: t, g: g, threads: true}
	w.agree("threads", func() seen { return look(t, qmp, vm.Options{}, source, true) })
}

// rounds is how often a comparison is tried. A task may change its state, or a
// worker its name, for a moment between the guest's two answers; what outsight
// gets wrong it gets wrong every time.
const rounds = 5

// witness compares looks from outside with what the guest says. An answer that
// followed one look also precedes the next.
type witness struct {
	t       *testing.T
	g       *lab.Guest
	threads bool
	few     bool // the guest has no crowd in it
	before  *account
}

func (w *witness) ask() account {
	w.t.Helper()
	a := ask(w.t, w.g, w.threads)
	if !w.few && len(a.rows) < 300 {
		w.t.Fatalf("the guest lists %d tasks, fewer than its crowd has", len(a.rows))
	}
	return a
}

// verdict says what differs from the guest's answers before and after a look.
type verdict func(before, after account) []string

func (w *witness) agree(what string, look func() seen) {
	w.t.Helper()
	w.compare(what, func() (int, verdict) {
		s := look()
		return len(s.tasks), func(before, after account) []string { return differences(s, before, after, w.threads) }
	})
}

// compare looks, again while anything differs; look says how many rows it saw.
func (w *witness) compare(what string, look func() (int, verdict)) {
	w.t.Helper()
	var diffs []string
	rows := 0
	defer func() {
		f := fact{View: "ps", Kernel: kernelOf(w.g), Source: sourceOf(w.g), Rows: rows, Columns: psColumns, Equal: len(diffs) == 0}
		switch {
		case strings.HasPrefix(what, "posture "): // neither a dump nor a machine as it is
			return
		case strings.HasPrefix(what, "dump "):
			f.Source = "raw"
		}
		record(w.t, f)
	}()
	for range rounds {
		if w.before == nil {
			a := w.ask()
			w.before = &a
		}
		var differ verdict
		rows, differ = look()
		after := w.ask()
		diffs = differ(*w.before, after)
		w.before = &after
		if len(diffs) == 0 {
			w.t.Logf("%s: %d rows equal", what, rows)
			return
		}
	}
	w.t.Errorf("%s: %d differences:\n%s", what, len(diffs), strings.Join(diffs[:min(len(diffs), 40)], "\n"))
}

// attach is a look at the guest in m; done ends it and closes m.
func attach(t *testing.T, m *vm.Machine, o guest.Options) (l *guest.Look, done func()) {
	t.Helper()
	g, err := guest.Attach(t.Context(), m, o)
	if err != nil {
		t.Fatalf("%s: %v", o.Target, err)
	}
	if l, err = g.Look(t.Context()); err != nil {
		t.Fatalf("%s: %v", o.Target, err)
	}
	return l, func() {
		l.Close()
		_ = g.Close() // a machine that has ended says so
	}
}

// look reads all processes from outside.
func look(t *testing.T, target string, o vm.Options, source vm.Source, threads bool) seen {
	t.Helper()
	return lookWith(t, target, o, source, threads, func(error) bool { return false })
}

// lookWith is look where some warnings are right.
func lookWith(t *testing.T, target string, o vm.Options, source vm.Source, threads bool, right func(error) bool) seen {
	t.Helper()
	m, err := local.Host().Open(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	if m.Source != source {
		t.Errorf("memory is read as %q, not %q", m.Source, source)
	}
	g, done := attach(t, m, guest.Options{Target: target, Warn: func(err error) {
		if !right(err) {
			t.Error(err)
		}
	}})
	defer done()
	if len(g.Linux.Inconsistencies) > 0 {
		t.Errorf("inconsistencies: %q", g.Linux.Inconsistencies)
	}
	return all(t, g, threads)
}

func all(t *testing.T, g *guest.Look, threads bool) seen {
	s := seen{boot: g.Linux.BootTime(), pti: g.Linux.PTI, tasks: map[key]*linux.Process{}}
	l := g.Linux.NewProcessReader()
	for task, err := range g.Linux.Processes(t.Context()) {
		if err != nil {
			t.Error(err)
			continue
		}
		if !threads {
			p, err := l.Process(t.Context(), task)
			if err != nil {
				t.Error(err)
				continue
			}
			s.add(p)
			continue
		}
		for thread, err := range l.Threads(t.Context(), task) {
			if err != nil {
				t.Error(err)
				continue
			}
			p, err := l.ThreadAsProcess(t.Context(), thread)
			if err != nil {
				t.Error(err)
				continue
			}
			s.add(p)
		}
	}
	return s
}

// dump writes a sparse raw dump of the paused guest: by guest-physical address,
// with the PCI hole in it, or one range after the other.
func dump(t *testing.T, g *lab.Guest, path string, hole bool) {
	t.Helper()
	m, err := local.Open(t.Context(), "qemu:"+g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	p := m.Control.Pauser
	if p == nil {
		t.Fatal("the guest cannot be paused")
	}
	resume, err := p.Pause(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resume(context.WithoutCancel(t.Context()))
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	populated, _ := phys.As[phys.Populated](m.Memory)
	buf := make([]byte, 1<<20)
	offset := int64(0)
	for _, r := range m.Memory.Ranges() {
		at := offset - int64(r.Start) // what to add to an address
		if hole {
			at = 0
		}
		offset += int64(r.Size())
		if err := f.Truncate(int64(r.End) + at); err != nil {
			t.Fatal(err)
		}
		for pa := r.Start; pa < r.End; {
			run, ok := populated.NextPopulated(pa)
			if !ok || run.Start >= r.End {
				break
			}
			for pa = max(pa, run.Start); pa < min(run.End, r.End); {
				b := buf[:min(uint64(len(buf)), uint64(min(run.End, r.End)-pa))]
				if _, err := m.Memory.ReadAt(b, pa); err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteAt(b, int64(pa)+at); err != nil {
					t.Fatal(err)
				}
				pa += phys.Addr(len(b))
			}
		}
	}
}
