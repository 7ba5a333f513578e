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
		Name: "cgroups",
		Doc: `Show the control groups of a guest, and what they use.

All hierarchies are shown, version 1 and 2, each as a tree. Processes are counted in
the group that they are in, not in those above it; a process that ended and was not
waited for is in none. Memory counts what the group and those below it are charged.
Groups that were removed while something still holds them are not shown.`,
		Columns: cgroupColumns,
		Rows:    cgroupRows,
		Of:      itsCgroups,
		Example: "lab:demo",
	}))
}

var cgroupColumns = []table.Column{
	{Name: "hierarchy", Type: table.Int, Doc: "Number of the hierarchy, as in /proc/PID/cgroup; 0 is the unified one."},
	{Name: "path", Type: table.Text, Doc: "Path from the root of the hierarchy."},
	{Name: "version", Type: table.Int, Extra: true, Doc: "1 or 2."},
	{Name: "name", Type: table.Text, Extra: true, Doc: "Name of the hierarchy, if it has one."},
	{Name: "id", Type: table.Uint, Extra: true, Doc: "Inode number of its folder, which BPF calls the cgroup's id."},
	{Name: "level", Type: table.Int, Extra: true, Doc: "Depth; 0 for the root."},
	{Name: "controllers", Type: table.List, Doc: "Controllers that are available in it."},
	{Name: "processes", Type: table.Int, Doc: "Number of processes in the group itself."},
	{Name: "descendants", Type: table.Int, Extra: true, Doc: "Number of groups below it."},
	{Name: "frozen", Type: table.Bool, Extra: true, Doc: "Whether it was told to freeze, in version 2."},
	{Name: "cpu_time", Type: table.Duration, Doc: "Processor time used, by those below too; missing for a root and in version 1."},
	{Name: "memory", Type: table.Size, Doc: "Memory charged to it; missing without that controller."},
	{Name: "memory_max", Type: table.Size, Doc: "Limit of that; missing without one."},
	{Name: "pids", Type: table.Uint, Doc: "Number of threads in it and below; missing without that controller."},
	{Name: "pids_max", Type: table.Uint, Doc: "Limit of that; missing without one."},
	{Name: "removed", Type: table.Bool, Extra: true, Doc: "Whether its folder was removed: memory charged to it, or a descriptor, still holds the group."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct cgroup."},
}

func cgroupRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for c, err := range g.Linux.Cgroups(ctx) {
			var row table.Row
			if c != nil {
				row = cgroupRow(c)
			}
			if !yield(row, ended(err)) {
				return
			}
		}
	}
}

func cgroupRow(c *linux.Cgroup) table.Row {
	none := table.Missing(table.None)
	usage := func(u linux.Usage, as func(uint64) table.Value) (now, limit table.Value) {
		if !u.Known {
			return none, none
		}
		if u.Max == ^uint64(0) {
			return as(u.Now), none
		}
		return as(u.Now), as(u.Max)
	}
	cpu := none
	if c.HasCPU {
		cpu = table.DurationValue(c.CPUTime)
	}
	memory, memoryMax := usage(c.Memory, table.SizeValue)
	pids, pidsMax := usage(c.PIDs, table.UintValue)
	return table.Row{
		table.IntValue(int64(c.Hierarchy)), table.TextValue(c.Path), table.IntValue(int64(c.Version)), text(c.Name),
		table.UintValue(c.ID), table.IntValue(int64(c.Level)), table.ListValue(c.Controllers), table.IntValue(int64(c.Processes)),
		table.IntValue(int64(c.Below)), table.BoolValue(c.Frozen), cpu, memory, memoryMax, pids, pidsMax, table.BoolValue(c.Removed), address(c.Addr),
	}
}
