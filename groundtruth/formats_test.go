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

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/phys/acquire"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestGuestFormats pauses a guest, and writes its memory in every format that QEMU,
// makedumpfile and outsight know: each view of each dump is, byte for byte, that of
// the paused guest.
func TestGuestFormats(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("set OUTSIGHT_SLOW: it takes minutes")
	}
	labtest.NeedQEMU(t)
	for _, series := range []string{"6.12", "5.10"} {
		t.Run(series, func(t *testing.T) {
			g := labtest.Up(t, lab.Options{Kernel: series, Memory: gib / 4, SMP: 1})
			dir := t.TempDir()
			monitor(t, g, order{"stop", nil})
			live := views(t, "qemu:"+g.QMP())
			if len(live) < 2 || len(live["ps"]) < 1000 {
				t.Fatalf("the paused guest: %d views, %d bytes of ps", len(live), len(live["ps"]))
			}
			check := func(path string) {
				t.Helper()
				dumped := views(t, path)
				for _, name := range slices.Sorted(maps.Keys(live)) {
					if !bytes.Equal(live[name], dumped[name]) {
						t.Errorf("%s: %s differs from the paused guest:\n%s", filepath.Base(path), name, firstDifference(live[name], dumped[name]))
					}
				}
			}
			own(t, g, dir, check)
			byQEMU(t, g, dir, check)
			byMakedumpfile(t, filepath.Join(dir, "outsight.elf"), dir, check)
		})
	}
}

// own writes every format of outsight's.
func own(t *testing.T, g *lab.Guest, dir string, check func(string)) {
	for _, format := range acquire.Formats() {
		path := filepath.Join(dir, "outsight."+string(format))
		for _, args := range [][]string{{path}, {path + ".zst", "--zstd"}} {
			if a := run(t, nil, append([]string{"dump", "--format", string(format), "qemu:" + g.QMP()}, args...)...); a.status != 0 {
				t.Fatalf("dump %v: %s", args, a.stderr)
			}
			check(args[0])
		}
	}
}

// byQEMU has QEMU write every format that it knows. Migrating comes last: after it
// the guest does not go on.
func byQEMU(t *testing.T, g *lab.Guest, dir string, check func(string)) {
	at := func(name string) string { return filepath.Join(dir, name) }
	core := func(name, format string) order {
		return order{"dump-guest-memory", map[string]any{"paging": false, "protocol": "file:" + at(name), "format": format}}
	}
	monitor(t, g,
		order{"pmemsave", map[string]any{"val": 0, "size": g.Memory, "filename": at("qemu.raw")}},
		core("qemu.elf", "elf"), core("qemu.kdump", "kdump-zlib"),
	)
	names := []string{"qemu.raw", "qemu.elf", "qemu.kdump"}
	if tryMonitor(t, g, core("qemu.kdump-raw", "kdump-raw-zlib")) == nil { // since QEMU 8.2
		names = append(names, "qemu.kdump-raw")
	}
	migrate := order{"migrate", map[string]any{"uri": "file:" + at("qemu.state")}}
	monitor(t, g, migrate)
	migrated(t, g)
	for _, name := range append(names, "qemu.state") {
		check(at(name))
	}
	// Pages at fixed places, since QEMU 9.0.
	mapped := []map[string]any{{"capability": "mapped-ram", "state": true}}
	if tryMonitor(t, g, order{"migrate-set-capabilities", map[string]any{"capabilities": mapped}}) != nil {
		return
	}
	if tryMonitor(t, g, order{"migrate", map[string]any{"uri": "file:" + at("qemu.mapped")}}) == nil {
		migrated(t, g)
		check(at("qemu.mapped"))
	}
}

// byMakedumpfile packs an ELF dump in every way that this makedumpfile was built for.
func byMakedumpfile(t *testing.T, elf, dir string, check func(string)) {
	labtest.NeedTool(t, "makedumpfile")
	for name, flag := range map[string]string{"zlib": "-c", "lzo": "-l", "snappy": "-p", "zstd": "-z"} {
		path := filepath.Join(dir, "makedumpfile."+name)
		out, err := exec.CommandContext(t.Context(), "makedumpfile", flag, "-d", "0", elf, path).CombinedOutput()
		if err != nil && (name == "snappy" || name == "zstd") {
			t.Logf("makedumpfile has no %s here: %.200s", name, out)
			continue
		}
		if err != nil {
			t.Errorf("makedumpfile %s: %v: %.500s", flag, err, out)
			continue
		}
		check(path)
	}
	path := filepath.Join(dir, "makedumpfile.flat")
	flat, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer flat.Close()
	c := exec.CommandContext(t.Context(), "makedumpfile", "-F", "-c", "-d", "0", elf)
	c.Stdout = flat
	if err := c.Run(); err != nil {
		t.Errorf("makedumpfile -F: %v", err)
		return
	}
	check(path)
}

// views is the JSON of every view of a target, without what tells how it is read.
func views(t *testing.T, target string) map[string][]byte {
	t.Helper()
	m, err := local.Open(t.Context(), target)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	// Without a cache every one is new, and says so of its profile.
	g, err := table.Open(t.Context(), m, table.OpenOptions{Target: target})
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer g.Close()
	all := map[string][]byte{}
	for _, v := range table.All() {
		spec := table.SpecOf(v)
		if spec.Host {
			continue
		}
		var report table.Report
		var b []byte
		for row := range table.Rows(t.Context(), v, g, nil, &report) {
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

// ofTheSource are the columns of info that tell how a guest is read.
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
