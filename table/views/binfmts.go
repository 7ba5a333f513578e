package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "binfmts", Group: table.Internals,
		Doc: `Show what runs the executable files of a guest.

First come the handlers that exec asks one after the other whether a file is theirs: a hook
here sees every program that starts. Then come the interpreters that were registered with
binfmt_misc, each with the magic or the extension of the files that it runs; a flag C lets
one of them run with the rights of a set-user-ID file. Since 6.7 every user namespace can
have interpreters of its own; those of a namespace without any process are not found.`,
		Source:  "formats: struct linux_binfmt; binfmt_misc: the entries of each user namespace (Node)",
		Key:     []string{"kind", "name", "format"},
		Example: "lab:demo",
	}, binfmtsColumns, binaryFormats))
}

func binfmtsColumns() table.Columns[owned[binaryFormat]] {
	return slices.Concat(
		plain(table.Columns[binaryFormat]{
			{
				Name: "kind", Type: table.Text, Doc: "handler, or misc for an interpreter of binfmt_misc.",
				Get: func(b *binaryFormat) table.Value {
					if b.misc == nil {
						return table.TextValue("handler")
					}
					return table.TextValue("misc")
				},
			},
			{
				Name: "name", Type: table.Text, Doc: "Name of the interpreter's entry; missing for a handler.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return text(f.Name) })
				},
			},
			{
				Name: "enabled", Type: table.Bool, Doc: "Whether exec asks it: the entry is on, and so is binfmt_misc; missing for a handler.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return table.BoolValue(f.Active) })
				},
			},
			{
				Name: "interpreter", Type: table.Text, Doc: "Program that runs the files, or bpf and the BPF program that says which does; missing for a handler.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value {
						if f.Program != "" {
							return text("bpf " + f.Program)
						}
						return text(f.Interpreter)
					})
				},
			},
			{
				Name: "flags", Type: table.Text, Doc: "Of the entry: P keeps argv[0], O opens the file, C takes its credentials, F opened the interpreter when registered, T is transparent, L substitutes the loader, D was registered disabled; missing for none.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return text(f.Flags) })
				},
			},
			{
				Name: "extension", Type: table.Text, Doc: "What names of its files end in, behind the dot; missing where a magic identifies them.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return text(f.Extension) })
				},
			},
			{
				Name: "offset", Type: table.Int, Extra: true, Doc: "Where in the file the magic is, in bytes; missing without one.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return when(f.Extension == "", integer(f.Offset)) })
				},
			},
			{
				Name: "magic", Type: table.Bytes, Doc: "Bytes by which its files are known; missing where the extension identifies them.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value {
						return when(f.Extension == "", table.BytesValue(string(f.Magic)))
					})
				},
			},
			{
				Name: "mask", Type: table.Bytes, Extra: true, Doc: "Which bits of the magic count; missing where all do.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return when(len(f.Mask) > 0, table.BytesValue(string(f.Mask))) })
				},
			},
			{
				Name: "user_ns", Type: table.Uint, Extra: true, Doc: "User namespace of the entry; missing before 6.7, and for a handler.",
				Get: func(b *binaryFormat) table.Value {
					return b.entry(func(f *hooks.MiscFormat) table.Value { return positive(f.Namespace) })
				},
			},
			{
				Name: "format", Type: table.Addr, Extra: true, Doc: "Address of the struct linux_binfmt, or of the entry.",
				Get: func(b *binaryFormat) table.Value {
					if b.misc != nil {
						return address(b.misc.Addr)
					}
					return address(b.handler.Addr)
				},
			},
			{
				Name: "module", Type: table.Text, Doc: "Module that says the handler is its own; missing where it is built in.",
				Get: func(b *binaryFormat) table.Value { return text(b.handler.Module) },
			},
		}),
		code("load", "the handler's function that loads a program", func(b *binaryFormat) virt.Addr { return b.handler.Load }),
		code("core_dump", "the function that writes a core; missing if it has none", func(b *binaryFormat) virt.Addr { return b.handler.CoreDump }),
	)
}

// binaryFormat is a row of binfmts: a handler, or an interpreter of binfmt_misc.
type binaryFormat struct {
	handler hooks.BinaryFormat
	misc    *hooks.MiscFormat
}

// entry is a cell of an interpreter.
func (b *binaryFormat) entry(cell func(*hooks.MiscFormat) table.Value) table.Value {
	if b.misc == nil {
		return none
	}
	return cell(b.misc)
}

func binaryFormats(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*owned[binaryFormat], error] {
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*binaryFormat, error] {
		return func(yield func(*binaryFormat, error) bool) {
			for b, err := range hooks.BinaryFormats(ctx, s) {
				var row *binaryFormat
				if b != nil {
					row = &binaryFormat{handler: *b}
				}
				if !yield(row, err) {
					return
				}
			}
			for f, err := range hooks.MiscFormats(ctx, s) {
				var row *binaryFormat
				if f != nil {
					row = &binaryFormat{misc: f}
				}
				if !yield(row, err) {
					return
				}
			}
		}
	})
}
