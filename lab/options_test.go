package lab

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/lab/state"
)

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "a": true, "debian-6.12": true, "A_9": true, strings.Repeat("a", 40): true,
		"": false, ".hidden": false, "-n": false, "../web": false, "a/b": false, "a b": false, "ä": false, "a\n": false, strings.Repeat("a", 41): false,
	} {
		if got := state.ValidName(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// TestInvalidOptions: what no machine can boot is told apart from what this one cannot.
func TestInvalidOptions(t *testing.T) {
	for _, o := range []Options{
		{Name: "a b"},
		{Userland: "nosuch"},
		{Packages: []string{"gdb"}},
		{Memory: 1},
		{SMP: -1},
		{Accel: "nosuch"},
		{Accel: KVM, Plugin: "/plugin.so"},
		{Modules: []string{"../x"}},
	} {
		if err := o.complete(); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := (&Options{Memory: 1 << 30, SMP: 2}).complete(); err != nil {
		t.Error(err)
	}
}

// TestKernelFile refuses a file that is no kernel before QEMU is started.
func TestKernelFile(t *testing.T) {
	image := append(make([]byte, 0x202), "HdrS\x0f\x02"...)
	for name, c := range map[string]struct {
		content []byte
		want    bool
	}{
		"bzImage": {image, true}, "vmlinux": {[]byte("\x7fELF\x02"), true},
		"passwd": {[]byte("root:x:0:0:root:/root:/bin/bash\n"), false}, "empty": {nil, false}, "short": {image[:0x204], false},
		"long": {make([]byte, 4096), false},
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := FindKernel(t.Context(), path, io.Discard)
		if c.want && (err != nil || k.Vmlinuz != path) || !c.want && (!errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), "HdrS")) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
	if _, err := FindKernel(t.Context(), t.TempDir()+"/", io.Discard); !errors.Is(err, ErrOptions) {
		t.Errorf("a folder: %v", err)
	}
}
