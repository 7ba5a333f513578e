// Package labtest boots guests of the lab for tests.
//
//	func TestGuestSomething(t *testing.T) {
//		g := labtest.Up(t, lab.Options{Kernel: "6.12"})
//		out := labtest.Output(t, g, "uname -r")
//		…
//	}
package labtest

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// NeedQEMU skips a test on a developer's machine without QEMU, or with -short; in CI
// (CI=true) it fails instead of skipping for want of QEMU.
func NeedQEMU(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		need(t, lab.ErrNoQEMU.Error()+": apt-get install qemu-system-x86")
	}
	if testing.Short() {
		t.Skip("guests are not booted with -short")
	}
}

// NeedTool does the same for a tool of the host.
func NeedTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		need(t, name+" is not installed")
	}
}

func need(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Up boots a guest that ends with the test.
func Up(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	NeedQEMU(t)
	if o.Progress == nil {
		o.Progress = t.Output()
	}
	g, err := lab.Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if text, err := os.ReadFile(g.Console()); err == nil {
				t.Logf("console of guest %s ends:\n%s", g.Name, text[max(0, len(text)-2000):])
			}
		}
		if err := g.Down(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// Output runs a shell command in a guest, which must succeed, and gives its output.
func Output(t testing.TB, g *lab.Guest, shell string) string {
	t.Helper()
	out, err := g.Output(t.Context(), shell)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Program builds a program of lab/guest ("crowd", "truth") for use in a guest.
func Program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/outsight-vmi/outsight/lab/guest/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return path
}

// UpCrowd boots a guest full of processes of every kind (see lab/guest/crowd), and with
// /truth in it (see lab/guest/truth).
func UpCrowd(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	NeedQEMU(t)
	o.Files = maps.Clone(o.Files)
	if o.Files == nil {
		o.Files = map[string]string{}
	}
	o.Files["/crowd"], o.Files["/truth"] = Program(t, "crowd"), Program(t, "truth")
	g := Up(t, o)
	StartCrowd(t, g)
	return g
}

// StartCrowd starts the crowd in a guest that has it, with further arguments for it, and
// waits until all are there.
func StartCrowd(t testing.TB, g *lab.Guest, args ...string) {
	t.Helper()
	start := "/crowd " + strings.Join(args, " ") + ` >/run/crowd.log 2>&1 &
until grep -q READY /run/crowd.log; do
	kill -0 $! || { cat /run/crowd.log >&2; exit 1; }
	sleep 0.2
done`
	if _, err := g.Output(t.Context(), start); err != nil {
		t.Fatal(errors.Join(errors.New("the crowd did not come together"), err))
	}
}
