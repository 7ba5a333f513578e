package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "binfmts", Group: table.Machinery,
		Doc: `Show what runs the executable files of a guest.

First come the handlers that exec asks one after the other whether a file is theirs: a hook
here sees every program that starts. Then come the interpreters that were registered with
binfmt_misc, each with the magic or the extension of the files that it runs; a flag C lets
one of them run with the rights of a set-user-ID file. Since 6.7 every user namespace can
have interpreters of its own; those of a namespace without any process are not found.`,
		Columns: binfmtsColumns,
		Rows:    binfmtsRows,
		Example: "lab:demo",
	}))
}

var binfmtsColumns = slices.Concat([]table.Column{
	{Name: "kind", Type: table.Text, Doc: "handler, or misc for an interpreter of binfmt_misc."},
	{Name: "name", Type: table.Text, Doc: "Name of the interpreter's entry; missing for a handler."},
	{Name: "enabled", Type: table.Bool, Doc: "Whether exec asks it: the entry is on, and so is binfmt_misc; missing for a handler."},
	{Name: "interpreter", Type: table.Text, Doc: "Program that runs the files; missing for a handler."},
	{Name: "flags", Type: table.Text, Doc: "Of the entry: P keeps argv[0], O opens the file, C takes its credentials, F opened the interpreter when registered; missing for none."},
	{Name: "extension", Type: table.Text, Doc: "What names of its files end in, behind the dot; missing where a magic tells."},
	{Name: "offset", Type: table.Int, Extra: true, Doc: "Where in the file the magic is, in bytes; missing without one."},
	{Name: "magic", Type: table.Bytes, Doc: "Bytes by which its files are known; missing where the extension tells."},
	{Name: "mask", Type: table.Bytes, Extra: true, Doc: "Which bits of the magic count; missing where all do."},
	{Name: "user_ns", Type: table.Uint, Extra: true, Doc: "User namespace of the entry; missing before 6.7, and for a handler."},
	{Name: "format", Type: table.Addr, Extra: true, Doc: "Address of the struct linux_binfmt, or of the entry."},
	{Name: "module", Type: table.Text, Doc: "Module that says the handler is its own; missing where it is built in."},
}, functionColumns("load", "the handler's function that loads a program"), functionColumns("core_dump", "the function that writes a core; missing if it has none"))

func binfmtsRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for b, err := range g.Linux.BinaryFormats(ctx) {
			var row table.Row
			if b != nil {
				row = make(table.Row, 12, len(binfmtsColumns))
				row[0], row[10], row[11] = table.TextValue("handler"), table.AddrValue(uint64(b.Addr)), text(b.Module)
				row = append(row, functions(owners, b.Load, b.CoreDump)...)
			}
			if !yield(row, err) {
				return
			}
		}
		for f, err := range g.Linux.MiscFormats(ctx) {
			var row table.Row
			if f != nil {
				row = miscRow(f)
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

func miscRow(f *linux.MiscFormat) table.Row {
	row := make(table.Row, len(binfmtsColumns))
	row[0], row[1], row[2] = table.TextValue("misc"), text(f.Name), table.BoolValue(f.Active)
	row[3], row[4], row[5] = text(f.Interpreter), text(f.Flags), text(f.Extension)
	if f.Extension == "" {
		row[6], row[7] = table.IntValue(int64(f.Offset)), table.BytesValue(string(f.Magic))
	}
	if len(f.Mask) > 0 {
		row[8] = table.BytesValue(string(f.Mask))
	}
	if f.Namespace != 0 {
		row[9] = table.UintValue(f.Namespace)
	}
	row[10] = table.AddrValue(uint64(f.Addr))
	return row
}
