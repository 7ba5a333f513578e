package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "elfs", Group: table.Files,
		Doc: `Show the ELF images in the memory of processes.

Every page that a process' page tables have in place is looked at, so that an image is
found whether a file is behind it or not, and whether the kernel's list of mappings has it
or not: a program that was loaded by hand, without a file, has its header there unless it
was wiped. What a mapped file has not in place is read from the page cache. Of files with
code that are mapped the first page may be missing there too (not read yet, or dropped), or
swapped out: they have a row without what the header would say. An image whose header does not begin a page, or says that it is of no type, is not found.`,
		Source:  "the page tables of processes and the pages that begin an ELF image; vm_area_struct, and the page cache of mapped files",
		Key:     []string{"pid", "start"},
		Example: "lab:demo --pid 1",
	}, elvesColumns, elfImages))
}

var elvesColumns = table.Columns[elfImage]{
	{Name: "pid", Type: table.Int, Doc: "Process, as numbered in the initial PID namespace.", Get: func(i *elfImage) table.Value { return integer(i.pid) }},
	{Name: "comm", Type: table.Text, Doc: "Name of the process.", Get: func(i *elfImage) table.Value { return table.TextValue(i.comm) }},
	{Name: "start", Type: table.Addr, Doc: "Where the header is.", Get: func(i *elfImage) table.Value { return table.AddrValue(uint64(i.Start)) }},
	{
		Name: "end", Type: table.Addr, Doc: "End of the mappings of its file, or of the mapping that the header is in.",
		Get: func(i *elfImage) table.Value { return table.AddrValue(uint64(i.End)) },
	},
	{
		Name: "perms", Type: table.Text, Extra: true, Doc: "Permissions of the mapping that the header is in; missing where the kernel has no mapping there.",
		Get: func(i *elfImage) table.Value {
			if i.Mapping == nil {
				return none
			}
			return table.TextValue(i.Mapping.Perms())
		},
	},
	{
		Name: "path", Type: table.Text, Doc: "File, or what the kernel calls the memory; missing for other anonymous memory.",
		Get: func(i *elfImage) table.Value {
			if i.Mapping == nil {
				return none
			}
			return readable(text(i.Mapping.Path), i.Mapping.Err)
		},
	},
	{
		Name: "backed", Type: table.Bool, Doc: "Whether a file is behind it.",
		Get: func(i *elfImage) table.Value { return table.BoolValue(i.Mapping != nil && i.Mapping.File != 0) },
	},
	{
		Name: "deleted", Type: table.Bool, Extra: true, Doc: "Whether that file was unlinked since, or never had a name (memfd); missing without a file.",
		Get: func(i *elfImage) table.Value {
			if i.Mapping == nil || i.Mapping.File == 0 {
				return none
			}
			return table.BoolValue(i.Mapping.Deleted)
		},
	},
	{
		Name: "class", Type: table.Int, Extra: true, Doc: "32 or 64 bits.",
		Get: func(i *elfImage) table.Value {
			return i.header(func(h *image.Header) table.Value {
				return table.IntValue(map[bool]int64{true: 64, false: 32}[h.Class == 2])
			})
		},
	},
	{
		Name: "type", Type: table.Text, Doc: "EXEC, DYN (also most programs), REL, CORE; LOOS+N and LOPROC+N are of an operating system and a processor, others are numbers; missing where the header is not in memory.",
		Get: func(i *elfImage) table.Value {
			return i.header(func(h *image.Header) table.Value {
				return table.TextValue(h.TypeName())
			})
		},
	},
	{
		Name: "machine", Type: table.Text, Extra: true, Doc: "CPU that it is for, as ELF calls it.",
		Get: func(i *elfImage) table.Value {
			return i.header(func(h *image.Header) table.Value {
				return table.TextValue(h.MachineName())
			})
		},
	},
	{
		Name: "entry", Type: table.Addr, Extra: true, Doc: "Address of the first instruction; of a DYN, from its start.",
		Get: func(i *elfImage) table.Value {
			return i.header(func(h *image.Header) table.Value { return table.AddrValue(h.Entry) })
		},
	},
	{
		Name: "build_id", Type: table.Text, Doc: "Identifier of the build; missing where it has none, or none in memory.",
		Get: func(i *elfImage) table.Value {
			return i.header(func(h *image.Header) table.Value { return readable(text(h.BuildID), i.Err) })
		},
	},
}

// elfImage is a row of the view.
type elfImage struct {
	*image.Image
	pid  int32
	comm string
}

// header is a cell of what the header says.
func (i *elfImage) header(cell func(*image.Header) table.Value) table.Value {
	if i.Header == nil {
		return unreadable(i.Err)
	}
	return cell(i.Header)
}

func elfImages(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*elfImage, error] {
	return func(yield func(*elfImage, error) bool) {
		reader, images := l.Linux.NewProcessReader(), image.NewReader(l.Linux)
		for t, err := range chosenByName(ctx, l, reader, r) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for i, err := range images.Images(ctx, t.Task) {
				if i == nil {
					if !yield(nil, ended(fmt.Errorf("process %d: %w", t.pid, err))) {
						return
					}
					continue
				}
				// An error beside an image is of a page that is not in place: its cells say so.
				if !yield(&elfImage{i, t.pid, t.comm}, nil) {
					return
				}
			}
		}
	}
}
