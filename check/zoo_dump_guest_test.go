package check_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// dumpTricks are done together, in this order, to a guest that is then dumped.
var dumpTricks = []string{
	"system call elsewhere", "gate elsewhere", "jump at the start of a function", "function that does nothing", "text writable", "vDSO of all processes",
	"log cleared", "interface off the list", "mount off its parent", "module off sysfs", "task off the list",
}

// TestGuestZooDumps does tricks of every class to one guest, stops it, and judges it and dumps of
// it, by the command: each dump must show what the guest does, and say the same of what the
// kernel's text was compared with, for which only the store of profiles has a file.
func TestGuestZooDumps(t *testing.T) {
	labtest.NeedQEMU(t)
	command := buildCommand(t)
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 256 << 20, Modules: zooModules})
			labtest.Output(t, g, "sleep 100000 </dev/null >/dev/null 2>&1 & echo ok")
			d := &dumps{T: t, command: command, store: t.TempDir()}
			d.run("profile", "add", g.Kernel.Vmlinuz)
			live := "lab:" + g.Name
			if found, _ := d.check(live); len(found) > 0 {
				t.Fatalf("in a clean guest: %v", found)
			}
			want := doTogether(t, g, dumpTricks)
			monitor(t, g, "stop", nil)
			found, said := d.check(live)
			fired := slices.Collect(maps.Values(found))
			for _, id := range want {
				if !slices.Contains(fired, id) {
					t.Errorf("%s did not find its trick in the guest, but %v", id, fired)
				}
			}
			if !strings.Contains(said, "kernel text differs in 2 places from ") {
				t.Errorf("of the guest it says %q", said)
			}
			dir := t.TempDir()
			raw, core, kdump := filepath.Join(dir, "memory.raw"), filepath.Join(dir, "memory.elf"), filepath.Join(dir, "memory.kdump")
			d.run("dump", live, "-o", raw)
			d.run("dump", live, "-o", core, "--format", "elf")
			monitor(t, g, "dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + kdump, "format": "kdump-zlib"})
			for _, dump := range []string{raw, core, kdump} {
				began := time.Now()
				dumped, said := d.check(dump)
				t.Logf("%s: %d findings in %v; %s", filepath.Base(dump), len(dumped), time.Since(began).Round(time.Millisecond), said)
				for key, id := range found {
					if dumped[key] == "" {
						t.Errorf("%s: %s does not find what it found in the guest", dump, id)
					}
				}
				for key, id := range dumped {
					if found[key] == "" {
						t.Errorf("%s: %s finds what it did not in the guest", dump, id)
					}
				}
				if !strings.Contains(said, "kernel text differs in 2 places from ") {
					t.Errorf("%s: it says %q", dump, said)
				}
			}
		})
	}
}

// doTogether does tricks, which stay done, and returns the checks that must find them.
func doTogether(t *testing.T, g *lab.Guest, names []string) (want []string) {
	t.Helper()
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	look, err := s.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	all := tricks()
	for _, name := range names {
		i := slices.IndexFunc(all, func(k trick) bool { return k.name == name })
		if i < 0 {
			t.Fatalf("there is no trick %q", name)
		}
		all[i].do(&zoo{T: t, ram: labtest.OpenRAM(t, g), look: look})
		for _, id := range all[i].want {
			if !strings.HasPrefix(id, "?") {
				want = append(want, id)
			}
		}
	}
	return want
}

// dumps judges by the command, with a store of its own.
type dumps struct {
	*testing.T
	command, store string
}

func (d *dumps) start(args ...string) (stdout, stderr string, err error) {
	d.Helper()
	ctx, cancel := context.WithTimeout(d.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, d.command, args...)
	c.Env = append(os.Environ(), "XDG_CACHE_HOME="+d.store, "OUTSIGHT_PROFILES="+d.store)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err = c.Run()
	return out.String(), errs.String(), err
}

func (d *dumps) run(args ...string) {
	d.Helper()
	if _, errs, err := d.start(args...); err != nil {
		d.Fatalf("%v: %v: %s", args, err, errs)
	}
}

// check returns the checks that found something, by the keys of their findings, and what the
// command says besides.
func (d *dumps) check(target string) (found map[string]string, said string) {
	d.Helper()
	out, said, err := d.start("check", target, "-o", "json")
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		d.Fatalf("check %s: %v: %s%s", target, err, out, said)
	}
	found = map[string]string{}
	for line := range strings.Lines(out) {
		var f struct{ Check, Key string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.Key == "" {
			d.Fatalf("check %s: %v in %q", target, err, line)
		}
		found[f.Key] = f.Check
	}
	return found, said
}

// monitor has QEMU do something.
func monitor(t *testing.T, g *lab.Guest, command string, args any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, g.QMP())
	if err == nil {
		err = errors.Join(c.Execute(ctx, command, args, nil), c.Close())
	}
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
}
