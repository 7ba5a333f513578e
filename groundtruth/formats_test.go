package groundtruth

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/acquire"
	"github.com/outsight-vmi/outsight/phys/vmware"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestGuestFormats pauses a busy guest, and writes its memory in every format that QEMU,
// makedumpfile and outsight know: each view of each dump is, byte for byte, that of
// the paused guest. OUTSIGHT_SLOW takes every format and every kernel, else it is one of
// each kind.
func TestGuestFormats(t *testing.T) {
	labtest.NeedQEMU(t)
	slow := os.Getenv("OUTSIGHT_SLOW") != ""
	kernels, memory := []string{"6.12"}, uint64(gib/4)
	if slow {
		kernels, memory = []string{"5.10", "6.1", "6.12", "7.2"}, gib/2
	}
	for _, series := range kernels {
		t.Run(series, func(t *testing.T) {
			g := guests.UpServer(t, lab.Options{Kernel: series, Memory: memory, SMP: 2})
			f := &formats{guest: g, dir: t.TempDir()}
			monitor(t, g, order{"stop", nil})
			f.look(t)
			if !slow {
				f.few(t)
				return
			}
			f.own(t)
			f.vmware(t)
			f.byMakedumpfile(t)
			f.byQEMU(t)
		})
	}
}

// formats are the dumps of one paused guest.
type formats struct {
	guest *lab.Guest
	dir   string
	live  map[string][]byte // views of the guest
}

func (f *formats) at(name string) string { return filepath.Join(f.dir, name) }

// look takes the views of the paused guest.
func (f *formats) look(t *testing.T) {
	t.Helper()
	f.live = views(t, "qemu:"+f.guest.QMP())
	if len(f.live) < 40 || len(f.live["ps"]) < 1000 {
		t.Fatalf("the paused guest: %d views, %d bytes of ps", len(f.live), len(f.live["ps"]))
	}
}

// check compares a dump with the guest, but for the views of except.
func (f *formats) check(t *testing.T, name string, except ...string) {
	t.Helper()
	dumped := views(t, f.at(name))
	for _, view := range slices.Sorted(maps.Keys(f.live)) {
		if slices.Contains(except, view) {
			continue
		}
		equal := bytes.Equal(f.live[view], dumped[view])
		record(t, fact{View: view, Kernel: f.guest.Kernel.Name, Source: name, Rows: bytes.Count(f.live[view], []byte("\n")), Equal: equal})
		if !equal {
			t.Errorf("%s: %s differs from the paused guest:\n%s", name, view, firstDifference(f.live[view], dumped[view]))
		}
	}
}

// dump has outsight write a dump.
func (f *formats) dump(t *testing.T, name string, flags ...string) {
	t.Helper()
	if a := run(t, nil, append([]string{"dump", "qemu:" + f.guest.QMP(), "-o", f.at(name)}, flags...)...); a.status != 0 {
		t.Fatalf("dump %v: %s", flags, a.stderr)
	}
}

// core has QEMU write one.
func (f *formats) core(name, format string) order {
	return order{"dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + f.at(name), "format": format}}
}

// few writes one of each kind: mapped, unpacked in place, packed page by page, and a stream.
func (f *formats) few(t *testing.T) {
	f.dump(t, "outsight.elf", "--format", "elf")
	f.check(t, "outsight.elf")
	f.dump(t, "outsight.lime.zst", "--format", "lime", "--zstd")
	f.check(t, "outsight.lime.zst")
	monitor(t, f.guest, f.core("qemu.kdump", "kdump-zlib"))
	f.check(t, "qemu.kdump")
	f.cutOff(t, "qemu.kdump")
	f.vmware(t)
	f.limeRaw(t)
	f.migrate(t, "qemu.state")
	f.check(t, "qemu.state")
}

// vmware writes a machine's memory as VMware would, whose own there is none of here: in two
// regions, the upper first in the file, so that nothing but the state can show where they lie.
func (f *formats) vmware(t *testing.T) {
	t.Helper()
	monitor(t, f.guest, order{"pmemsave", map[string]any{"val": 0, "size": f.guest.Memory, "filename": f.at("whole.raw")}})
	whole, err := os.ReadFile(f.at("whole.raw"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := local.Open(t.Context(), "qemu:"+f.guest.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r := m.Control.Registers
	if r == nil {
		t.Fatal("the guest has no registers")
	}
	registers, err := r.Registers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	size := phys.Addr(len(whole))
	cut := size / 3 &^ (phys.PageSize - 1)
	state := &vmware.State{CPUs: vm.NotesOf(registers), Regions: []vmware.Region{
		{Range: phys.Range{Start: 0, End: cut}, Offset: uint64(size - cut)},
		{Range: phys.Range{Start: cut, End: size}, Offset: 0},
	}}
	for name, b := range map[string][]byte{
		"vmware.vmss": vmware.Append(nil, state, 0),
		"vmware.vmem": slices.Concat(whole[cut:], whole[:cut]),
	} {
		if err := os.WriteFile(f.at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.check(t, "vmware.vmss")
	f.check(t, "vmware.vmem")
}

// own writes every format of outsight's.
func (f *formats) own(t *testing.T) {
	for _, format := range acquire.Formats() {
		name := "outsight." + string(format)
		f.dump(t, name, "--format", string(format))
		f.check(t, name)
		f.dump(t, name+".zst", "--format", string(format), "--zstd")
		f.check(t, name+".zst")
	}
}

// byQEMU has QEMU write every format that it knows. Migrating comes last: after it
// a guest does not stand still unless it is stopped again.
func (f *formats) byQEMU(t *testing.T) {
	monitor(t, f.guest,
		order{"pmemsave", map[string]any{"val": 0, "size": f.guest.Memory, "filename": f.at("qemu.raw")}},
		f.core("qemu.elf", "elf"), f.core("qemu.kdump", "kdump-zlib"),
	)
	names := []string{"qemu.raw", "qemu.elf", "qemu.kdump"}
	if tryMonitor(t, f.guest, f.core("qemu.kdump-raw", "kdump-raw-zlib")) == nil { // since QEMU 8.2
		names = append(names, "qemu.kdump-raw")
	}
	f.migrate(t, "qemu.state")
	for _, name := range append(names, "qemu.state") {
		f.check(t, name)
	}
	// Pages at fixed places, since QEMU 9.0. A guest that was migrated has to run before
	// it can be migrated again, and is another one then.
	mapped := []map[string]any{{"capability": "mapped-ram", "state": true}}
	if err := tryMonitor(t, f.guest, order{"migrate-set-capabilities", map[string]any{"capabilities": mapped}}); err != nil {
		t.Logf("no mapped-ram: %v", err)
		return
	}
	monitor(t, f.guest, order{"cont", nil}, order{"stop", nil})
	f.look(t)
	f.migrate(t, "qemu.mapped")
	f.check(t, "qemu.mapped")
}

// migrate has QEMU save its state.
func (f *formats) migrate(t *testing.T, name string) {
	t.Helper()
	monitor(t, f.guest, order{"migrate", map[string]any{"uri": "file:" + f.at(name)}})
	migrated(t, f.guest)
}

// userData are the views that show what lies in pages of processes, which
// makedumpfile's level 31 leaves out.
var userData = []string{"elfs", "env", "history", "ps", "strings"}

// byMakedumpfile packs an ELF dump in every way that this makedumpfile was built for.
func (f *formats) byMakedumpfile(t *testing.T) {
	elf := f.at("outsight.elf")
	tool := func(args ...string) *exec.Cmd { return exec.CommandContext(t.Context(), "makedumpfile", args...) }
	root := labtest.Tools()
	if root != "" { // it knows later kernels, and zstd
		tool = func(args ...string) *exec.Cmd { return labtest.Tool(t.Context(), root, "makedumpfile", args...) }
	} else {
		labtest.NeedTool(t, "makedumpfile")
	}
	for name, flag := range map[string]string{"zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"} {
		name = "makedumpfile." + name
		out, err := tool(flag, "-d", "0", elf, f.at(name)).CombinedOutput()
		// Without a packing, it fails or packs nothing.
		if (flag == "-p" || flag == "-z") && (err != nil || bytes.Contains(out, []byte("is disabled"))) {
			t.Logf("this makedumpfile has no %s", name)
			continue
		}
		if err != nil {
			t.Errorf("makedumpfile %s: %v: %.500s", flag, err, out)
			continue
		}
		f.check(t, name)
	}
	flat, err := os.Create(f.at("makedumpfile.flat"))
	if err != nil {
		t.Fatal(err)
	}
	defer flat.Close()
	c := tool("-F", "-c", "-d", "0", elf)
	c.Stdout = flat
	if err := c.Run(); err != nil {
		t.Fatalf("makedumpfile -F: %v", err)
	}
	f.check(t, "makedumpfile.flat")
	// Level 31 leaves out all that it can. To know what that is, it must know the kernel.
	out, err := tool("-l", "-d", "31", elf, f.at("makedumpfile.31")).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("not supported")) {
		t.Logf("makedumpfile -d 31: %v: %.300s", err, out)
		return
	}
	f.check(t, "makedumpfile.31", userData...)
}

// views is the JSON of every view of a target, without what shows how it is read.
func views(t *testing.T, target string) map[string][]byte {
	t.Helper()
	m, err := local.Open(t.Context(), target)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	// Without a cache every one is new, and says so of its profile.
	g, done := attach(t, m, guest.Options{Target: target})
	defer done()
	all := map[string][]byte{}
	for _, v := range table.All() {
		spec := table.SpecOf(v)
		if spec.Host {
			continue
		}
		var report table.Report
		var b []byte
		for row := range table.Rows(t.Context(), v, g, table.Request{}, &report) {
			for i, c := range v.Columns() {
				if c.Option || v.Name() == "info" && slices.Contains(ofTheSource, c.Name) {
					continue
				}
				b = append(append(b, c.Name...), '=')
				b = append(table.AppendJSON(b, row[i]), ' ')
			}
			b = append(b, '\n')
		}
		if report.Err != nil {
			b = append(b, report.Err.Error()...)
		}
		all[v.Name()] = b
	}
	return all
}

// ofTheSource are the columns of info that show how a guest is read.
var ofTheSource = []string{"target", "vmm", "vmm_pid", "accel", "run_state", "source", "format", "memory", "memory_map", "map_from"}

// firstDifference shows where two answers part.
func firstDifference(a, b []byte) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	around := func(b []byte) string { return string(b[max(0, min(i, len(b))-200):min(len(b), i+100)]) }
	return "live: " + around(a) + "\ndump: " + around(b)
}

// order is a command to QEMU.
type order struct {
	command string
	args    any
}

func monitor(t *testing.T, g *lab.Guest, orders ...order) {
	t.Helper()
	if err := tryMonitor(t, g, orders...); err != nil {
		t.Fatal(err)
	}
}

func tryMonitor(t *testing.T, g *lab.Guest, orders ...order) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, g.QMP())
	if err != nil {
		return err
	}
	defer c.Close()
	for _, o := range orders {
		if err := c.Execute(ctx, o.command, o.args, nil); err != nil {
			return err
		}
	}
	return nil
}

// migrated waits until QEMU has written all of a migration.
func migrated(t *testing.T, g *lab.Guest) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, g.QMP())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for {
		var s struct {
			Status string `json:"status"`
		}
		if err := c.Execute(ctx, "query-migrate", nil, &s); err != nil {
			t.Fatal(err)
		}
		switch s.Status {
		case "completed":
			return
		case "failed", "cancelled":
			t.Fatal(errors.New("the migration " + s.Status))
		}
		time.Sleep(100 * time.Millisecond)
	}
}
