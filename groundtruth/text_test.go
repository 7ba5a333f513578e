package groundtruth

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/text"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm/local"
)

// textGuests run every kernel, with processors and options that patch its text in
// different ways.
var textGuests = []lab.Options{
	{Kernel: "5.10", CPU: "max"}, // one processor: no lock prefixes
	{Kernel: "6.1", SMP: 2, CPU: "EPYC-Rome"},
	{Kernel: "6.12", SMP: 2, CPU: "Skylake-Client", Append: "retbleed=stuff"}, // calls are counted
	{Kernel: "6.12", SMP: 2, CPU: "max"},
	{Kernel: "7.2", SMP: 2, CPU: "Skylake-Server"},
}

// What changes a kernel's text legally, each with what undoes it.
var textChanges = []struct{ name, do, undo string }{
	{"static keys", "echo 1 > /proc/sys/kernel/sched_schedstats", "echo 0 > /proc/sys/kernel/sched_schedstats"},
	{
		"kprobes",
		`echo p:otp1 do_sys_openat2 > kprobe_events && echo r:otr1 vfs_read >> kprobe_events && echo p:otp2 vfs_write+9 >> kprobe_events || echo p:otp2 vfs_write+5 >> kprobe_events; echo 1 > events/kprobes/enable`,
		"echo 0 > events/kprobes/enable; echo > kprobe_events",
	},
	{"tracepoints", "echo 1 > events/sched/enable", "echo 0 > events/sched/enable"},
	{"function tracer", "echo function > current_tracer", "echo nop > current_tracer"},
	{"function graph tracer", "echo function_graph > current_tracer", "echo nop > current_tracer"},
}

// TestGuestTextDiff compares the text of live kernels with the files that they were booted
// from: clean, while they patch themselves, and after a byte was changed from outside.
func TestGuestTextDiff(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, o := range textGuests {
		if o.Kernel != "6.1" && os.Getenv("OUTSIGHT_SLOW") == "" {
			continue // a minute or two each; the zoo of checks has other kernels
		}
		o.Memory = gib / 4
		t.Run(strings.Join([]string{o.Kernel, o.CPU, o.Append}, " "), func(t *testing.T) {
			g := labtest.Up(t, o)
			labtest.Output(t, g, "[ -e /sys/kernel/tracing/kprobe_events ] || mount -t tracefs t /sys/kernel/tracing")
			x := openText(t, g)
			textClean(t, x, "booted")
			for _, c := range textChanges {
				labtest.Output(t, g, "cd /sys/kernel/tracing && "+c.do)
				textClean(t, x, c.name)
				labtest.Output(t, g, "cd /sys/kernel/tracing && "+c.undo)
				textClean(t, x, "after "+c.name)
			}
			whilePatching(t, g, x)
			textTricks(t, g, x)
			flippedBytes(t, g, x.s)
			textClean(t, x, "at the end")
		})
	}
}

// textGuest is a guest whose text is compared, each time by a look of its own.
type textGuest struct {
	*guest.Guest
	s *linux.System // as it was first
}

func openText(t *testing.T, g *lab.Guest) textGuest {
	t.Helper()
	opts := guest.Options{Images: t.TempDir()}
	session, err := guest.Open(t.Context(), "qemu:"+g.QMP(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	look, err := session.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	for _, what := range []string{"unpacked", "kept"} {
		start := time.Now()
		source := image.Cached{File: image.File{Path: look.Machine.Kernel, Basis: image.HostFile}, Dir: opts.Images}
		if _, _, err := source.Image(t.Context(), look.Linux.BuildID); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: image %s in %v", look.Linux.Release, what, time.Since(start).Round(time.Microsecond))
	}
	start := time.Now()
	_, trust, err := look.Reference(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: reference ready in %v: %v", look.Linux.Release, time.Since(start).Round(time.Microsecond), trust)
	if trust.Basis != image.Signed || !strings.HasPrefix(trust.By, "Debian (") {
		t.Errorf("trust: %+v", trust)
	}
	machine, err := local.Open(t.Context(), "qemu:"+g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { machine.Close() })
	s, err := linux.Open(t.Context(), machine.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return textGuest{session, s}
}

// ranged is where the guest's text is.
func (g textGuest) ranged(t *testing.T) (start, end virt.Addr) {
	t.Helper()
	x, done := g.text(t)
	defer done()
	return x.Range()
}

// text is the guest's text at a look of its own, which ends with close.
func (g textGuest) text(t *testing.T) (x *text.Text, end func()) {
	t.Helper()
	look, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if x, _, err = look.Text(t.Context()); err != nil {
		t.Fatal(err)
	}
	return x, func() { look.Close() }
}

// textDifferences compares, and fails on what could not be read.
func textDifferences(t *testing.T, x *text.Text) (all []text.Difference) {
	t.Helper()
	for d, err := range x.Differences(t.Context()) {
		if err != nil {
			t.Error(err)
			continue
		}
		all = append(all, d)
	}
	return all
}

func textClean(t *testing.T, g textGuest, when string) {
	t.Helper()
	start := time.Now()
	x, end := g.text(t)
	all := textDifferences(t, x)
	took := time.Since(start)
	end()
	// What was undone may not have settled: the kernel does some of it later.
	for wait := 20 * time.Millisecond; len(all) > 0 && wait < 2*time.Second; wait *= 2 {
		time.Sleep(wait)
		now, end := g.text(t)
		again := textDifferences(t, now)
		end()
		all = slices.DeleteFunc(again, func(d text.Difference) bool {
			return !slices.ContainsFunc(all, func(b text.Difference) bool { return b.Addr == d.Addr })
		})
	}
	for i, d := range all {
		if i < 10 {
			t.Errorf("%s: %s+%#x at %v, %s: %s: want %x, got %x", when, d.Symbol, d.Offset, d.Addr, d.Kind, d.Reason, d.Want, d.Got)
		}
	}
	from, to := g.ranged(t)
	t.Logf("%s: %d differences in %d KiB with %d patch sites, %v", when, len(all), (to-from)>>10, x.Sites(), took.Round(time.Microsecond))
}

// whilePatching judges the text while the guest patches it all the time.
func whilePatching(t *testing.T, g *lab.Guest, x textGuest) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := g.Output(t.Context(), `cd /sys/kernel/tracing; for i in 1 2; do echo 1 > /proc/sys/kernel/sched_schedstats; echo 1 > events/sched/enable; echo function > current_tracer; echo nop > current_tracer; echo 0 > events/sched/enable; echo 0 > /proc/sys/kernel/sched_schedstats; done`)
		done <- err
	}()
	only, err := check.Select([]string{"kernel-text"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rounds := 0
	for running := true; running; rounds++ {
		r, err := check.Run(t.Context(), x.Guest, only)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range r.Findings {
			if i < 10 {
				t.Errorf("while the guest patches itself: %s: expected %s; seen %s; %v", f.Title, f.Expected, f.Seen, f.Evidence)
			}
		}
		for _, gap := range r.Gaps {
			t.Errorf("while the guest patches itself: %v", gap)
		}
		select {
		case err := <-done:
			if running = false; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	t.Logf("judged %d times while the guest patched itself", rounds)
}

// textTricks changes bytes of the text from outside, each as a rootkit would.
func textTricks(t *testing.T, g *lab.Guest, x textGuest) {
	t.Helper()
	ram, s := labtest.OpenRAM(t, g), x.s
	at := func(symbol string, off int) virt.Addr {
		a, ok := s.Address(symbol)
		if !ok {
			t.Fatalf("no symbol %s", symbol)
		}
		return a + virt.Addr(off)
	}
	im, err := image.OpenFile(g.Kernel.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	sites, err := im.Sites()
	if err != nil {
		t.Fatal(err)
	}
	start, _ := x.ranged(t)
	// traced is where ftrace's call in a function is.
	traced := func(symbol string) virt.Addr {
		function := at(symbol, 0)
		for _, site := range sites.All {
			if a := start + virt.Addr(site.Addr-image.LinkText); site.Kind == image.Fentry && a >= function && a < function+16 {
				return a
			}
		}
		t.Fatalf("ftrace has no place in %s", symbol)
		return 0
	}
	for _, c := range []struct {
		name, symbol string // of a function that nothing calls meanwhile
		at           virt.Addr
		write        []byte // nil: its first byte changed
		kind         image.Kind
	}{
		{"a flipped byte", "kernel_halt", traced("kernel_halt") + 8, nil, 0},
		{"a jump at the start", "kernel_halt", traced("kernel_halt"), []byte{0xe9, 0, 0x10, 0, 0}, image.Fentry},
		{"a call for tracing that is none", "kernel_power_off", traced("kernel_power_off"), []byte{0xe8, 0, 0x10, 0, 0}, image.Fentry},
		{"a breakpoint that nobody set", "kernel_power_off", traced("kernel_power_off") + 5, []byte{0xcc}, 0},
	} {
		place, err := s.Space.Translate(c.at)
		if err != nil {
			t.Fatal(err)
		}
		old := make([]byte, max(len(c.write), 1))
		if _, err := s.Space.ReadAt(old, c.at); err != nil {
			t.Fatal(err)
		}
		if c.write == nil {
			c.write = []byte{old[0] ^ 1}
		}
		poke(t, ram, place.PA, c.write)
		now, end := x.text(t)
		found := textDifferences(t, now)
		end()
		poke(t, ram, place.PA, old)
		if len(found) != 1 {
			t.Errorf("%s: %d differences: %+v", c.name, len(found), found)
			continue
		}
		if d := found[0]; d.Symbol != c.symbol || d.Kind != c.kind || d.Addr != c.at || d.Offset != int64(c.at-at(c.symbol, 0)) || d.State {
			t.Errorf("%s at %v: %+v", c.name, c.at, d)
		}
		t.Logf("%s: %s+%#x: %s: want %x, got %x", c.name, found[0].Symbol, found[0].Offset, found[0].Reason, found[0].WantCode, found[0].GotCode)
	}
}

// flippedBytes changes single bytes of what is read of the guest, in places that the kernel
// patches and in others: each must be found, and nothing else.
func flippedBytes(t *testing.T, g *lab.Guest, s *linux.System) {
	t.Helper()
	im, err := image.OpenFile(g.Kernel.Vmlinuz)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := text.NewReference(im)
	if err != nil {
		t.Fatal(err)
	}
	sites, err := im.Sites()
	if err != nil {
		t.Fatal(err)
	}
	flip := &flipped{Memory: s.Memory}
	x, err := text.New(s.Over(flip), ref)
	if err != nil {
		t.Fatal(err)
	}
	start, end := x.Range()
	r := rand.New(rand.NewPCG(1, 2))
	missed, patched := 0, 0
	for i := range 60 {
		va, kind := start+virt.Addr(r.Uint64N(uint64(end-start))), "no site"
		if i%2 == 0 {
			site := sites.All[r.IntN(len(sites.All))]
			va, kind = start+virt.Addr(site.Addr-image.LinkText+r.Uint64N(uint64(site.Len))), site.Kind.String()
		}
		place, err := s.Space.Translate(va)
		if err != nil {
			t.Fatal(err)
		}
		flip.at, flip.by = place.PA, byte(1+r.IntN(255))
		now, err := text.New(s.Over(flip), ref) // a look of its own, with what was kept of the last ones
		if err != nil {
			t.Fatal(err)
		}
		found := textDifferences(t, now)
		flip.by = 0
		if len(found) != 1 || found[0].Addr > va || va-found[0].Addr >= virt.Addr(found[0].Len) {
			// f0 and 3e before one instruction are both the kernel's, and the form of a nop
			// in which it writes it is not asked.
			if missed++; len(found) > 1 || kind == "no site" {
				t.Errorf("%v (%s) changed by %#x: %+v", va, kind, flip.by, found)
			}
			continue
		}
		if found[0].Kind != 0 {
			patched++
		}
	}
	if missed > 2 || patched < 15 {
		t.Errorf("of 60 changes %d were missed, and %d found at patch sites", missed, patched)
	}
}

// flipped is memory in which one byte reads as another.
type flipped struct {
	phys.Memory
	at phys.Addr
	by byte
}

func (f *flipped) ReadAt(p []byte, pa phys.Addr) (int, error) {
	n, err := f.Memory.ReadAt(p, pa)
	if f.at >= pa && f.at < pa+phys.Addr(n) {
		p[f.at-pa] ^= f.by
	}
	return n, err
}

func poke(t *testing.T, ram *labtest.RAM, at phys.Addr, b []byte) {
	t.Helper()
	if _, err := ram.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}
