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
		Name: "interrupts", Group: table.Machinery,
		Doc: `Show the interrupt lines of a guest and the kernel's software interrupts, with who handles them.

There is a line for every driver that takes part in an interrupt, and one without a handler
for an interrupt that nobody handles. Interrupts that processors send each other, and those
of their own timers, have no such line; "outsight idt" shows where all of them begin.`,
		Columns: columns([]table.Column{
			{Name: "kind", Type: table.Text, Doc: "irq, or softirq for a software interrupt."},
			{Name: "number", Type: table.Int, Doc: "As in /proc/interrupts; of a software interrupt, its rank."},
			{Name: "count", Type: table.Uint, Doc: "How often it came, on all processors together."},
			{Name: "counts", Type: table.Numbers, Extra: true, Doc: "The same for each possible processor."},
			{Name: "chip", Type: table.Text, Doc: "Controller that it comes from."},
			{Name: "hardware", Type: table.Uint, Extra: true, Doc: "Its number at the controller."},
			{Name: "trigger", Type: table.Text, Doc: "How it is handled: edge, level (fasteoi) and the like."},
			{Name: "disabled", Type: table.Bool, Extra: true, Doc: "Whether it is switched off."},
			{Name: "name", Type: table.Text, Doc: "What the driver calls it."},
			{Name: "shared", Type: table.Bool, Extra: true, Doc: "Whether the driver lets others take part."},
		}, functionColumns("handler", "the handler"), functionColumns("thread", "the function that a thread of the driver's own runs"), []table.Column{
			{Name: "thread_tid", Type: table.Int, Extra: true, Doc: "That thread."},
		}, functionColumns("flow", "the function that receives the interrupt and calls the handlers"), []table.Column{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the irqaction, or else of the irq_desc or softirq_action."},
		}),
		Rows:    interruptRows,
		Example: "lab:demo",
	}))
}

func interruptRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return machinery(g, func(*linux.Owners) iter.Seq2[line, error] {
		return func(yield func(line, error) bool) {
			for i, err := range g.Linux.Interrupts(ctx) {
				if err != nil {
					if !yield(line{}, err) {
						return
					}
					continue
				}
				if len(i.Actions) == 0 && !yield(line{i, linux.InterruptAction{Address: i.Address}}, nil) {
					return
				}
				for _, a := range i.Actions {
					if !yield(line{i, a}, nil) {
						return
					}
				}
			}
		}
	}, interruptRow)
}

// line is one driver's part in an interrupt.
type line struct {
	*linux.Interrupt
	action linux.InterruptAction
}

func interruptRow(o *linux.Owners, i line) table.Row {
	kind := "irq"
	hardware, disabled, shared, tid := table.UintValue(i.Hardware), table.BoolValue(i.Depth > 0), table.BoolValue(i.action.Shared), table.Missing(table.None)
	if i.Soft {
		kind = "softirq"
		hardware, disabled, shared = table.Missing(table.None), table.Missing(table.None), table.Missing(table.None)
	}
	if i.action.TID != 0 {
		tid = table.IntValue(int64(i.action.TID))
	}
	var count uint64
	for _, n := range i.Counts {
		count += n
	}
	row := table.Row{
		table.TextValue(kind), table.IntValue(int64(i.Number)), table.UintValue(count), table.NumbersValue(i.Counts),
		text(i.Chip), hardware, text(i.Flow), disabled, text(i.action.Name), shared,
	}
	row = append(row, functions(o, i.action.Handler, i.action.Thread)...)
	row = append(row, tid)
	row = append(row, functions(o, i.FlowFunc)...)
	return append(row, address(i.action.Address))
}
