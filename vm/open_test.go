package vm_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// self is a driver that takes this process for a machine.
type self struct{ name, alias string }

func (s self) Recognise(p proc.Process) (vm.Info, bool) {
	return vm.Info{Name: s.name, Alias: s.alias, VMM: "test"}, p.PID == os.Getpid()
}

func (s self) Survey(context.Context, proc.Process, *vm.Info) {}

func (s self) Open(_ context.Context, _ proc.Process, i vm.Info, _ vm.Options) (*vm.Machine, error) {
	return &vm.Machine{Info: i}, nil
}

// TestNameIsNotShadowed: a file or folder with the name of a machine does not hide it,
// and can still be named.
func TestNameIsNotShadowed(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("web", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("dump", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("100", 0o700); err != nil {
		t.Fatal(err)
	}
	h := vm.Host{Drivers: []vm.Driver{self{"web", "100"}}}
	for _, c := range []struct{ target, vmm, note string }{
		{"web", "test", "the file that is here too is ./web"},
		{"100", "test", "./100"},
		{"./web", "file", ""},
		{"dump", "file", ""},
	} {
		m, err := h.Open(t.Context(), c.target, vm.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.target, err)
			continue
		}
		if m.VMM != c.vmm || !strings.Contains(strings.Join(m.Notes, "\n"), c.note) || c.note == "" && len(m.Notes) > 0 {
			t.Errorf("%s: opened a %s machine, notes %q", c.target, m.VMM, m.Notes)
		}
		m.Close()
	}
	if _, err := h.Open(t.Context(), "./100", vm.Options{}); !errors.Is(err, vm.ErrNotDump) {
		t.Errorf("a folder: %v", err)
	}
}

// TestAlias: a machine is found by what its manager calls it, too.
func TestAlias(t *testing.T) {
	h := vm.Host{Drivers: []vm.Driver{self{"web", "100"}}}
	if _, err := h.Open(t.Context(), "100", vm.Options{}); err != nil {
		t.Error(err)
	}
	if _, err := h.Open(t.Context(), "101", vm.Options{}); !errors.Is(err, vm.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
