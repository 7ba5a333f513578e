package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "info", Group: table.Kernel,
		Doc: `Show what a guest is: its machine, its kernel, and how it is read.

The kernel is found in memory alone. "profile" says where its symbols and types came
from: they are what the guest's memory says of itself, which a hostile kernel could
forge. "doubts" are contradictions between the places where the kernel describes
itself; a healthy guest has none.`,
		Columns: infoColumns,
		Rows:    infoRows,
		Example: "lab:demo",
		Single:  true,
	}))
}

var infoColumns = []table.Column{
	{Name: "target", Type: table.Text, Doc: "As it was given, or found."},
	{Name: "vmm", Type: table.Text, Doc: "Monitor: qemu, firecracker, cloud-hypervisor, kvm; file for a dump."},
	{Name: "vmm_pid", Type: table.Int, Doc: "Process of the monitor; missing for a dump."},
	{Name: "accel", Type: table.Text, Doc: "kvm or tcg; missing where unknown."},
	{Name: "run_state", Type: table.Text, Doc: "What the machine does, as its monitor says."},
	{Name: "source", Type: table.Text, Doc: "How memory is read: shared, private or dump."},
	{Name: "format", Type: table.Text, Doc: "Of the dump: raw, ELF core, kdump and so on; missing for a live machine."},
	{Name: "memory", Type: table.Size, Doc: "Guest-physical memory in bytes."},
	{Name: "memory_map", Type: table.List, Doc: "Guest-physical ranges of RAM."},
	{Name: "map_from", Type: table.Text, Doc: "Who said so: the monitor, the dump, or a guess that the guest's page tables proved."},
	{Name: "hostname", Type: table.Text, Doc: "Node name of the initial UTS namespace."},
	{Name: "release", Type: table.Text, Doc: "Kernel release, as uname -r prints it."},
	{Name: "version", Type: table.Text, Doc: "Kernel banner, as /proc/version prints it."},
	{Name: "build_id", Type: table.Text, Doc: "Build identifier of the kernel image."},
	{Name: "profile", Type: table.Text, Doc: "Where the kernel's symbols and types came from."},
	{Name: "system_state", Type: table.Text, Doc: "What the kernel says that it does: booting, running, halted, powered off, restarting."},
	{Name: "kaslr_offset", Type: table.Addr, Doc: "By how much KASLR moved the kernel's image."},
	{Name: "text", Type: table.Addr, Doc: "Virtual address of the kernel's text."},
	{Name: "text_physical", Type: table.Addr, Doc: "Guest-physical address of the same."},
	{Name: "direct_map", Type: table.Addr, Doc: "Virtual address of the direct map of all memory."},
	{Name: "paging_levels", Type: table.Int, Doc: "Levels of page tables: 4, or 5 with LA57."},
	{Name: "pti", Type: table.Bool, Doc: "Whether page tables are isolated: two roots for each process."},
	{Name: "cpus", Type: table.Int, Doc: "Processors that the kernel prepared for."},
	{Name: "booted", Type: table.Time, Doc: "When the guest booted, by its own clock."},
	{Name: "clock", Type: table.Time, Doc: "The guest's clock when it last ticked."},
	{Name: "command_line", Type: table.Text, Doc: "Command line of the kernel."},
	{Name: "doubts", Type: table.List, Doc: "Contradictions in what the kernel says of itself."},
}

func infoRows(_ context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) { yield(infoRow(g), nil) }
}

func infoRow(g *guest.Look) table.Row {
	m, s := g.Machine, g.Linux
	known := func(s string) table.Value {
		if s == "" {
			return table.Missing(table.None)
		}
		return table.TextValue(s)
	}
	read := func(text string, err error) table.Value {
		if err != nil {
			return table.Missing(table.Unreadable)
		}
		return table.TextValue(text)
	}
	pid := table.Missing(table.None)
	if m.PID != 0 {
		pid = table.IntValue(int64(m.PID))
	}
	booted, clock := table.Missing(table.Unreadable), table.Missing(table.Unreadable)
	if c, err := s.Clock(); err == nil {
		booted, clock = table.TimeValue(c.Boot), table.TimeValue(c.Now)
	}
	doubts := table.Missing(table.None)
	if len(s.Doubts) > 0 {
		doubts = table.ListValue(s.Doubts)
	}
	size, ranges := ramOf(s.Memory)
	return table.Row{
		table.TextValue(g.Target), known(m.VMM), pid, known(m.Accel), known(string(m.State)),
		known(string(m.Source)), known(m.Format), table.SizeValue(size), table.ListValue(ranges), table.TextValue(mapFrom(g)),
		read(s.Hostname()), table.TextValue(s.Release), table.TextValue(s.Banner), known(s.BuildID),
		table.TextValue(string(s.Origin)), table.TextValue(s.State.String()), table.AddrValue(s.Offset()),
		table.AddrValue(uint64(s.Text)), table.AddrValue(uint64(s.TextPA)), table.AddrValue(uint64(s.Space.DirectBase())),
		table.IntValue(int64(s.Space.Levels())), table.BoolValue(s.PTI), table.IntValue(int64(s.CPUs())),
		booted, clock, read(s.CommandLine()), doubts,
	}
}

func ramOf(mem phys.Memory) (size uint64, ranges []string) {
	for _, r := range mem.Ranges() {
		size += r.Size()
		ranges = append(ranges, fmt.Sprintf("%#x-%#x", uint64(r.Start), uint64(r.End)-1))
	}
	return size, ranges
}

func mapFrom(g *guest.Look) string {
	switch {
	case g.Machine.Proven && !g.Machine.Live():
		return "the dump"
	case g.Machine.Proven:
		return "the monitor"
	}
	how := "a guess that the page tables proved"
	if g.Linux.Layout != "" {
		how += " (" + g.Linux.Layout + ")"
	}
	return how
}
