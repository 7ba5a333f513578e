package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux/device"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "info", Group: table.Kernel,
		Doc: `Show what a guest is: its machine, its kernel, and how it is read.

The kernel is found in memory alone. "profile" says where its symbols and types came
from: they are what the guest's memory says of itself, which a hostile kernel could
forge. "inconsistencies" are contradictions between the places where the kernel describes
itself; a healthy guest shows none.`,
		Source:  "the kernel's image, uts_namespace, the timekeeper, saved_command_line; the machine's monitor or the dump's header",
		Example: "lab:demo",
		Single:  true,
	}, infoColumns, info))
}

var infoColumns = table.Columns[information]{
	{Name: "target", Type: table.Text, Doc: "As it was given, or found.", Get: func(i *information) table.Value { return table.TextValue(i.Target) }},
	{
		Name: "vmm", Type: table.Text, Doc: "Monitor: qemu, firecracker, cloud-hypervisor, kvm; file for a dump.",
		Get: func(i *information) table.Value { return text(i.Machine.VMM) },
	},
	{
		Name: "vmm_pid", Type: table.Int, Doc: "Process of the monitor; missing for a dump.",
		Get: func(i *information) table.Value { return when(i.Machine.PID != 0, integer(i.Machine.PID)) },
	},
	{Name: "accel", Type: table.Text, Doc: "kvm or tcg; missing where unknown.", Get: func(i *information) table.Value { return text(i.Machine.Accel) }},
	{
		Name: "run_state", Type: table.Text, Doc: "What the machine does, as its monitor says.",
		Get: func(i *information) table.Value { return text(string(i.Machine.State)) },
	},
	{
		Name: "source", Type: table.Text, Doc: "How memory is read: shared, private or dump.",
		Get: func(i *information) table.Value { return text(string(i.Machine.Source)) },
	},
	{
		Name: "format", Type: table.Text, Doc: "Of the dump: raw, ELF core, kdump and so on; missing for a live machine.",
		Get: func(i *information) table.Value { return text(i.Machine.Format) },
	},
	{Name: "memory", Type: table.Size, Doc: "Guest-physical memory in bytes.", Get: func(i *information) table.Value { return size(i.ram) }},
	{Name: "memory_map", Type: table.List, Doc: "Guest-physical ranges of RAM.", Get: func(i *information) table.Value { return table.ListValue(i.ranges) }},
	{
		Name: "map_from", Type: table.Text, Doc: "Who said so: the monitor, the dump, or a guess that the guest's page tables proved.",
		Get: func(i *information) table.Value { return table.TextValue(mapFrom(i.Look)) },
	},
	{
		Name: "hostname", Type: table.Text, Doc: "Node name of the initial UTS namespace.",
		Get: func(i *information) table.Value {
			name, err := i.Linux.Hostname()
			return readable(table.TextValue(name), err)
		},
	},
	{
		Name: "release", Type: table.Text, Doc: "Kernel release, as uname -r prints it.",
		Get: func(i *information) table.Value { return table.TextValue(i.Linux.Release) },
	},
	{
		Name: "version", Type: table.Text, Doc: "Kernel banner, as /proc/version prints it.",
		Get: func(i *information) table.Value { return table.TextValue(i.Linux.Banner) },
	},
	{Name: "build_id", Type: table.Text, Doc: "Build identifier of the kernel image.", Get: func(i *information) table.Value { return text(i.Linux.BuildID) }},
	{
		Name: "profile", Type: table.Text, Doc: "Where the kernel's symbols and types came from.",
		Get: func(i *information) table.Value { return table.TextValue(string(i.Linux.Origin)) },
	},
	{
		Name: "system_state", Type: table.Text, Doc: "What the kernel says that it does: booting, running, halted, powered off, restarting.",
		Get: func(i *information) table.Value {
			_, err := i.Linux.SymbolAddr("system_state")
			return readable(table.TextValue(i.Linux.State.String()), err)
		},
	},
	{
		Name: "kaslr_offset", Type: table.Addr, Doc: "By how much KASLR moved the kernel's image.",
		Get: func(i *information) table.Value { return table.AddrValue(i.Linux.Offset()) },
	},
	{
		Name: "text", Type: table.Addr, Doc: "Virtual address of the kernel's text.",
		Get: func(i *information) table.Value { return table.AddrValue(uint64(i.Linux.Text)) },
	},
	{
		Name: "text_physical", Type: table.Addr, Doc: "Guest-physical address of the same.",
		Get: func(i *information) table.Value { return table.AddrValue(uint64(i.Linux.TextPA)) },
	},
	{
		Name: "direct_map", Type: table.Addr, Doc: "Virtual address of the direct map of all memory.",
		Get: func(i *information) table.Value { return table.AddrValue(uint64(i.Linux.Space.DirectBase())) },
	},
	{
		Name: "paging_levels", Type: table.Int, Doc: "Levels of page tables: 4, or 5 with LA57.",
		Get: func(i *information) table.Value { return integer(i.Linux.Space.Levels()) },
	},
	{
		Name: "pti", Type: table.Bool, Doc: "Whether page tables are isolated: two roots for each process.",
		Get: func(i *information) table.Value {
			_, err := i.Linux.SymbolAddr("boot_cpu_data") // its features say so
			return readable(table.BoolValue(i.Linux.PTI), err)
		},
	},
	{
		Name: "cpus", Type: table.Int, Doc: "CPUs that are online: they run tasks.",
		Get: func(i *information) table.Value { return readable(integer(i.cpus.Online), i.cpuErr) },
	},
	{
		Name: "cpus_present", Type: table.Int, Doc: "CPUs that are plugged in.",
		Get: func(i *information) table.Value { return readable(integer(i.cpus.Present), i.cpuErr) },
	},
	{
		Name: "cpus_possible", Type: table.Int, Doc: "CPUs that the kernel prepared for: all that could be plugged in.",
		Get: func(i *information) table.Value { return readable(integer(i.cpus.Possible), i.cpuErr) },
	},
	{
		Name: "booted", Type: table.Time, Doc: "When the guest booted, by its own clock.",
		Get: func(i *information) table.Value { return readable(table.TimeValue(i.clock.Boot), i.clockErr) },
	},
	{
		Name: "clock", Type: table.Time, Doc: "The guest's clock when it last ticked.",
		Get: func(i *information) table.Value { return readable(table.TimeValue(i.clock.Now), i.clockErr) },
	},
	{
		Name: "command_line", Type: table.Text, Doc: "Command line of the kernel.",
		Get: func(i *information) table.Value {
			line, err := i.Linux.CommandLine()
			return readable(table.TextValue(line), err)
		},
	},
	{
		Name: "inconsistencies", Type: table.List, Doc: "Contradictions in what the kernel says of itself.",
		Get: func(i *information) table.Value { return list(i.Linux.Inconsistencies) },
	},
}

func ramOf(mem phys.Memory) (size uint64, ranges []string) {
	for _, r := range mem.Ranges() {
		size += r.Size()
		ranges = append(ranges, fmt.Sprintf("%#x-%#x", uint64(r.Start), uint64(r.End)-1))
	}
	return size, ranges
}

func mapFrom(l *guest.Look) string {
	switch {
	case l.Machine.Proven && !l.Machine.Live():
		return "the dump"
	case l.Machine.Proven:
		return "the monitor"
	}
	how := "a guess that the page tables proved"
	if l.Linux.Layout != "" {
		how += " (" + l.Linux.Layout + ")"
	}
	return how
}

// information is the row of info.
type information struct {
	*guest.Look
	ram      uint64
	ranges   []string
	clock    kernel.Clock
	clockErr error
	cpus     device.ProcessorCount
	cpuErr   error
}

func info(_ context.Context, l *guest.Look, _ table.Request) iter.Seq2[*information, error] {
	return func(yield func(*information, error) bool) {
		i := information{Look: l}
		i.ram, i.ranges = ramOf(l.Linux.Memory)
		i.clock, i.clockErr = l.Linux.Clock()
		i.cpus, i.cpuErr = device.CountProcessors(l.Linux)
		yield(&i, nil)
	}
}
