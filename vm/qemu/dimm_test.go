package qemu

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// mapsOf are mappings as QEMU makes them for RAM of these sizes, each below the one
// before, with its guard page.
func mapsOf(t *testing.T, sizes ...uint64) []proc.Map {
	t.Helper()
	var maps []proc.Map
	at := uint64(0x7f0000000000)
	for _, size := range sizes {
		at -= size + 4<<20
		maps = append([]proc.Map{
			{Start: at, End: at + size, Writable: true},
			{Start: at + size, End: at + size + phys.PageSize},
		}, maps...)
	}
	return maps
}

// TestPlugged: where QEMU places plugged memory, without QMP. The addresses are those of
// "info memory-devices" of QEMU 10.0 for these lines.
func TestPlugged(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		name, line string
		maps       []uint64 // in the order that QEMU makes them
		want       []phys.Segment
	}{
		{
			"one, as large as RAM", "-m 1G,slots=2,maxmem=8G -object memory-backend-ram,id=d1,size=1G -device pc-dimm,memdev=d1",
			[]uint64{g, g},
			[]phys.Segment{{Start: 0, Size: g, Offset: 0}, {Start: 4 * g, Size: g, Offset: g}},
		},
		{
			"above the hole", "-machine q35 -m 5G,slots=2,maxmem=16G -object memory-backend-ram,id=d1,size=512M -object memory-backend-ram,id=d2,size=1G -device pc-dimm,memdev=d1 -device pc-dimm,memdev=d2",
			[]uint64{g / 2, g, 5 * g},
			[]phys.Segment{
				{Start: 0, Size: 2 * g, Offset: 0},
				{Start: 4 * g, Size: 3 * g, Offset: 2 * g},
				{Start: 7 * g, Size: g / 2, Offset: 5 * g},
				{Start: 7*g + g/2, Size: g, Offset: 5*g + g/2},
			},
		},
		{
			"libvirt's, with an address", `-machine q35 -m size=1048576k,slots=4,maxmem=8388608k -object {"qom-type":"memory-backend-ram","id":"memdimm0","size":536870912} -device {"driver":"pc-dimm","node":0,"memdev":"memdimm0","id":"dimm0","slot":0,"addr":5368709120}`,
			[]uint64{g / 2, g},
			[]phys.Segment{{Start: 0, Size: g, Offset: 0}, {Start: 5 * g, Size: g / 2, Offset: g}},
		},
		{
			"nvdimm and virtio-mem", "-machine q35,nvdimm=on -m 1G,slots=4,maxmem=16G -object memory-backend-ram,id=n,size=1G -device nvdimm,memdev=n,label-size=2M -object memory-backend-ram,id=v,size=2G -device virtio-mem-pci,memdev=v,requested-size=1G",
			[]uint64{g, 2 * g, g},
			[]phys.Segment{
				{Start: 0, Size: g, Offset: 0},
				{Start: 4 * g, Size: g - 2<<20, Offset: g},
				{Start: 5*g - 2<<20, Size: 2 * g, Offset: 2 * g},
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := parseCommandLine(strings.Fields(c.line))
			maps := mapsOf(t, c.maps...)
			blocks, err := findRAM(maps, cfg)
			if err != nil {
				t.Fatal(err)
			}
			ls := cfg.layouts(blocks)
			if d := cmp.Diff(c.want, ls[0].Segments); d != "" {
				t.Error(d)
			}
			var sum uint64
			for _, n := range c.maps {
				sum += n
			}
			if cfg.total() != sum || ram.Total(blocks) != sum {
				t.Errorf("total %d, found %d, want %d", cfg.total(), ram.Total(blocks), sum)
			}
			if n := cfg.unplaced(maps, blocks); n != 0 {
				t.Errorf("%d bytes are left over", n)
			}
			// What is plugged in later is not on the command line.
			more := mapsOf(t, append(c.maps, 512<<20)...)
			if n := cfg.pluggedNote(more, blocks); !strings.HasPrefix(n, "512 MiB look plugged in") {
				t.Errorf("note %q", n)
			}
		})
	}
	// RAM without a backend is made last: the upper of two mappings of one size is the DIMM's.
	cfg := parseCommandLine(strings.Fields("-m 1G,slots=2,maxmem=8G -object memory-backend-ram,id=d1,size=1G -device pc-dimm,memdev=d1"))
	blocks, err := findRAM(mapsOf(t, 1<<30, 1<<30), cfg)
	if err != nil || blocks[0].HVA > blocks[1].HVA {
		t.Errorf("%#x, %v", blocks, err)
	}
	if cfg := parseCommandLine([]string{"-m", "1G"}); cfg.pluggedNote(mapsOf(t, 1<<30, 1<<30), nil) != "" {
		t.Error("memory of a machine without slots is taken for plugged")
	}
}
