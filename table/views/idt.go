package views

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "idt", Group: table.Internals, Monitor: true,
		Doc: `Show the interrupt descriptor table.

There is a line for every vector: what the CPUs do on an exception, an interrupt or
INT instruction. It is the table that the kernel loads; where the machine shows registers,
the tables that the CPUs really use have lines as well if they are others, with their
"cpu". A guest whose CPUs deliver events by FRED does not use this table.`,
		Source:  "idt_table, and the CPUs' IDT registers where the machine shows them",
		Key:     []string{"cpu", "vector"},
		Example: "lab:demo",
	}, idtColumns, gates))
}

func idtColumns() table.Columns[owned[gate]] {
	return slices.Concat(
		plain(table.Columns[gate]{
			{
				Name: "cpu", Type: table.Int, Extra: true, Doc: "CPU that uses this table; missing for the kernel's own table.",
				Get: func(e *gate) table.Value { return when(e.cpu >= 0, integer(e.cpu)) },
			},
			{Name: "vector", Type: table.Int, Doc: "Number of the exception or interrupt.", Get: func(e *gate) table.Value { return integer(e.Vector) }},
			{
				Name: "type", Type: table.Text, Doc: "interrupt, trap or task gate; a number for what is none of these.",
				Get: func(e *gate) table.Value { return table.TextValue(e.Type) },
			},
			{
				Name: "dpl", Type: table.Int, Doc: "Ring from which an INT instruction may call it: 3 for programs.",
				Get: func(e *gate) table.Value { return integer(e.DPL) },
			},
			{Name: "ist", Type: table.Int, Doc: "Stack that the CPU switches to; 0 for none.", Get: func(e *gate) table.Value { return integer(e.IST) }},
			{
				Name: "segment", Type: table.Addr, Doc: "Code segment selector: 0x10 is the kernel's.",
				Get: func(e *gate) table.Value { return table.AddrValue(uint64(e.Segment)) },
			},
			{Name: "present", Type: table.Bool, Doc: "Whether the gate is in use.", Get: func(e *gate) table.Value { return table.BoolValue(e.Present) }},
		}),
		code("handler", "the handler", func(e *gate) virt.Addr { return e.Handler }),
		plain(table.Columns[gate]{
			{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the gate.", Get: func(e *gate) table.Value { return address(e.Address) }},
		}),
	)
}

// gate is a gate of one table.
type gate struct {
	*hooks.Gate
	cpu int // -1: the kernel's own
}

// registers are those of the guest's processors, if its machine shows them.
func registers(ctx context.Context, l *guest.Look) []vm.Registers {
	if l.Machine == nil {
		return nil
	}
	reader := l.Machine.Control.Registers
	if reader == nil {
		return nil
	}
	all, err := reader.Registers(ctx)
	if err != nil {
		return nil
	}
	return all
}

func gates(ctx context.Context, l *guest.Look, _ table.Request) iter.Seq2[*owned[gate], error] {
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*gate, error] {
		return func(yield func(*gate, error) bool) {
			d, err := hooks.IDTDescriptor(s)
			if d.Base == 0 {
				yield(nil, err)
				return
			}
			if err == nil && !d.SameMemory {
				err = fmt.Errorf("idt_descr leads to %#x, which is not the kernel's idt_table at %#x: %w", uint64(d.Base), uint64(d.Table), kobj.ErrBroken)
			}
			if err != nil && !yield(nil, err) {
				return
			}
			one := func(base virt.Addr, cpu int) bool {
				for e, err := range hooks.Gates(ctx, s, base, d.Limit) {
					var row *gate
					if err == nil {
						row = &gate{e, cpu}
					}
					if !yield(row, err) {
						return false
					}
				}
				return true
			}
			if !one(d.Base, -1) {
				return
			}
			for _, r := range registers(ctx, l) {
				if base := virt.Addr(r.IDT); base != 0 && base != d.Base && base != d.Table && !one(base, r.CPU) {
					return
				}
			}
		}
	})
}
