package groundtruth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/check"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// endStands are QEMU's options for a guest that resets by itself (a panic restarts it, a triple fault does, too): it stops
// there, with its memory and registers as they were, so that what ended it can be read. Kexec resets nothing.
var endStands = []string{"-action", "reboot=shutdown,shutdown=pause", "-d", "cpu_reset"}

// taintDie says of a kernel that it oopsed: who held locks and lists then does so for good (TAINT_DIE, include/linux/panic.h).
const taintDie = 1 << 7

// ended is why the guest's kernel does not run any more, though nothing asked it to end: "" while it runs.
func (w *soaked) ended(s *guest.Guest, g *lab.Guest) string {
	l, err := s.Look(w.Context())
	if err != nil {
		return w.stopped(g)
	}
	defer l.Close()
	if l.Boot != w.boot {
		return "it has booted again"
	}
	if at, ok := l.Linux.Address("tainted_mask"); ok {
		if mask, err := l.Linux.Space.U64(at); err == nil && mask&taintDie != 0 {
			return "an oops"
		}
	}
	if c, err := l.Linux.Clock(); err == nil && c.Up > w.up {
		w.up = c.Up
		return ""
	}
	return w.stopped(g) // its clock stands still, which that of an idle guest may
}

// stopped is what QEMU says of a guest that does not run: "" of one that does, and if it cannot be asked.
func (w *soaked) stopped(g *lab.Guest) string {
	if !g.Running() {
		return "QEMU has ended"
	}
	var is struct {
		Running bool
		Status  string
	}
	q, err := qmp.Dial(w.Context(), g.QMP())
	if err == nil {
		err = errors.Join(q.Execute(w.Context(), "query-status", nil, &is), q.Close())
	}
	if err != nil || is.Running {
		return ""
	}
	return "QEMU says: " + is.Status
}

// obituary is what is left of a guest that ended by itself. What was found then says nothing about the checks: memory
// that a kernel leaves is torn apart.
func (w *soaked) obituary(g *lab.Guest, why string, last *check.Result) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "after %v the guest's kernel ended by itself (%s): that is no finding, but a fault of the guest, of QEMU, or of who wrote into it\n", time.Since(w.began).Round(time.Second), why)
	if text, err := os.ReadFile(g.Console()); err == nil {
		fmt.Fprintf(b, "its console ended:\n%s\n", lastBoot(text, w.console))
	}
	if text, err := os.ReadFile(filepath.Join(g.Dir, "qemu.log")); err == nil {
		fmt.Fprintf(b, "QEMU's log ends:\n%s\n", lastLines(text, 60))
	}
	registers := ""
	if q, err := qmp.Dial(w.Context(), g.QMP()); err == nil {
		registers, err = q.HMP(w.Context(), "info registers -a")
		fmt.Fprintf(b, "its registers (%v):\n%s\n", errors.Join(err, q.Close()), registers)
	}
	args := [][]string{{"dmesg", "lab:" + g.Name, "--post-mortem"}}
	for _, at := range instructions(registers) {
		args = append(args, []string{"whatis", "lab:" + g.Name, at, "--post-mortem"})
	}
	for _, a := range args {
		out, err := exec.CommandContext(w.Context(), command(w.T), a...).CombinedOutput()
		fmt.Fprintf(b, "outsight %s (%v):\n%s\n", strings.Join(a, " "), err, lastLines(out, 60))
	}
	if last != nil {
		for _, f := range last.Findings {
			fmt.Fprintf(b, "found in what it left: %s: %s\n", f.Check.ID, f.Title)
		}
	}
	return b.String()
}

// maxEmulatorFaults is in how many guests the emulator may fail before that is all that is seen of a kernel.
const maxEmulatorFaults = 4

// trapped is a kernel that ends by a breakpoint, with the byte before the one at which it goes on: the breakpoint, if it is there.
var trapped = regexp.MustCompile(`(?s)[: ]int3: [0-9a-f]+ \[#1\].*?Code: [0-9a-f ]*?([0-9a-f]{2}) <`)

// staleBreakpoint reports whether a guest ended by a breakpoint that memory did not hold any more. The kernel sets it while it
// patches code, and waits for all processors before it forgets it. QEMU's TCG may miss that a page is written that is
// translated at this moment on another processor, if the host takes the writing thread's processor away
// (Red Hat's bug 2216496 describes the same).
func staleBreakpoint(console []byte) bool {
	m := trapped.FindSubmatch(console)
	return m != nil && string(m[1]) != "cc"
}

// lastBoot are the last lines of a console before a kernel boots another time. What is before offset from is of the first.
func lastBoot(console []byte, from int) []byte {
	console = console[min(from, len(console)):]
	if i := bytes.Index(console, []byte("] Linux version ")); i >= 0 {
		console = console[:i]
	}
	return lastLines(console, 200)
}

func lastLines(text []byte, n int) []byte {
	lines := slices.Collect(bytes.Lines(text))
	return bytes.Join(lines[max(0, len(lines)-n):], nil)
}

var instruction = regexp.MustCompile(`RIP=([0-9a-f]+)`)

// instructions are the addresses at which processors stopped.
func instructions(registers string) (at []string) {
	for _, m := range instruction.FindAllStringSubmatch(registers, -1) {
		at = append(at, fmt.Sprintf("0x%s", m[1]))
	}
	return at
}

func TestStaleBreakpoint(t *testing.T) {
	const trap = "[  143.8] %s: 0000 [#1] PREEMPT_RT SMP NOPTI\n[  143.8] RIP: 0010:hrtimer_init_sleeper+0x5/0xb0\n[  143.9] Code: ff 65 90 f3 0f 1e fa %s <1f> 44 00 00 41\n"
	for _, c := range []struct {
		console string
		stale   bool
	}{
		{fmt.Sprintf(trap, "Oops: int3", "0f"), true},
		{fmt.Sprintf(trap, "int3", "0f"), true}, // before 6.10
		{fmt.Sprintf(trap, "Oops: int3", "cc"), false},
		{fmt.Sprintf(trap, "Oops: invalid opcode", "0f"), false},
		{"[  1.0] Kernel panic - not syncing: sysrq triggered crash\n", false},
		{"", false},
	} {
		if got := staleBreakpoint([]byte(c.console)); got != c.stale {
			t.Errorf("%q: stale %v", c.console, got)
		}
	}
}

// TestGuestSoakEnds has a guest end by itself, as they do in the middle of a soak now and then: its panic is kept, and nothing found.
func TestGuestSoakEnds(t *testing.T) {
	g := labtest.Up(t, lab.Options{Kernel: "6.12", QEMUArgs: endStands})
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := &soaked{T: t, began: time.Now()}
	if why := w.ended(s, g); why != "" {
		t.Fatalf("a guest that runs: %s", why)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, _ = g.Output(ctx, "echo c >/proc/sysrq-trigger") // nothing answers
	why := ""
	for range 100 {
		if why = w.ended(s, g); why != "" {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	if why != "QEMU says: shutdown" {
		t.Errorf("it ended: %q", why)
	}
	said := w.obituary(g, why, nil)
	for _, want := range []string{"sysrq triggered crash", "Kernel panic - not syncing", "CPU#0", "QEMU says: shutdown"} {
		if !strings.Contains(said, want) {
			t.Errorf("of a guest that panicked is missing %q", want)
		}
	}
	if t.Failed() {
		t.Log(said)
	}
}
