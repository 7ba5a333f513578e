package dump_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/dump"
	"github.com/outsight-vmi/outsight/phys/note"
	"github.com/outsight-vmi/outsight/phys/vmware"
)

// TestVMware: a state and its memory are one dump, by the name of either, and so is a state
// that has its memory in it; memory alone is raw.
func TestVMware(t *testing.T) {
	const half = 1 << 20
	state := &vmware.State{
		Regions: []vmware.Region{{Range: phys.Range{End: half}}, {Range: phys.Range{Start: 4 << 30, End: 4<<30 + half}, Offset: half}},
		CPUs:    []note.CPU{{CR3: 0x1000}},
	}
	memory := append(bytes.Repeat([]byte("low "), half/4), bytes.Repeat([]byte("high"), half/4)...)
	embedded := *state
	embedded.Embedded = true
	for name, c := range map[string]struct {
		files  map[string][]byte
		open   string
		placed bool
		format string
	}{
		"by the state":      {map[string][]byte{"a.vmss": vmware.Append(nil, state, 0), "a.vmem": memory}, "a.vmss", true, "VMware memory with its state"},
		"by the snapshot":   {map[string][]byte{"a.vmsn": vmware.Append(nil, state, 0), "a.vmem": memory}, "a.vmsn", true, "VMware memory with its state"},
		"by the memory":     {map[string][]byte{"a.vmsn": vmware.Append(nil, state, 0), "a.vmem": memory}, "a.vmem", true, "VMware memory with its state"},
		"in one":            {map[string][]byte{"a.vmss": append(vmware.Append(nil, &embedded, uint64(len(memory))), memory...)}, "a.vmss", true, "VMware state"},
		"with a false one":  {map[string][]byte{"a.vmss": []byte("nothing"), "a.vmem": memory}, "a.vmem", false, "raw"},
		"with a broken one": {map[string][]byte{"a.vmss": vmware.Append(nil, state, 0)[:200], "a.vmem": memory}, "a.vmem", false, "raw"},
		"alone":             {map[string][]byte{"a.vmem": memory}, "a.vmem", false, "raw"},
	} {
		dir := t.TempDir()
		for file, b := range c.files {
			if err := os.WriteFile(filepath.Join(dir, file), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		d, err := dump.Open(filepath.Join(dir, c.open))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Format != c.format || d.Placed != c.placed {
			t.Errorf("%s: %s, placed: %v", name, d.Format, d.Placed)
		}
		if c.placed {
			var b [4]byte
			if _, err := d.Memory.ReadAt(b[:], 4<<30); err != nil || string(b[:]) != "high" || len(d.CPUs) != 1 {
				t.Errorf("%s: %q %v, %d processors", name, b, err, len(d.CPUs))
			}
		}
		d.Close()
	}
	path := filepath.Join(t.TempDir(), "alone.vmss")
	if err := os.WriteFile(path, vmware.Append(nil, state, 0), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dump.Open(path); err == nil || !strings.Contains(err.Error(), ".vmem") {
		t.Errorf("a state alone: %v", err)
	}
}
