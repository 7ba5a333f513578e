package views

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "cgroups",
		Doc: `Show the control groups of a guest, and what they use.

All hierarchies are shown, version 1 and 2, each as a tree. Processes are counted in
the group that they are in, not in those above it; a process that ended and was not
waited for is in none. Memory counts what the group and those below it are charged.
Groups that were removed while something still holds them are not shown.`,
		Source:  "cgroup_roots: struct cgroup and the css of each controller (mem_cgroup, pids_cgroup, cgroup_rstat_cpu)",
		Key:     []string{"hierarchy", "path"},
		Of:      itsCgroups,
		Example: "lab:demo",
	}, cgroupColumns, fromPartly((*linux.System).Cgroups)))
}

var cgroupColumns = table.Columns[linux.Cgroup]{
	{
		Name: "hierarchy", Type: table.Int, Doc: "Number of the hierarchy, as in /proc/PID/cgroup; 0 is the unified one.",
		Get: func(c *linux.Cgroup) table.Value { return integer(c.Hierarchy) },
	},
	{Name: "path", Type: table.Text, Doc: "Path from the root of the hierarchy.", Get: func(c *linux.Cgroup) table.Value { return table.TextValue(c.Path) }},
	{Name: "version", Type: table.Int, Extra: true, Doc: "1 or 2.", Get: func(c *linux.Cgroup) table.Value { return integer(c.Version) }},
	{
		Name: "name", Type: table.Text, Extra: true, Doc: "Name of the hierarchy, if it has one.",
		Get: func(c *linux.Cgroup) table.Value { return text(c.Name) },
	},
	{
		Name: "id", Type: table.Uint, Extra: true, Doc: "Inode number of its folder, which BPF calls the cgroup's id.",
		Get: func(c *linux.Cgroup) table.Value { return unsigned(c.ID) },
	},
	{Name: "level", Type: table.Int, Extra: true, Doc: "Depth; 0 for the root.", Get: func(c *linux.Cgroup) table.Value { return integer(c.Level) }},
	{
		Name: "controllers", Type: table.List, Doc: "Controllers that are available in it.",
		Get: func(c *linux.Cgroup) table.Value { return table.ListValue(c.Controllers) },
	},
	{
		Name: "processes", Type: table.Int, Doc: "Number of processes in the group itself.",
		Get: func(c *linux.Cgroup) table.Value { return integer(c.Processes) },
	},
	{Name: "descendants", Type: table.Int, Extra: true, Doc: "Number of groups below it.", Get: func(c *linux.Cgroup) table.Value { return integer(c.Below) }},
	{
		Name: "frozen", Type: table.Bool, Extra: true, Doc: "Whether it was asked to freeze, in version 2.",
		Get: func(c *linux.Cgroup) table.Value { return table.BoolValue(c.Frozen) },
	},
	{
		Name: "cpu_time", Type: table.Duration, Doc: "CPU time used, by those below too; missing for a root and in version 1.",
		Get: func(c *linux.Cgroup) table.Value { return when(c.HasCPU, table.DurationValue(c.CPUTime)) },
	},
	{
		Name: "memory", Type: table.Size, Doc: "Memory charged to it; missing without that controller.",
		Get: func(c *linux.Cgroup) table.Value { return when(c.Memory.Known, size(c.Memory.Now)) },
	},
	{
		Name: "memory_max", Type: table.Size, Doc: "Limit of that; missing without one.",
		Get: func(c *linux.Cgroup) table.Value { return limit(c.Memory, table.SizeValue) },
	},
	{
		Name: "pids", Type: table.Uint, Doc: "Number of threads in it and below; missing without that controller.",
		Get: func(c *linux.Cgroup) table.Value { return when(c.PIDs.Known, unsigned(c.PIDs.Now)) },
	},
	{
		Name: "pids_max", Type: table.Uint, Doc: "Limit of that; missing without one.",
		Get: func(c *linux.Cgroup) table.Value { return limit(c.PIDs, table.UintValue) },
	},
	{
		Name: "removed", Type: table.Bool, Extra: true, Doc: "Whether its folder was removed: memory charged to it, or a descriptor, still holds the group.",
		Get: func(c *linux.Cgroup) table.Value { return table.BoolValue(c.Removed) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct cgroup.", Get: func(c *linux.Cgroup) table.Value { return address(c.Addr) }},
}

// limit is a cell of the most that a group may use; missing without a limit.
func limit(u linux.CgroupUsage, as func(uint64) table.Value) table.Value {
	return when(u.Known && u.Max != ^uint64(0), as(u.Max))
}
