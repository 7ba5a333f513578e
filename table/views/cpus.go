package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "cpus", Group: table.Kernel,
		Doc: `Show the CPUs of a guest, as its kernel knows them.

There is a line for every CPU that the kernel made room for, online or not. What a
CPU is and can do is what the kernel found out when it started it, and what
/proc/cpuinfo shows; one that was never started has no more than its number. The names of
flags are the kernel's own: bits that it does not name are not shown.`,
		Source:  "the CPU masks (__cpu_online_mask and others), cpu_info of every CPU (cpuinfo_x86), cpu_khz",
		Key:     []string{"cpu"},
		Example: "lab:demo",
	}, cpusColumns, cpus))
}

var cpusColumns = table.Columns[cpu]{
	{Name: "cpu", Type: table.Int, Doc: "Number of the CPU.", Get: func(p *cpu) table.Value { return integer(p.Number) }},
	{Name: "online", Type: table.Bool, Doc: "Whether it runs tasks (cpu_online_mask).", Get: func(p *cpu) table.Value { return table.BoolValue(p.Online) }},
	{
		Name: "present", Type: table.Bool, Doc: "Whether it is plugged in (cpu_present_mask).",
		Get: func(p *cpu) table.Value { return table.BoolValue(p.Present) },
	},
	{
		Name: "possible", Type: table.Bool, Doc: "Whether it could be plugged in (cpu_possible_mask).",
		Get: func(p *cpu) table.Value { return table.BoolValue(p.Possible) },
	},
	{Name: "vendor", Type: table.Text, Doc: "Vendor, as CPUID spells it.", Get: func(p *cpu) table.Value { return p.known(table.TextValue(p.Vendor)) }},
	{Name: "family", Type: table.Int, Doc: "Family of the model.", Get: func(p *cpu) table.Value { return p.known(integer(p.Family)) }},
	{Name: "model", Type: table.Int, Doc: "Number of the model in its family.", Get: func(p *cpu) table.Value { return p.known(integer(p.Model)) }},
	{Name: "stepping", Type: table.Int, Doc: "Revision of the model.", Get: func(p *cpu) table.Value { return p.known(integer(p.Stepping)) }},
	{Name: "model_name", Type: table.Text, Doc: "What the CPU calls itself.", Get: func(p *cpu) table.Value { return p.known(text(p.ModelName)) }},
	{
		Name: "microcode", Type: table.Addr, Extra: true, Doc: "Revision of its microcode, a number.",
		Get: func(p *cpu) table.Value { return p.known(table.AddrValue(uint64(p.Microcode))) },
	},
	{
		Name: "khz", Type: table.Uint, Doc: "Frequency in kHz as measured at boot (cpu_khz); what it runs at this moment is not in memory.",
		Get: func(p *cpu) table.Value { return p.known(p.khz) },
	},
	{
		Name: "cache", Type: table.Size, Extra: true, Doc: "Its largest cache, in bytes; missing where not known.",
		Get: func(p *cpu) table.Value { return p.known(when(p.Cache > 0, size(p.Cache))) },
	},
	{
		Name: "package", Type: table.Int, Doc: "Number of its package: the socket.",
		Get: func(p *cpu) table.Value { return p.known(when(p.Package >= 0, integer(p.Package))) },
	},
	{
		Name: "die", Type: table.Int, Extra: true, Doc: "Number of its die in the package.",
		Get: func(p *cpu) table.Value { return p.known(when(p.Die >= 0, integer(p.Die))) },
	},
	{
		Name: "core", Type: table.Int, Doc: "Number of its core in the package; hyper-threads share one.",
		Get: func(p *cpu) table.Value { return p.known(when(p.Core >= 0, integer(p.Core))) },
	},
	{
		Name: "apic", Type: table.Uint, Extra: true, Doc: "Number of its interrupt controller (APIC ID).",
		Get: func(p *cpu) table.Value { return p.known(unsigned(p.APIC)) },
	},
	{
		Name: "phys_bits", Type: table.Int, Extra: true, Doc: "Bits of a physical address.",
		Get: func(p *cpu) table.Value { return p.known(integer(p.PhysBits)) },
	},
	{
		Name: "virt_bits", Type: table.Int, Extra: true, Doc: "Bits of a virtual address.",
		Get: func(p *cpu) table.Value { return p.known(integer(p.VirtBits)) },
	},
	{
		Name: "flags", Type: table.List, Extra: true, Doc: "What it can do, in the kernel's names, as flags in /proc/cpuinfo.",
		Get: func(p *cpu) table.Value { return p.known(list(p.Flags)) },
	},
	{
		Name: "bugs", Type: table.List, Extra: true, Doc: "Its known flaws, as bugs in /proc/cpuinfo.",
		Get: func(p *cpu) table.Value { return p.known(list(p.Bugs)) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct cpuinfo_x86.", Get: func(p *cpu) table.Value { return address(p.Info) }},
}

// cpu is a row of cpus.
type cpu struct {
	*device.Processor
	khz table.Value
	err error
}

// known is a cell of what the kernel found out when it started the CPU.
func (p *cpu) known(v table.Value) table.Value {
	if p.err != nil {
		return unreadable(p.err)
	}
	return when(p.Vendor != "", v) // else it was never started
}

func cpus(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*cpu, error] {
	return func(yield func(*cpu, error) bool) {
		khz, err := device.ProcessorKHz(l.Linux)
		row := cpu{khz: readable(positive(khz), err)}
		for p, err := range device.Processors(ctx, l.Linux) {
			if p == nil {
				if !yield(nil, ended(err)) {
					return
				}
				continue
			}
			row.Processor, row.err = p, err
			if !yield(&row, err) {
				return
			}
		}
	}
}
