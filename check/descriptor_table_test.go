package check

import (
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/hooks"
)

// healthyTable is a global descriptor table as Linux 6.12 has it, with some accessed bits.
func healthyTable() []uint64 {
	return []uint64{
		0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf92000000ffff, 0x00cffa000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0,
		0x45008b3050004087, 0xfffffe5a, 0x8f0082000000001f, 0xffff8881, 0x00d0f3000000ffff, 0, 0, 0x0040f50000000001,
	}
}

func tableOf(raw []uint64) (t hooks.ProcessorTables) {
	for i, v := range raw {
		t.Segments = append(t.Segments, hooks.Segment{Index: i, Raw: v})
	}
	return t
}

func TestGlobalTable(t *testing.T) {
	if fs := globalTable(tableOf(healthyTable())); len(fs) > 0 {
		t.Errorf("in a healthy table: %s", fs[0].Title)
	}
	for _, k := range []struct {
		index int
		raw   uint64
		want  string
	}{
		{2, 0x00affb000000ffff, "has the value"}, // the kernel's code for programs
		{4, 0x00cf9b000000ffff, "has the value"}, // programs' code of ring 0
		{7, 0xffffec0000100000, "call gate"},
		{13, 0x8100ec0000104560, "call gate"},
		{14, 0x00af9e000000ffff, "conforming"},
		{14, 0x00af9a000000ffff, "ring 0"},
		{15, 0x0000890000000067, "task state segment"},
		{8, 0x8100ec0000104560, "call gate"}, // in place of the task state segment
		{9, 0x8100ec0000104560, "hides an entry"},
		{11, 0x8100ec00fffffe00, "hides an entry"},
		{10, 0x8100ee0000104560, "interrupt gate"},
		{12, 0x0000e50000100000, "task gate"},
	} {
		raw := healthyTable()
		raw[k.index] = k.raw
		fs := globalTable(tableOf(raw))
		if len(fs) == 0 || !strings.Contains(fs[0].Title, k.want) {
			t.Errorf("entry %d of %#x: %v", k.index, k.raw, fs)
		}
	}
}

// FuzzGlobalTable: whatever an entry has, one that enters the kernel is found.
func FuzzGlobalTable(f *testing.F) {
	f.Add(7, uint64(0xffffec0000100000))
	f.Add(14, uint64(0x00d0f3000000ffff))
	f.Fuzz(func(t *testing.T, index int, raw uint64) {
		if index < 0 || index > 15 {
			return
		}
		table := healthyTable()
		table[index] = raw
		g, fs := hooks.Segment{Index: index, Raw: raw}, globalTable(tableOf(table))
		enters := g.Gate() || g.Code() && g.Present() && g.DPL() < 3 && index != 1 && index != 2
		if enters && len(fs) == 0 {
			t.Errorf("entry %d of %#x is not found, a %s", index, raw, g.Kind())
		}
	})
}
