package groundtruth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

const (
	// hostileHeap is how much more than at rest a view may hold, in bytes.
	hostileHeap = 200 << 20
	// hang is when a view that neither reads nor ends has hung.
	hang = 2 * time.Minute
)

// hostileGuest is a dump of a healthy guest.
type hostileGuest struct {
	machine *vm.Machine
	linux   *linux.System
	text    phys.Range
}

// TestGuestHostile runs every view over a dump of a busy guest in which one to
// eight of the words that the view reads are lies. Whatever they say, the view ends
// without a panic, after bounded work and with bounded memory.
//
// OUTSIGHT_DUMP is a dump to take instead of booting a guest, OUTSIGHT_HOSTILE how
// often to lie to a cheap view (dear ones get less), OUTSIGHT_HOSTILE_SEED the first
// seed.
func TestGuestHostile(t *testing.T) {
	dump := os.Getenv("OUTSIGHT_DUMP")
	if dump == "" && os.Getenv("OUTSIGHT_HOSTILE") == "" {
		t.Skip("make hostile runs it")
	}
	if dump == "" {
		labtest.NeedQEMU(t)
		g := guests.UpServer(t, lab.Options{Kernel: "6.12", Memory: gib / 4, SMP: 2})
		dump = filepath.Join(t.TempDir(), "guest.raw")
		if a := run(t, nil, "dump", "qemu:"+g.QMP(), "-o", dump); a.status != 0 {
			t.Fatalf("dump: %s", a.stderr)
		}
	}
	g := openHostile(t, dump)
	seed := number(t, "OUTSIGHT_HOSTILE_SEED", 1)
	for _, v := range table.All() {
		if !table.SpecOf(v).Host {
			t.Run(v.Name(), func(t *testing.T) { g.lieTo(t, v, seed) })
		}
	}
}

func number(t *testing.T, variable string, otherwise uint64) uint64 {
	s := os.Getenv(variable)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

func openHostile(t *testing.T, dump string) *hostileGuest {
	t.Helper()
	m, err := local.Open(t.Context(), dump)
	if err != nil {
		t.Fatal(err)
	}
	whole, done := attach(t, m, guest.Options{Target: dump, PostMortem: true})
	t.Cleanup(done)
	g := &hostileGuest{machine: m, linux: whole.Linux}
	g.text.Start = whole.Linux.TextPA
	for _, name := range []string{"_etext", "__end_rodata"} {
		if a, ok := whole.Linux.Address(name); ok {
			g.text.End = max(g.text.End, whole.Linux.TextPA+phys.Addr(a-whole.Linux.Text))
		}
	}
	return g
}

// result is how one run of a view ended.
type result struct {
	rows     int64
	reads    int64
	most     uint64 // bytes of heap in use
	took     time.Duration
	panicked string
	err      error
}

// look runs v once over m.
func (g *hostileGuest) look(t *testing.T, v table.View, m *hostileMemory, where []table.Constraint) (res result) {
	k := *g.linux.Kernel // which was found in memory that did not lie
	k.Memory = m
	k.Space = virt.New(m, k.Space.Root(), k.Space.Levels()).WithDirectMap(k.Space.DirectBase())
	start := time.Now()
	base := heap(false)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			now := heap(false)
			if now > base+hostileHeap {
				now = heap(true)
			}
			if now > base {
				res.most = max(res.most, now-base)
			}
			if now > base+hostileHeap {
				m.tooBig.Store(true)
			}
			if time.Since(start) > hang {
				panic(fmt.Sprintf("%s hangs after %d reads and %d rows: %v", v.Name(), m.reads.Load(), m.rows.Load(), m.lies))
			}
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			res.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
		close(stop)
		<-stopped
		res.took, res.reads, res.rows = time.Since(start), m.reads.Load(), m.rows.Load()
	}()
	s, err := linux.New(&k)
	if err != nil {
		res.err = err
		return res
	}
	look := &guest.Look{Target: "dump", Linux: s, Machine: &vm.Machine{Info: g.machine.Info, Memory: m, Proven: true}}
	out, err := table.NewEncoder(io.Discard, table.JSON, v.Columns(), table.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var report table.Report
	for row := range table.Rows(ctx, v, look, table.Request{Where: where}, &report) {
		m.rows.Add(1)
		if err := out.Row(row); err != nil {
			t.Fatal(err)
		}
	}
	m.rows.Store(int64(report.Rows)) // with those that were only an error
	res.err = cmp.Or(report.Err, out.Close())
	return res
}

// options are the view's own switches, all of them or those that r chooses.
func options(v table.View, r *rand.Rand) (where []table.Constraint) {
	for _, c := range v.Columns() {
		if c.Option && (r == nil || r.IntN(2) == 0) {
			where = append(where, table.Constraint{Column: c.Name, Values: []table.Value{table.BoolValue(true)}})
		}
	}
	return where
}

func (g *hostileGuest) lieTo(t *testing.T, v table.View, seed uint64) {
	told := &notes{seen: map[phys.Addr]bool{}, direct: uint64(g.linux.Space.DirectBase())}
	memory := func() *hostileMemory {
		m := &hostileMemory{Memory: g.machine.Memory, text: g.text}
		m.mapper, _ = phys.As[phys.Mapper](g.machine.Memory)
		return m
	}
	healthy := memory()
	healthy.notes = told
	truth := g.look(t, v, healthy, options(v, nil))
	if truth.panicked != "" || truth.err != nil {
		t.Fatalf("of a healthy guest: %v %s", truth.err, truth.panicked)
	}
	told.seen = nil
	debug.FreeOSMemory()

	n := number(t, "OUTSIGHT_HOSTILE", 60)
	const cheap = 20_000 // reads and rows
	n = min(n, max(1, n*cheap/uint64(truth.reads+truth.rows+1)))
	limit, maxRows := 50*truth.reads+2_000_000, 50*truth.rows+1_000_000
	name := fnv.New64a()
	_, _ = io.WriteString(name, v.Name())
	var worst result
	var total time.Duration
	for i := range n {
		r := rand.New(rand.NewPCG(seed+i, name.Sum64()))
		m := memory()
		m.limit, m.lies = limit, told.lies(m, r)
		res := g.look(t, v, m, options(v, r))
		total += res.took
		worst.rows, worst.reads = max(worst.rows, res.rows), max(worst.reads, res.reads)
		worst.took, worst.most = max(worst.took, res.took), max(worst.most, res.most)
		var what string
		switch {
		case m.tooBig.Load():
			what = fmt.Sprintf("holds %d MiB\n%s", res.most>>20, m.where)
		case res.reads > limit:
			what = fmt.Sprintf("reads without end (a healthy guest: %d), here:\n%s", truth.reads, m.where)
		case res.panicked != "":
			what = "panic: " + res.panicked
		case res.rows > maxRows:
			what = fmt.Sprintf("%d rows, of a healthy guest %d", res.rows, truth.rows)
		case errors.Is(res.err, phys.ErrGone):
			what = "takes the lies for a machine that went away: " + res.err.Error()
		default:
			continue
		}
		t.Errorf("seed %d, after %v, %d reads, %d rows, lies %v: %s", seed+i, res.took, res.reads, res.rows, m.lies, what)
		break
	}
	t.Logf("%d times in %v; %d words; healthy: %v, %d reads, %d rows; worst: %v, %d reads, %d rows, %d MiB",
		n, total.Round(time.Millisecond), len(told.small)+len(told.bulk), truth.took.Round(time.Millisecond), truth.reads, truth.rows,
		worst.took.Round(time.Millisecond), worst.reads, worst.rows, worst.most>>20)
}
