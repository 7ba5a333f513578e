package groundtruth

import (
	"bytes"
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

// lastBoot are the last lines of a console before a kernel boots another time. What is before offset from is of the first.
func lastBoot(console []byte, from int) []byte {
	console = console[min(from, len(console)):]
	if i := bytes.Index(console, []byte("] Linux version ")); i >= 0 {
		console = console[:i]
	}
	return lastLines(console, 80)
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
	_, _ = g.Output(t.Context(), "echo c >/proc/sysrq-trigger") // nothing answers
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
