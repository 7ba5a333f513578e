// Package labtest boots guests of the lab for tests.
//
//	func TestGuestSomething(t *testing.T) {
//		g := labtest.Up(t, lab.Options{Kernel: "6.12"})
//		out := labtest.Output(t, g, "uname -r")
//		…
//	}
package labtest

import (
	"os"
	"os/exec"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

// NeedQEMU skips a test on a developer's machine without QEMU, or with -short; in CI
// (CI=true) it fails instead of skipping for want of QEMU.
func NeedQEMU(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		Need(t, lab.ErrNoQEMU.Error()+": apt-get install qemu-system-x86")
	}
	if testing.Short() {
		t.Skip("guests are not booted with -short")
	}
}

// NeedTool does the same for a tool of the host.
func NeedTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		Need(t, name+" is not installed")
	}
}

// NeedBuildTools does the same for what building a kernel takes.
func NeedBuildTools(t testing.TB) {
	t.Helper()
	if err := lab.CheckBuildTools(); err != nil {
		Need(t, err.Error()+", or run scripts/install-deps --slow")
	}
}

// Need says what a test lacks: that fails in CI, and skips the test elsewhere.
func Need(t testing.TB, what string) {
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
	downAtEnd(t, g)
	return g
}

// Twin starts a second QEMU that waits for the state of a guest, and ends with the test.
func Twin(t testing.TB, g *lab.Guest, name, incoming string) *lab.Guest {
	t.Helper()
	twin, err := g.Twin(t.Context(), name, incoming)
	if err != nil {
		t.Fatal(err)
	}
	downAtEnd(t, twin)
	return twin
}

func downAtEnd(t testing.TB, g *lab.Guest) {
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
