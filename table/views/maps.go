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
	table.Register(table.Of(table.Spec{
		Name:  "maps",
		Group: table.Files,
		Doc: `Show the memory mappings of processes.

A row is one range of a process' address space, as in /proc/PID/maps, read from the
kernel's own tree of them. Of processes that are chosen by their pid, or of all with
--resident, the page tables are walked too, and show how much of each range is in memory or
in swap; that takes longer. Shared memory
that is in swap is not visible in page tables and not counted, and neither is the legacy
vsyscall page, which belongs to no process. Code that was mapped past the kernel's tree,
by changing page tables, is not shown.`,
		Source:  "mm_struct.mm_mt, or mmap before 6.1: vm_area_struct; page tables for what is resident",
		Key:     []string{"pid", "start"},
		Example: "lab:demo --pid 1",
	}, mapsColumns, mappings))
}

var mapsColumns = table.Columns[mapping]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(m *mapping) table.Value { return integer(m.pid) }},
	{Name: "start", Type: table.Addr, Doc: "First address of the range.", Get: func(m *mapping) table.Value { return table.AddrValue(uint64(m.Start)) }},
	{Name: "end", Type: table.Addr, Doc: "First address behind the range.", Get: func(m *mapping) table.Value { return table.AddrValue(uint64(m.End)) }},
	{Name: "size", Type: table.Size, Extra: true, Doc: "Bytes from start to end.", Get: func(m *mapping) table.Value { return size(m.End - m.Start) }},
	{
		Name: "perms", Type: table.Text, Doc: "r read, w write, x execute; s shared, p private.",
		Get: func(m *mapping) table.Value { return table.TextValue(m.Perms()) },
	},
	{
		Name: "offset", Type: table.Uint, Doc: "Where in the file the range begins, in bytes; 0 without a file.",
		Get: func(m *mapping) table.Value { return unsigned(m.Offset) },
	},
	{
		Name: "path", Type: table.Text, Doc: "File, in its mount namespace, or [heap], [stack], [vdso], [anon:NAME]; missing for other anonymous memory.",
		Get: func(m *mapping) table.Value { return readable(text(m.Path), m.Err) },
	},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that file was unlinked since, or never had a name (memfd); missing without a file.",
		Get: func(m *mapping) table.Value { return m.ofFile(table.BoolValue(m.Deleted)) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Device of the file's file system, major:minor; missing without a file.",
		Get: func(m *mapping) table.Value { return m.ofFile(table.TextValue(m.Device.String())) },
	},
	{
		Name: "inode", Type: table.Uint, Extra: true, Doc: "Inode of the file; missing without a file.",
		Get: func(m *mapping) table.Value { return m.ofFile(unsigned(m.Inode)) },
	},
	{
		Name: "anonymous", Type: table.Bool, Extra: true, Doc: "Whether there is no file behind it.",
		Get: func(m *mapping) table.Value { return table.BoolValue(m.File == 0) },
	},
	{
		Name: "flags", Type: table.List, Extra: true, Doc: "Flags in the two letters of VmFlags in /proc/PID/smaps, those that all kernels from 5.10 on share.",
		Get: func(m *mapping) table.Value { return table.ListValue(m.FlagNames()) },
	},
	{
		Name: "resident", Type: table.Size, Doc: "Bytes in memory, as Rss in smaps, which leaves hugetlbfs out; missing where neither --pid nor --resident asks for it.",
		Get: func(m *mapping) table.Value {
			return m.present(func(r linux.Residency) uint64 { return r.Resident })
		},
	},
	{
		Name: "swapped", Type: table.Size, Extra: true, Doc: "Bytes of anonymous memory in swap; missing where neither --pid nor --resident asks for it.",
		Get: func(m *mapping) table.Value {
			return m.present(func(r linux.Residency) uint64 { return r.Swapped })
		},
	},
	{
		Name: "dirty", Type: table.Size, Extra: true, Doc: "Resident bytes that this mapping wrote to, by its page tables; missing where neither --pid nor --resident asks for it.",
		Get: func(m *mapping) table.Value {
			return m.present(func(r linux.Residency) uint64 { return r.Dirty })
		},
	},
	{Name: "vma", Type: table.Addr, Extra: true, Doc: "Address of the vm_area_struct.", Get: func(m *mapping) table.Value { return address(m.Addr) }},
	{Name: "with_resident", Type: table.Bool, Option: true, Doc: "Walk the page tables to see what is in memory, without --pid too."},
}

// process is one that a view should look at.
type process struct {
	linux.Task
	pid int32
}

// wantedProcesses is the processes that where asks for, by their pid.
func wantedProcesses(ctx context.Context, l *guest.Look, where table.Request) iter.Seq2[process, error] {
	wanted, some := where.Values("pid")
	return func(yield func(process, error) bool) {
		for t, err := range tasks(ctx, l.Linux) {
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

// mapping is a row of maps.
type mapping struct {
	*linux.Mapping
	pid      int32
	resident *linux.Residency // nil if not wanted
	walkErr  error
	partly   error
}

// Unread is part of [table.Partial].
func (m *mapping) Unread() error { return m.partly }

// ofFile is a cell of the file behind a mapping.
func (m *mapping) ofFile(v table.Value) table.Value {
	return when(m.File != 0, readable(v, m.Err))
}

// present is a cell of what the page tables say.
func (m *mapping) present(bytes func(linux.Residency) uint64) table.Value {
	if m.resident == nil {
		return none
	}
	return readable(size(bytes(*m.resident)), m.walkErr)
}

func mappings(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*mapping, error] {
	_, chosen := r.Values("pid")
	resident := (chosen || r.Option("with_resident")) && r.Wants("resident", "swapped", "dirty")
	return func(yield func(*mapping, error) bool) {
		reader := l.Linux.NewProcessReader()
		for p, err := range wantedProcesses(ctx, l, r) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for m, err := range reader.Mappings(ctx, p.Task) {
				if err != nil {
					if !yield(nil, fmt.Errorf("process %d: %w", p.pid, err)) {
						return
					}
					continue
				}
				row := mapping{Mapping: m, pid: p.pid}
				if m.Err != nil {
					row.partly = fmt.Errorf("process %d: mapping at %#x: %w", p.pid, uint64(m.Start), m.Err)
				}
				if resident {
					r, err := l.Linux.Residency(m)
					if row.resident, row.walkErr = &r, err; err != nil {
						row.partly = fmt.Errorf("process %d: page tables of the mapping at %#x: %w", p.pid, uint64(m.Start), err)
					}
				}
				if !yield(&row, nil) {
					return
				}
			}
		}
	}
}
