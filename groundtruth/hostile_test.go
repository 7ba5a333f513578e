package groundtruth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
)

// hostileGuest is a dump of a healthy guest, with what it takes to lie about it.
type hostileGuest struct {
	info      vm.Info
	registers []vm.Registers
	linux     *linux.System
	image     *hostileImage
	watcher   *watcher
	workers   []*hostileMemory

	runs, reads, rows, mapped atomic.Int64 // of all views
}

// TestGuestHostile runs every view over a dump of a busy guest in which one to
// eight of the words that the view reads are lies. Whatever they say, the view ends
// without a panic, after bounded work and with bounded memory. The memory is read in every
// way that there is: copied, mapped, and through a look.
//
// OUTSIGHT_DUMP is a dump to take instead of booting a guest, OUTSIGHT_HOSTILE how
// often to lie to a cheap view (expensive ones get less), OUTSIGHT_HOSTILE_SEED the first
// seed.
func TestGuestHostile(t *testing.T) {
	dump := os.Getenv("OUTSIGHT_DUMP")
	if dump == "" && os.Getenv("OUTSIGHT_HOSTILE") == "" {
		t.Skip("make hostile runs it")
	}
	if dump == "" {
		labtest.NeedQEMU(t)
		dump = hostileDump(t)
	}
	g := openHostile(t, dump)
	seed := number(t, "OUTSIGHT_HOSTILE_SEED", 1)
	start := time.Now()
	for _, v := range table.All() {
		if !table.SpecOf(v).Host {
			t.Run(v.Name(), func(t *testing.T) { g.lieTo(t, v, seed) })
		}
	}
	for _, c := range check.All() {
		t.Run("check-"+c.ID, func(t *testing.T) { g.lieTo(t, checkAsView(c), seed) })
	}
	t.Logf("lies of %d guests and %d hostile reads (%d of them mapped or through a look) with %d rows, from seed %d on, in %v",
		g.runs.Load(), g.reads.Load(), g.mapped.Load(), g.rows.Load(), seed, time.Since(start).Round(time.Second))
}

// checkAsView is a check as a view whose rows are its findings.
func checkAsView(c *check.Check) table.View {
	return table.New(table.Spec{
		Name: c.ID, Doc: c.Title + ".", Columns: check.View(nil).Columns(),
		Rows: func(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[table.Row, error] {
			return func(yield func(table.Row, error) bool) {
				found := check.Over(ctx, l, []*check.Check{c})
				for _, gap := range found.Gaps {
					if !yield(nil, gap.Err) {
						return
					}
				}
				var report table.Report
				for row := range table.Rows(ctx, check.View(slices.Values(found.Findings)), nil, r, &report) {
					if !yield(row, nil) {
						return
					}
				}
			}
		},
	})
}

// hostileDump boots a busy guest and has QEMU dump it, with the registers of its
// processors. It is kept if the test fails, as it takes it to see the same again.
func hostileDump(t *testing.T) string {
	t.Helper()
	g := guests.UpServer(t, lab.Options{Kernel: "6.12", Memory: gib / 4, SMP: 2})
	dir, err := os.MkdirTemp("", "outsight-hostile-*")
	if err != nil {
		t.Fatal(err)
	}
	dump := filepath.Join(dir, "guest.elf")
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
			return
		}
		t.Logf("the same again: OUTSIGHT_DUMP=%s, and the same number and seed", dump)
	})
	monitor(t, g, order{"stop", nil}, order{"dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + dump, "format": "elf"}})
	if err := g.Down(); err != nil { // it only takes time
		t.Fatal(err)
	}
	return dump
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
	defer done()
	g := &hostileGuest{info: m.Info, linux: whole.Linux}
	if m.Control.Registers == nil {
		t.Fatalf("%s has no registers: take an ELF or kdump file of QEMU's", dump)
	}
	if g.registers, err = m.Control.Registers.Registers(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := phys.Range{Start: whole.Linux.TextPA}
	for _, name := range []string{"_etext", "__end_rodata"} {
		if a, ok := whole.Linux.Address(name); ok {
			text.End = max(text.End, whole.Linux.TextPA+phys.Addr(a-whole.Linux.Text))
		}
	}
	g.image = newHostileImage(t, m.Memory, text)
	for range runtime.GOMAXPROCS(0) {
		g.workers = append(g.workers, &hostileMemory{hostileImage: g.image, data: g.image.mapped(t, unix.PROT_READ|unix.PROT_WRITE)})
	}
	w, stop := watch()
	t.Cleanup(stop)
	g.watcher = w
	return g
}

// result is how one run of a view ended.
type result struct {
	rows     int64
	reads    int64
	took     time.Duration
	panicked string
	err      error
}

// hostileWay is how memory is read.
type hostileWay int

const (
	private hostileWay = iota // each read copies
	mapped                    // seen without a copy
	looked                    // by pages that are kept
	ways
)

func (g *hostileGuest) memory(m *hostileMemory, way hostileWay) phys.Memory {
	switch way {
	case mapped:
		return mappedMemory{m}
	case looked:
		return newLookedMemory(m)
	}
	return m
}

// look runs v once over m, read in one of the ways.
func (g *hostileGuest) look(ctx context.Context, v table.View, m *hostileMemory, way hostileWay, regs hostileRegisters, where []table.Constraint) (res result) {
	start := time.Now()
	g.watcher.begin(m, v.Name())
	defer func() {
		if p := recover(); p != nil {
			res.panicked = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
		g.watcher.end(m)
		res.took, res.reads, res.rows = time.Since(start), m.reads.Load(), m.rows.Load()
		g.runs.Add(1)
		g.reads.Add(res.reads)
		g.rows.Add(res.rows)
		if way != private {
			g.mapped.Add(res.reads)
		}
	}()
	memory := g.memory(m, way)
	s := g.linux.Over(memory) // the kernel was found in memory that did not lie
	machine := &vm.Machine{Info: g.info, Memory: memory, Proven: true, Control: vm.Control{Registers: regs}}
	look := &guest.Look{Target: "dump", Linux: s, Machine: machine}
	out, err := table.NewEncoder(io.Discard, table.JSON, v.Columns(), table.Options{})
	if err != nil {
		res.err = err
		return res
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var report table.Report
	for row := range table.Rows(ctx, v, look, table.Request{Where: where}, &report) {
		m.rows.Add(1)
		if err := out.Row(row); err != nil {
			res.err = err
			return res
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

// healthy runs v over the truth, in every way, and notes what it reads.
func (g *hostileGuest) healthy(t *testing.T, v table.View) (*notes, result) {
	t.Helper()
	told := &notes{seen: map[phys.Addr]bool{}, direct: uint64(g.linux.Space.DirectBase())}
	m := g.workers[0]
	m.reset(nil, 0)
	m.notes = told
	truth := g.look(t.Context(), v, m, private, g.registers, options(v, nil))
	m.notes, told.seen = nil, nil
	all := []result{truth}
	for _, way := range []hostileWay{mapped, looked} {
		m.reset(nil, 0)
		all = append(all, g.look(t.Context(), v, m, way, g.registers, options(v, nil)))
	}
	for way, res := range all {
		if res.panicked != "" || res.err != nil {
			t.Fatalf("of a healthy guest: %v %s", res.err, res.panicked)
		}
		if res.rows != truth.rows {
			t.Fatalf("of a healthy guest: %d rows, and %d when read in way %d", truth.rows, res.rows, way)
		}
	}
	return told, truth
}

func (g *hostileGuest) lieTo(t *testing.T, v table.View, seed uint64) {
	told, truth := g.healthy(t, v)
	debug.FreeOSMemory()
	g.watcher.rest()

	n := number(t, "OUTSIGHT_HOSTILE", 150)
	const cheap, row = 20_000, 20 // reads; those that take as long as a row
	n = min(n, max(1, n*cheap/uint64(truth.reads+row*truth.rows+1)))
	h := &hostileView{guest: g, view: v, told: told, truth: truth, seed: seed}
	h.limit, h.maxRows = 50*truth.reads+2_000_000, 50*truth.rows+1_000_000
	name := fnv.New64a()
	_, _ = io.WriteString(name, v.Name())
	h.name = name.Sum64()
	var next atomic.Uint64
	var wait sync.WaitGroup
	for _, m := range g.workers {
		wait.Go(func() {
			for i := next.Add(1) - 1; i < n && !t.Failed(); i = next.Add(1) - 1 {
				if what := h.run(t.Context(), m, i); what != "" {
					t.Errorf("seed %d: %s", seed+i, what)
				}
			}
			m.reset(nil, 0)
			_ = unix.Madvise(m.data, unix.MADV_DONTNEED) // the pages that held lies
		})
	}
	wait.Wait()
	t.Logf("%d times in %v; %d words; healthy: %v, %d reads, %d rows; worst: %v, %d reads, %d rows, %d MiB; so far %d guests and %d reads",
		n, h.total.Round(time.Millisecond), len(told.small)+len(told.bulk), truth.took.Round(time.Millisecond), truth.reads, truth.rows,
		h.worst.took.Round(time.Millisecond), h.worst.reads, h.worst.rows, g.watcher.held()>>20,
		g.runs.Load(), g.reads.Load())
}

// hostileView is a view that is lied to.
type hostileView struct {
	guest   *hostileGuest
	view    table.View
	told    *notes
	truth   result
	seed    uint64
	name    uint64 // of the view, for seeds that differ between views
	limit   int64  // of reads
	maxRows int64

	mu    sync.Mutex
	worst result
	total time.Duration
}

// run lies for the i-th time, and says what went wrong; "" for nothing.
func (h *hostileView) run(ctx context.Context, m *hostileMemory, i uint64) string {
	once := func() result {
		r := rand.New(rand.NewPCG(h.seed+i, h.name))
		m.reset(h.told.lies(h.guest.image, r), h.limit)
		regs := h.told.registers(h.guest.image, r, h.guest.registers)
		return h.guest.look(ctx, h.view, m, hostileWay(r.IntN(int(ways))), regs, options(h.view, r))
	}
	w := h.guest.watcher
	w.alone.RLock()
	res := once()
	w.alone.RUnlock()
	if m.tooBig.Load() { // it, or another that ran meanwhile
		w.alone.Lock()
		res = once()
		w.alone.Unlock()
	}
	h.mu.Lock()
	h.total += res.took
	h.worst.rows, h.worst.reads = max(h.worst.rows, res.rows), max(h.worst.reads, res.reads)
	h.worst.took = max(h.worst.took, res.took)
	h.mu.Unlock()
	var what string
	switch {
	case m.tooBig.Load():
		what = fmt.Sprintf("holds more than %d MiB\n%s", hostileHeap>>20, m.where)
	case res.reads > h.limit:
		what = fmt.Sprintf("reads without end (a healthy guest: %d), here:\n%s", h.truth.reads, m.where)
	case res.panicked != "":
		what = "panic: " + res.panicked
	case res.rows > h.maxRows:
		what = fmt.Sprintf("%d rows, of a healthy guest %d", res.rows, h.truth.rows)
	case errors.Is(res.err, phys.ErrGone):
		what = "takes the lies for a machine that went away: " + res.err.Error()
	default:
		return ""
	}
	return fmt.Sprintf("after %v, %d reads, %d rows, lies %v: %s", res.took, res.reads, res.rows, m.lies, what)
}
