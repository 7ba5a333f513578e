package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "cpus", Group: table.Kernel,
		Doc: `Show the processors of a guest, as its kernel knows them.

There is a line for every processor that the kernel made room for, online or not. What a
processor is and can do is what the kernel found out when it started it, and what
/proc/cpuinfo shows; one that was never started has no more than its number. The names of
flags are the kernel's own: bits that it does not name are not shown.`,
		Columns: []table.Column{
			{Name: "cpu", Type: table.Int, Doc: "Number of the processor."},
			{Name: "online", Type: table.Bool, Doc: "Whether it runs tasks (cpu_online_mask)."},
			{Name: "present", Type: table.Bool, Extra: true, Doc: "Whether it is plugged in (cpu_present_mask)."},
			{Name: "possible", Type: table.Bool, Extra: true, Doc: "Whether it could be plugged in (cpu_possible_mask)."},
			{Name: "vendor", Type: table.Text, Doc: "Vendor, as CPUID spells it."},
			{Name: "family", Type: table.Int, Doc: "Family of the model."},
			{Name: "model", Type: table.Int, Doc: "Number of the model in its family."},
			{Name: "stepping", Type: table.Int, Doc: "Revision of the model."},
			{Name: "model_name", Type: table.Text, Doc: "What the processor calls itself."},
			{Name: "microcode", Type: table.Addr, Extra: true, Doc: "Revision of its microcode, a number."},
			{Name: "khz", Type: table.Uint, Doc: "Frequency in kHz as measured at boot (cpu_khz); what it runs at this moment is not in memory."},
			{Name: "cache", Type: table.Size, Extra: true, Doc: "Its largest cache, in bytes; missing where not known."},
			{Name: "package", Type: table.Int, Doc: "Number of its package: the socket."},
			{Name: "die", Type: table.Int, Extra: true, Doc: "Number of its die in the package."},
			{Name: "core", Type: table.Int, Doc: "Number of its core in the package; hyper-threads share one."},
			{Name: "apic", Type: table.Uint, Extra: true, Doc: "Number of its interrupt controller (APIC ID)."},
			{Name: "phys_bits", Type: table.Int, Extra: true, Doc: "Bits of a physical address."},
			{Name: "virt_bits", Type: table.Int, Extra: true, Doc: "Bits of a virtual address."},
			{Name: "flags", Type: table.List, Extra: true, Doc: "What it can do, in the kernel's names, as flags in /proc/cpuinfo."},
			{Name: "bugs", Type: table.List, Extra: true, Doc: "Its known flaws, as bugs in /proc/cpuinfo."},
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct cpuinfo_x86."},
		},
		Rows:    cpusRows,
		Example: "lab:demo",
	}))
}

func cpusRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		khz := table.Missing(table.None)
		if v, err := g.Linux.ProcessorKHz(); err != nil {
			khz = unreadable(err)
		} else if v != 0 {
			khz = table.UintValue(uint64(v))
		}
		for p, err := range g.Linux.Processors(ctx) {
			if p == nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			row := cpuRow(p, khz)
			for i := range row {
				if err != nil && i > 3 && i < len(row)-1 {
					row[i] = unreadable(err)
				}
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func cpuRow(p *linux.Processor, khz table.Value) table.Row {
	row := make(table.Row, 21)
	row[0], row[1] = table.IntValue(int64(p.Number)), table.BoolValue(p.Online)
	row[2], row[3] = table.BoolValue(p.Present), table.BoolValue(p.Possible)
	row[20] = address(p.Info)
	if p.Vendor == "" {
		return row // never started
	}
	id := func(n int64) table.Value {
		if n < 0 {
			return table.Missing(table.None)
		}
		return table.IntValue(n)
	}
	cache := table.Missing(table.None)
	if p.Cache > 0 {
		cache = table.SizeValue(uint64(p.Cache))
	}
	copy(row[4:], table.Row{
		table.TextValue(p.Vendor), table.IntValue(int64(p.Family)), table.IntValue(int64(p.Model)), table.IntValue(int64(p.Stepping)),
		text(p.ModelName), table.AddrValue(uint64(p.Microcode)), khz, cache, id(p.Package), id(p.Die), id(p.Core),
		table.UintValue(uint64(p.APIC)), table.IntValue(int64(p.PhysBits)), table.IntValue(int64(p.VirtBits)),
		list(p.Flags), list(p.Bugs),
	})
	return row
}
