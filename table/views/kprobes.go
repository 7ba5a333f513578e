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
		Name: "kprobes", Group: table.Machinery,
		Doc: `Show the kernel's dynamic probes (kprobes and kretprobes).

There is a line for each one that was asked for, also where several share an instruction.
Probes of the perf and tracefs interfaces and of BPF programs are among them. Taken from the
kernel's table of probes: a breakpoint that someone wrote into the code without the
kernel's help is not there.`,
		Columns: kprobeColumns,
		Rows: func(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
			return machineryOf(ctx, g, g.Linux.Kprobes, kprobeRow)
		},
		Example: "lab:demo",
	}))
}

var kprobeColumns = columns(functionColumns("probed", "the probed instruction"), []table.Column{
	{Name: "return", Type: table.Bool, Doc: "Whether it is a kretprobe, which is also called when the function returns."},
	{Name: "disabled", Type: table.Bool, Doc: "Whether it is switched off."},
	{Name: "optimized", Type: table.Bool, Doc: "Whether a jump has replaced its breakpoint."},
	{Name: "ftrace", Type: table.Bool, Doc: "Whether it uses the function's ftrace call instead of a breakpoint."},
	{Name: "gone", Type: table.Bool, Doc: "Whether the module that was probed is gone."},
	{Name: "missed", Type: table.Uint, Extra: true, Doc: "How often it was not called, for it was reached while another ran."},
	{Name: "asked_for", Type: table.Text, Extra: true, Doc: "Symbol by which it was asked for; missing if by address."},
	{Name: "shared", Type: table.Bool, Extra: true, Doc: "Whether it stands behind a common probe, as those do that share an instruction or could become a jump."},
}, functionColumns("pre", "the function called before the instruction"),
	functionColumns("post", "the function called after it"),
	functionColumns("handler", "the function a kretprobe calls on return"),
	functionColumns("entry", "the function a kretprobe calls on entry"),
	[]table.Column{
		{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct kprobe."},
	})

func kprobeRow(o *linux.Owners, p *linux.Kprobe) table.Row {
	is := func(flag string) table.Value { return table.BoolValue(slices.Contains(p.Flags, flag)) }
	row := functions(o, p.Probed)
	row = append(row, table.BoolValue(p.Return), is("disabled"), is("optimized"), is("ftrace"), is("gone"),
		table.UintValue(p.Missed), text(p.Symbol), table.BoolValue(p.Shared))
	return append(append(row, functions(o, p.Pre, p.Post, p.Handler, p.Entry)...), address(p.Addr))
}
