package table

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/phys"
)

func init() {
	Register(New(Spec{
		Name: "info",
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

var infoColumns = []Column{
	{Name: "target", Type: Text, Doc: "As it was given, or found."},
	{Name: "vmm", Type: Text, Doc: "Monitor: qemu, firecracker, cloud-hypervisor, kvm; file for a dump."},
	{Name: "vmm_pid", Type: Int, Doc: "Process of the monitor; missing for a dump."},
	{Name: "accel", Type: Text, Doc: "kvm or tcg; missing where unknown."},
	{Name: "run_state", Type: Text, Doc: "What the machine does, as its monitor says."},
	{Name: "source", Type: Text, Doc: "How memory is read: shared, private or dump."},
	{Name: "format", Type: Text, Doc: "Of the dump: raw, ELF core, kdump and so on; missing for a live machine."},
	{Name: "memory", Type: Size, Doc: "Guest-physical memory in bytes."},
	{Name: "memory_map", Type: List, Doc: "Guest-physical ranges of RAM."},
	{Name: "map_from", Type: Text, Doc: "Who said so: the monitor, the dump, or a guess that the guest's page tables proved."},
	{Name: "hostname", Type: Text, Doc: "Node name of the initial UTS namespace."},
	{Name: "release", Type: Text, Doc: "Kernel release, as uname -r prints it."},
	{Name: "version", Type: Text, Doc: "Kernel banner, as /proc/version prints it."},
	{Name: "build_id", Type: Text, Doc: "Build identifier of the kernel image."},
	{Name: "profile", Type: Text, Doc: "Where the kernel's symbols and types came from."},
	{Name: "system_state", Type: Text, Doc: "What the kernel says that it does: booting, running, halted, powered off, restarting."},
	{Name: "kaslr_offset", Type: Addr, Doc: "By how much KASLR moved the kernel's image."},
	{Name: "text", Type: Addr, Doc: "Virtual address of the kernel's text."},
	{Name: "text_physical", Type: Addr, Doc: "Guest-physical address of the same."},
	{Name: "direct_map", Type: Addr, Doc: "Virtual address of the direct map of all memory."},
	{Name: "paging_levels", Type: Int, Doc: "Levels of page tables: 4, or 5 with LA57."},
	{Name: "pti", Type: Bool, Doc: "Whether page tables are isolated: two roots for each process."},
	{Name: "cpus", Type: Int, Doc: "Processors that the kernel prepared for."},
	{Name: "booted", Type: Time, Doc: "When the guest booted, by its own clock."},
	{Name: "clock", Type: Time, Doc: "The guest's clock when it last ticked."},
	{Name: "command_line", Type: Text, Doc: "Command line of the kernel."},
	{Name: "doubts", Type: List, Doc: "Contradictions in what the kernel says of itself."},
}

func infoRows(_ context.Context, g *Guest, _ []Constraint) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) { yield(infoRow(g), nil) }
}

func infoRow(g *Guest) Row {
	m, s := g.Machine, g.Linux
	known := func(s string) Value {
		if s == "" {
			return Missing(None)
		}
		return TextValue(s)
	}
	read := func(text string, err error) Value {
		if err != nil {
			return Missing(Unreadable)
		}
		return TextValue(text)
	}
	pid := Missing(None)
	if m.PID != 0 {
		pid = IntValue(int64(m.PID))
	}
	booted, clock := Missing(Unreadable), Missing(Unreadable)
	if c, err := s.Clock(); err == nil {
		booted, clock = TimeValue(c.Boot), TimeValue(c.Now)
	}
	doubts := Missing(None)
	if len(s.Doubts) > 0 {
		doubts = ListValue(s.Doubts)
	}
	size, ranges := ramOf(s.Memory)
	return Row{
		TextValue(g.Target), known(m.VMM), pid, known(m.Accel), known(string(m.State)),
		known(string(m.Source)), known(m.Format), SizeValue(size), ListValue(ranges), TextValue(mapFrom(g)),
		read(s.Hostname()), TextValue(s.Release), TextValue(s.Banner), known(s.BuildID),
		TextValue(string(s.Origin)), TextValue(s.State.String()), AddrValue(s.Offset()),
		AddrValue(uint64(s.Text)), AddrValue(uint64(s.TextPA)), AddrValue(uint64(s.Space.DirectBase())),
		IntValue(int64(s.Space.Levels())), BoolValue(s.PTI), IntValue(int64(s.CPUs())),
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

func mapFrom(g *Guest) string {
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
