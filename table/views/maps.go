package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name:  "maps",
		Group: table.Files,
		Doc: `Show the memory mappings of processes.

A row is one range of a process' address space, as in /proc/PID/maps, read from the
kernel's own tree of them. Of processes that are chosen by their pid, or of all with
--resident, the page tables are walked too, and tell how much of each range is in memory or
in swap; that takes longer. Shared memory
that is in swap is not told by page tables and not counted, and neither is the legacy
vsyscall page, which belongs to no process. Code that was mapped past the kernel's tree,
by changing page tables, is not shown.`,
		Columns: mapsColumns,
		Rows:    mapsRows,
		Example: "lab:demo --pid 1",
	}))
}

var mapsColumns = []table.Column{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace."},
	{Name: "start", Type: table.Addr, Doc: "First address of the range."},
	{Name: "end", Type: table.Addr, Doc: "First address behind the range."},
	{Name: "size", Type: table.Size, Extra: true, Doc: "Bytes from start to end."},
	{Name: "perms", Type: table.Text, Doc: "r read, w write, x execute; s shared, p private."},
	{Name: "offset", Type: table.Uint, Doc: "Where in the file the range begins, in bytes; 0 without a file."},
	{Name: "path", Type: table.Text, Doc: "File, in its mount namespace, or [heap], [stack], [vdso], [anon:NAME]; missing for other anonymous memory."},
	{Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that file was unlinked since, or never had a name (memfd); missing without a file."},
	{Name: "device", Type: table.Text, Extra: true, Doc: "Device of the file's file system, major:minor; missing without a file."},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode of the file; missing without a file."},
	{Name: "anonymous", Type: table.Bool, Extra: true, Doc: "Whether there is no file behind it."},
	{Name: "flags", Type: table.List, Extra: true, Doc: "Flags in the two letters of VmFlags in /proc/PID/smaps, those that all kernels from 5.10 on share."},
	{Name: "resident", Type: table.Size, Doc: "Bytes in memory, as Rss in smaps, which leaves hugetlbfs out; missing where neither --pid nor --resident asks for it."},
	{Name: "swapped", Type: table.Size, Extra: true, Doc: "Bytes of anonymous memory in swap; missing where neither --pid nor --resident asks for it."},
	{Name: "dirty", Type: table.Size, Extra: true, Doc: "Resident bytes that this mapping wrote to, by its page tables; missing where neither --pid nor --resident asks for it."},
	{Name: "vma", Type: table.Addr, Extra: true, Doc: "Address of the vm_area_struct."},
	{Name: "with_resident", Type: table.Bool, Option: true, Doc: "Walk the page tables to tell what is in memory, without --pid too."},
}

func mapsRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	_, chosen := where.Values("pid")
	resident := chosen || where.Option("with_resident")
	return func(yield func(table.Row, error) bool) {
		l := g.Linux.NewLister()
		for p, err := range wantedProcesses(ctx, g, where) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for m, err := range l.Mappings(ctx, p.Task) {
				if err != nil {
					if !yield(nil, fmt.Errorf("process %d: %w", p.pid, err)) {
						return
					}
					continue
				}
				row, err := mapsRow(p.pid, m, g.Linux, resident)
				if !yield(row, err) {
					return
				}
			}
		}
	}
}

// process is one that a view should look at.
type process struct {
	linux.Task
	pid int32
}

// wantedProcesses is the processes that where asks for, by their pid.
func wantedProcesses(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[process, error] {
	wanted, some := where.Values("pid")
	return func(yield func(process, error) bool) {
		for t, err := range tasks(ctx, g.Linux) {
			var pid int32
			if err == nil {
				pid, _, err = t.IDs()
			}
			if err == nil && some && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Int() == int64(pid) }) {
				continue
			}
			if !yield(process{t, pid}, err) {
				return
			}
		}
	}
}

func mapsRow(pid int32, m *linux.Mapping, s *linux.System, resident bool) (table.Row, error) {
	none := table.Missing(table.None)
	row := table.Row{
		table.IntValue(int64(pid)), table.AddrValue(uint64(m.Start)), table.AddrValue(uint64(m.End)),
		table.SizeValue(uint64(m.End - m.Start)), table.TextValue(m.Perms()), table.UintValue(m.Offset),
		text(m.Path), none, none, none, table.BoolValue(m.File == 0), table.ListValue(m.FlagNames()),
		none, none, none, table.AddrValue(uint64(m.Addr)), none,
	}
	const path, swapped = 6, 13
	if m.File != 0 {
		row[path+1], row[path+2], row[path+3] = table.BoolValue(m.Deleted), table.TextValue(m.Device.String()), table.UintValue(m.Inode)
	}
	var partly error
	if m.Err != nil {
		partly = fmt.Errorf("process %d: mapping at %#x: %w", pid, uint64(m.Start), m.Err)
		row[path] = unreadable(m.Err)
		if m.File != 0 {
			row[path+1], row[path+2], row[path+3] = row[path], row[path], row[path]
		}
	}
	if resident {
		r, err := s.Residency(m)
		row[swapped-1], row[swapped], row[swapped+1] = table.SizeValue(r.Resident), table.SizeValue(r.Swapped), table.SizeValue(r.Dirty)
		if err != nil {
			partly = fmt.Errorf("process %d: page tables of the mapping at %#x: %w", pid, uint64(m.Start), err)
			row[swapped-1], row[swapped], row[swapped+1] = unreadable(err), unreadable(err), unreadable(err)
		}
	}
	return row, partly
}
