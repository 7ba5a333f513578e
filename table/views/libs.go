package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "libs", Group: table.Files,
		Doc: `Show the libraries that processes have mapped.

A row is a file that a process has mapped, with code in it: its program, the loader and
its shared libraries. They are known by the mappings that the kernel keeps, not by the list
of the guest's own loader, which a process can change. Code in memory without a file, and
files of which no part is executable, are not shown: "outsight elfs" and "outsight maps"
do that.`,
		Source:  "mm_struct.mm_mt or mmap: vm_area_struct, struct file",
		Key:     []string{"pid", "base"},
		Example: "lab:demo --pid 1",
	}, libsColumns, libraries))
}

var libsColumns = table.Columns[library]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(i *library) table.Value { return integer(i.pid) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the process.", Get: func(i *library) table.Value { return table.TextValue(i.comm) }},
	{Name: "base", Type: table.Addr, Doc: "Where its first mapping begins.", Get: func(i *library) table.Value { return table.AddrValue(uint64(i.Start)) }},
	{
		Name: "size", Type: table.Size, Doc: "Bytes from there to the end of its last mapping, gaps included; memory behind that is not the file's.",
		Get: func(i *library) table.Value { return size(i.End - i.Start) },
	},
	{Name: "path", Type: table.Text, Doc: "File, in its mount namespace.", Get: func(i *library) table.Value { return readable(text(i.Path), i.Err) }},
	{
		Name: "deleted", Type: table.Bool, Doc: "Whether the file was unlinked since, or never had a name.",
		Get: func(i *library) table.Value { return table.BoolValue(i.Deleted) },
	},
	{
		Name: "program", Type: table.Bool, Extra: true, Doc: "Whether it is the program that the process was started from.",
		Get: func(i *library) table.Value { return table.BoolValue(i.Program) },
	},
	{
		Name: "device", Type: table.Text, Extra: true, Doc: "Device of its file system, major:minor.",
		Get: func(i *library) table.Value { return table.TextValue(i.Device.String()) },
	},
	{Name: "inode", Type: table.Uint, Extra: true, Doc: "Its inode.", Get: func(i *library) table.Value { return unsigned(i.Inode) }},
}

// library is a row of libs.
type library struct {
	*linux.MappedImage
	pid  int32
	comm string
}

func libraries(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*library, error] {
	return func(yield func(*library, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range chosenByName(ctx, l, reader, r) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, err := range reader.Images(ctx, t.Task) {
				if err != nil {
					err = ended(fmt.Errorf("process %d: %w", t.pid, err))
				}
				var row *library
				if i != nil {
					row = &library{i, t.pid, t.comm}
				}
				if !yield(row, err) {
					return
				}
			}
		}
	}
}
