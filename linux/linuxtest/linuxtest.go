// Package linuxtest runs the examples of packages that read a Linux guest, on a guest
// that it boots.
package linuxtest

import (
	"bytes"
	"io"
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm/local"
)

// Example is an example that prints what a guest has.
type Example struct {
	Name       string
	Run        func()
	MayBeEmpty bool // a guest that has just booted may have none
}

// Examples boots a guest, hands it to use, and runs the examples. The guest is the
// TARGET in the environment's OUTSIGHT_TARGET meanwhile.
func Examples(t *testing.T, use func(*linux.System), examples []Example) {
	t.Helper()
	g := labtest.Up(t, lab.Options{Memory: 1 << 28, Modules: []string{"dummy"}})
	target := "qemu:" + g.QMP()
	machine, err := local.Open(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	s, err := linux.Open(t.Context(), machine.Memory, kernel.Options{})
	if err != nil {
		t.Fatal(err)
	}
	use(s)
	t.Setenv("OUTSIGHT_TARGET", target)
	for _, e := range examples {
		out := printed(t, e.Run)
		if len(out) == 0 && !e.MayBeEmpty {
			t.Errorf("Example%s prints nothing", e.Name)
		}
		t.Logf("Example%s: %d lines, %.60q", e.Name, bytes.Count(out, []byte("\n")), out)
	}
}

// printed is what f writes to standard output.
func printed(t *testing.T, f func()) []byte {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(r) // what was written before an error is compared
		all <- b
	}()
	stdout := os.Stdout
	os.Stdout = w
	defer func() { os.Stdout = stdout }()
	f()
	w.Close()
	return <-all
}
