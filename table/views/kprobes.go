package views

import (
	"slices"

	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "kprobes", Group: table.Internals,
		Doc: `Show the kernel's dynamic probes (kprobes and kretprobes).

There is a line for each one that was asked for, also where several share an instruction.
Probes of the perf and tracefs interfaces and of BPF programs are among them. Taken from the
kernel's table of probes: a breakpoint that someone wrote into the code without the
kernel's help is not there.`,
		Source:  "kprobe_table: struct kprobe, kretprobe, optimized_kprobe",
		Key:     []string{"address"},
		Example: "lab:demo",
	}, kprobeColumns, each(of(hooks.Kprobes))))
}

func kprobeColumns() table.Columns[owned[hooks.Kprobe]] {
	return slices.Concat(
		code("probed", "the probed instruction", func(p *hooks.Kprobe) virt.Addr { return p.Probed }),
		plain(table.Columns[hooks.Kprobe]{
			{
				Name: "return", Type: table.Bool, Doc: "Whether it is a kretprobe, which is also called when the function returns.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(p.Return) },
			},
			{
				Name: "disabled", Type: table.Bool, Doc: "Whether it is switched off.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(slices.Contains(p.Flags, "disabled")) },
			},
			{
				Name: "optimized", Type: table.Bool, Doc: "Whether a jump has replaced its breakpoint.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(slices.Contains(p.Flags, "optimized")) },
			},
			{
				Name: "ftrace", Type: table.Bool, Doc: "Whether it uses the function's ftrace call instead of a breakpoint.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(slices.Contains(p.Flags, "ftrace")) },
			},
			{
				Name: "gone", Type: table.Bool, Doc: "Whether the module that was probed is gone.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(slices.Contains(p.Flags, "gone")) },
			},
			{
				Name: "missed", Type: table.Uint, Extra: true, Doc: "How often it was not called, for it was reached while another ran.",
				Get: func(p *hooks.Kprobe) table.Value { return unsigned(p.Missed) },
			},
			{
				Name: "asked_for", Type: table.Text, Extra: true, Doc: "Symbol by which it was asked for; missing if by address.",
				Get: func(p *hooks.Kprobe) table.Value { return text(p.Symbol) },
			},
			{
				Name: "shared", Type: table.Bool, Extra: true, Doc: "Whether it stands behind a common probe, as those do that share an instruction or could become a jump.",
				Get: func(p *hooks.Kprobe) table.Value { return table.BoolValue(p.Shared) },
			},
		}),
		code("pre", "the function called before the instruction", func(p *hooks.Kprobe) virt.Addr { return p.Pre }),
		code("post", "the function called after it", func(p *hooks.Kprobe) virt.Addr { return p.Post }),
		code("handler", "the function a kretprobe calls on return", func(p *hooks.Kprobe) virt.Addr { return p.Handler }),
		code("entry", "the function a kretprobe calls on entry", func(p *hooks.Kprobe) virt.Addr { return p.Entry }),
		plain(table.Columns[hooks.Kprobe]{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct kprobe.", Get: func(p *hooks.Kprobe) table.Value { return address(p.Addr) }},
		}),
	)
}
