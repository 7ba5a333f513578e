package plant_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/virt"
)

// idle is a program that returns at once.
var idle = []byte{0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0}

// jump is a program that goes on as the one in the first table.
var jump = []byte{
	0x18, 0x52, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // r2 = fd_array[1]
	0xb7, 3, 0, 0, 0, 0, 0, 0, 0x85, 0, 0, 0, 12, 0, 0, 0, // bpf_tail_call(r1, r2, 0)
	0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0,
}

const function = "__x64_sys_unlinkat"

var load = plant.Load{
	Ring:   plant.Ring{Name: "outsight_ring", Elements: 3, Size: 1 << 20},
	Tables: 1,
	Programs: []plant.Program{
		{Name: "outsight_body", Function: function, Return: true, Code: idle},
		{Name: "outsight_begin", Function: function, Code: idle},
		{Name: "outsight_return", Function: function, Return: true, Code: jump},
		{Name: "outsight_exec", Tracepoint: "sched_process_exec", Code: idle},
		{Name: "outsight_exit", Tracepoint: "sched_process_exit", Code: idle},
	},
}

// TestGuestPlant plants in a guest, finds what is planted from another session, and removes it: the guest's own files of its
// kernel's threads, and its memory, are as before.
func TestGuestPlant(t *testing.T) {
	kernels, slow := []string{lab.DefaultKernel}, os.Getenv("OUTSIGHT_SLOW") != ""
	if slow {
		kernels = []string{"6.1", lab.DefaultKernel, "7.2"}
	}
	for _, k := range kernels {
		for _, private := range []bool{false, true} {
			if private && !slow {
				continue // TestGuestPlantSoak has it
			}
			name := k + "-shared"
			if private {
				name = k + "-private"
			}
			t.Run(name, func(t *testing.T) {
				plantIn(t, labtest.Up(t, lab.Options{Name: "plant-" + name, Kernel: k, SMP: 2, Private: private}))
			})
		}
	}
}

func plantIn(t *testing.T, g *lab.Guest) {
	t.Setenv("OUTSIGHT_PLANTED", t.TempDir())
	ctx := t.Context()
	labtest.Output(t, g, "until [ $(cut -d. -f1 /proc/uptime) -ge 11 ]; do sleep 1; done")
	before := labtest.Output(t, g, "ls -l /proc/2/fd; dmesg | wc -l")

	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	if _, err := plant.Find(ctx, gu); !errors.Is(err, plant.ErrNothing) {
		t.Fatalf("before anything was planted: %v", err)
	}
	plan, err := plant.Prepare(ctx, gu, load)
	if err != nil {
		t.Fatal(err)
	}
	was := content(t, gu, plan)
	for _, w := range plan.Writes {
		t.Logf("%#x: %d bytes: %s", uint64(w.At), w.Size, w.What)
	}
	began := time.Now()
	p, err := plan.Plant(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("planted in %v", time.Since(began).Round(time.Millisecond))
	if len(p.Problems) > 0 {
		t.Errorf("problems: %q", p.Problems)
	}
	if fds := labtest.Output(t, g, "ls -l /proc/2/fd"); strings.Count(fds, "bpf-map") != 2 || strings.Count(fds, "bpf-prog") != 5 || strings.Count(fds, "bpf_link")+strings.Count(fds, "bpf-link") < 4 {
		t.Errorf("the guest's kernel has\n%s", fds)
	}
	if n := programs(ctx, t, gu); n != 5 {
		t.Errorf("%d programs of outsight's, expected 5", n)
	}
	if _, err := plant.Prepare(ctx, gu, load); !errors.Is(err, plant.ErrPlanted) {
		t.Errorf("planting again: %v", err)
	}
	labtest.Output(t, g, "for i in $(seq 200); do /bin/true; done; touch /tmp/x; rm /tmp/x")
	if err := p.Check(ctx); err != nil || len(p.Problems) > 0 {
		t.Errorf("problems: %q, %v", p.Problems, err)
	}
	// outsight check knows each byte of it, for who planted it; for others it is something in the kernel's text.
	if found := judged(t, gu); len(found) > 0 {
		t.Errorf("check found %q", found)
	}
	notes := os.Getenv("OUTSIGHT_PLANTED")
	t.Setenv("OUTSIGHT_PLANTED", t.TempDir())
	if found := strings.Join(judged(t, gu), "\n"); !strings.Contains(found, "planted-probe: probes were planted") || !strings.Contains(found, "kernel-text: ") {
		t.Errorf("check found of another's probes: %q", found)
	}
	t.Setenv("OUTSIGHT_PLANTED", notes)
	tamper(t, g, gu, p)

	// Another session finds it, by the guest's memory alone.
	other, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	found, err := plant.Find(ctx, other)
	if err != nil {
		t.Fatal(err)
	}
	if found.ID != p.ID || found.Ring() == 0 || found.Ring() != p.Ring() || len(found.Objects) != 11 || len(found.Problems) > 0 {
		t.Errorf("found %+v, planted %+v", found, p)
	}
	for _, o := range found.Objects {
		t.Logf("%s %d %q: descriptor %d, at %#x", o.Kind, o.ID, o.Name, o.FD, uint64(o.Addr))
	}
	if err := found.Remove(ctx); err != nil {
		t.Fatal(err)
	}
	if n := programs(ctx, t, gu); n != 0 {
		t.Errorf("%d programs of outsight's after removal", n)
	}
	if _, err := plant.Find(ctx, gu); !errors.Is(err, plant.ErrNothing) {
		t.Errorf("after removal: %v", err)
	}
	if now := content(t, gu, plan); !bytes.Equal(now, was) {
		t.Error("the memory is not what it was")
	}
	if after := labtest.Output(t, g, "ls -l /proc/2/fd; dmesg | wc -l"); lines(after) != lines(before) {
		t.Errorf("the guest's kernel has\n%s\nbefore it had\n%s", after, before)
	}
	labtest.Output(t, g, "for i in $(seq 200); do /bin/true; done")
}

func lines(s string) int { return strings.Count(s, "\n") }

// programs counts those of outsight's.
func programs(ctx context.Context, t *testing.T, g *guest.Guest) (n int) {
	t.Helper()
	// What the kernel lets go of waits for a grace period.
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		l, err := g.Look(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n = 0
		for p, err := range bpf.Programs(ctx, l.Linux) {
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(p.Name, "outsight_") {
				n++
			}
		}
		l.Close()
		if n == 0 || n == 5 || time.Now().After(end) {
			return n
		}
	}
}

// content is what is where a plan writes, the function of the work item included.
func content(t *testing.T, g *guest.Guest, plan *plant.Plan) (all []byte) {
	t.Helper()
	l, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, w := range plan.Writes {
		b := make([]byte, w.Size)
		if err := l.Linux.ReadAt(b, w.At); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// tamper changes what is planted as the guest's root could, and back: each change is noticed.
func tamper(t *testing.T, lg *lab.Guest, g *guest.Guest, p *plant.Planting) {
	t.Helper()
	ram := labtest.OpenRAM(t, lg)
	resume, err := guest.Pause(t.Context(), g.Machine(), lg.Name) // it must not run what is broken
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := resume(); err != nil {
			t.Error(err)
		}
	}()
	l, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var jit, funcs virt.Addr
	for prog, err := range bpf.Programs(t.Context(), l.Linux) {
		if err == nil && prog.Name == "outsight_exec" {
			jit = prog.JITAddr
		}
	}
	at, err := hooks.TracepointNamed(l.Linux, "sched_process_exit")
	if err != nil {
		t.Fatal(err)
	}
	field, err := l.Linux.Member("tracepoint", "funcs")
	if err != nil {
		t.Fatal(err)
	}
	entry, ok := l.Linux.Address(function)
	if !ok {
		t.Fatal("no function ", function)
	}
	var begin [4]byte
	if err := l.Linux.ReadAt(begin[:], entry); err != nil {
		t.Fatal(err)
	}
	if begin[0] != 0xe8 { // behind an endbr64
		entry += 4
	}
	value, err := l.Linux.Member("bpf_array", "value")
	if err != nil {
		t.Fatal(err)
	}
	if funcs = virt.Addr(must(t)(l.Linux.Space.U64(field.At(at.Addr)))); jit == 0 || funcs == 0 {
		t.Fatal("no machine code, or no functions of the tracepoint")
	}
	for name, at := range map[string]virt.Addr{"machine code": jit + 8, "does not call it": funcs + 8, "the code": p.Mailbox + 0x40, "function " + function: entry, "the table 1 leads to": value.At(p.Objects[1].Addr)} {
		pg, err := l.Linux.Space.Translate(at)
		if err != nil {
			t.Fatal(err)
		}
		was := make([]byte, 1)
		if _, err := ram.ReadAt(was, int64(pg.PA)); err != nil {
			t.Fatal(err)
		}
		change := func(b byte) {
			if _, err := ram.WriteAt([]byte{b}, int64(pg.PA)); err != nil {
				t.Fatal(err)
			}
		}
		change(was[0] ^ 0x10)
		err = p.Check(t.Context())
		change(was[0])
		if name == "machine code" { // a problem of the probes is a finding
			change(was[0] ^ 0x10)
			if found := strings.Join(judged(t, g), "\n"); !strings.Contains(found, "planted-probe: ") {
				t.Errorf("check found %q", found)
			}
			change(was[0])
		}
		if err != nil || !strings.Contains(strings.Join(p.Problems, ";"), name) && name != "the code" || len(p.Problems) == 0 {
			t.Errorf("%s changed: problems %q, %v", name, p.Problems, err)
		}
		t.Logf("%s: %q", name, p.Problems)
		if err := p.Check(t.Context()); err != nil || len(p.Problems) > 0 {
			t.Errorf("%s as before: problems %q, %v", name, p.Problems, err)
		}
	}
}

func must(t *testing.T) func(uint64, error) uint64 {
	return func(v uint64, err error) uint64 {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// judged is what the checks find that have to do with what is planted.
func judged(t *testing.T, g *guest.Guest) (found []string) {
	t.Helper()
	var checks []*check.Check
	for _, id := range []string{"kernel-text", "planted-probe"} {
		c, ok := check.Lookup(id)
		if !ok {
			t.Fatalf("no check %s", id)
		}
		checks = append(checks, c)
	}
	r, err := check.Run(t.Context(), g, checks)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		found = append(found, f.Check.ID+": "+f.Title)
	}
	for _, gap := range r.Gaps {
		t.Errorf("not checked: %+v", gap)
	}
	return found
}
