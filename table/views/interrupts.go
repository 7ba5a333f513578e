package views

import (
	"context"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "interrupts", Group: table.Internals,
		Doc: `Show the interrupt lines of a guest and the kernel's software interrupts, with who handles them.

There is a line for every driver that takes part in an interrupt, and one without a handler
for an interrupt that is not handled. Interrupts that CPUs send each other, and those
of their own timers, have no such line; "outsight idt" shows where all of them begin.`,
		Source:  "irq_desc (sparse_irqs or irq_desc_tree), irqaction, kstat_irqs of every CPU; softirq_vec",
		Key:     []string{"kind", "number", "address"},
		Example: "lab:demo",
	}, interruptsColumns, withOwners(interruptLines)))
}

func interruptsColumns() table.Columns[owned[line]] {
	return slices.Concat(
		plain(table.Columns[line]{
			{
				Name: "kind", Type: table.Text, Doc: "irq, or softirq for a software interrupt.",
				Get: func(i *line) table.Value {
					if i.Soft {
						return table.TextValue("softirq")
					}
					return table.TextValue("irq")
				},
			},
			{
				Name: "number", Type: table.Int, Doc: "As in /proc/interrupts; of a software interrupt, its rank.",
				Get: func(i *line) table.Value { return integer(i.Number) },
			},
			{Name: "count", Type: table.Uint, Doc: "How often it came, on all CPUs together.", Get: (*line).count},
			{
				Name: "counts", Type: table.Numbers, Extra: true, Doc: "The same for each possible CPU.",
				Get: func(i *line) table.Value { return table.NumbersValue(i.Counts) },
			},
			{Name: "chip", Type: table.Text, Doc: "Controller that it comes from.", Get: func(i *line) table.Value { return text(i.Chip) }},
			{
				Name: "hardware", Type: table.Uint, Extra: true, Doc: "Its number at the controller.",
				Get: func(i *line) table.Value { return when(!i.Soft, unsigned(i.Hardware)) },
			},
			{Name: "trigger", Type: table.Text, Doc: "How it is handled: edge, level (fasteoi) and the like.", Get: func(i *line) table.Value { return text(i.Flow) }},
			{
				Name: "disabled", Type: table.Bool, Extra: true, Doc: "Whether it is switched off.",
				Get: func(i *line) table.Value { return when(!i.Soft, table.BoolValue(i.Depth > 0)) },
			},
			{Name: "name", Type: table.Text, Doc: "What the driver calls it.", Get: func(i *line) table.Value { return text(i.action.Name) }},
			{
				Name: "shared", Type: table.Bool, Extra: true, Doc: "Whether the driver lets others take part.",
				Get: func(i *line) table.Value { return when(!i.Soft, table.BoolValue(i.action.Shared)) },
			},
		}),
		code("handler", "the handler", func(i *line) virt.Addr { return i.action.Handler }),
		code("thread", "the function that a thread of the driver's own runs", func(i *line) virt.Addr { return i.action.Thread }),
		plain(table.Columns[line]{
			{
				Name: "thread_tid", Type: table.Int, Extra: true, Doc: "That thread.",
				Get: func(i *line) table.Value { return when(i.action.TID != 0, integer(i.action.TID)) },
			},
		}),
		code("flow", "the function that receives the interrupt and calls the handlers", func(i *line) virt.Addr { return i.FlowFunc }),
		plain(table.Columns[line]{
			{
				Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the irqaction, or else of the irq_desc or softirq_action.",
				Get: func(i *line) table.Value { return address(i.action.Address) },
			},
		}),
	)
}

// line is one driver's part in an interrupt.
type line struct {
	*sched.Interrupt
	action sched.InterruptAction
}

func (i *line) count() table.Value {
	var count uint64
	for _, n := range i.Counts {
		count += n
	}
	return table.UintValue(count)
}

func interruptLines(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*line, error] {
	return func(yield func(*line, error) bool) {
		for i, err := range sched.Interrupts(ctx, s) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if len(i.Actions) == 0 && !yield(&line{i, sched.InterruptAction{Address: i.Address}}, nil) {
				return
			}
			for _, a := range i.Actions {
				if !yield(&line{i, a}, nil) {
					return
				}
			}
		}
	}
}
