package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "idt", Group: table.Machinery,
		Doc: `Show the interrupt descriptor table.

There is a line for every vector: what the processors do on an exception, an interrupt or
INT instruction. It is the table that the kernel loads; where the machine shows registers,
the tables that the processors really use have lines as well if they are others, with their
"cpu". A guest whose processors deliver events by FRED does not use this table.`,
		Columns: idtColumns,
		Rows:    idtRows,
		Example: "lab:demo",
	}))
}

var idtColumns = columns([]table.Column{
	{Name: "cpu", Type: table.Int, Extra: true, Doc: "Processor that uses this table; missing for the kernel's own table."},
	{Name: "vector", Type: table.Int, Doc: "Number of the exception or interrupt."},
	{Name: "type", Type: table.Text, Doc: "interrupt, trap or task gate; a number for what is none of these."},
	{Name: "dpl", Type: table.Int, Doc: "Ring from which an INT instruction may call it: 3 for programs."},
	{Name: "ist", Type: table.Int, Doc: "Stack that the processor switches to; 0 for none."},
	{Name: "segment", Type: table.Addr, Doc: "Code segment selector: 0x10 is the kernel's."},
	{Name: "present", Type: table.Bool, Doc: "Whether the gate is in use."},
}, functionColumns("handler", "the handler"), []table.Column{
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the gate."},
})

// gate is a gate of one table.
type gate struct {
	*linux.Gate
	cpu int // -1: the kernel's own
}

func idtRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return machineryOf(ctx, g, func(ctx context.Context) iter.Seq2[gate, error] {
		return func(yield func(gate, error) bool) {
			d, err := g.Linux.IDTDescriptor()
			if d.Base == 0 {
				yield(gate{}, err)
				return
			}
			if err == nil && !d.SameMemory {
				err = fmt.Errorf("idt_descr leads to %#x, which is not the kernel's idt_table at %#x: %w", uint64(d.Base), uint64(d.Table), kobj.ErrBroken)
			}
			if err != nil && !yield(gate{}, err) {
				return
			}
			one := func(base virt.Addr, cpu int) bool {
				for e, err := range g.Linux.Gates(ctx, base, d.Limit) {
					if !yield(gate{e, cpu}, err) {
						return false
					}
				}
				return true
			}
			if !one(d.Base, -1) {
				return
			}
			for _, r := range registers(ctx, g) {
				if base := virt.Addr(r.IDT); base != 0 && base != d.Base && base != d.Table && !one(base, r.CPU) {
					return
				}
			}
		}
	}, gateRow)
}

// registers are those of the guest's processors, if its machine shows them.
func registers(ctx context.Context, g *guest.Look) []vm.Registers {
	if g.Machine == nil {
		return nil
	}
	reader := g.Machine.Control.Registers
	if reader == nil {
		return nil
	}
	all, err := reader.Registers(ctx)
	if err != nil {
		return nil
	}
	return all
}

func gateRow(o *linux.Owners, e gate) table.Row {
	at, symbol, owner := function(o, e.Handler)
	cpu := table.Missing(table.None)
	if e.cpu >= 0 {
		cpu = table.IntValue(int64(e.cpu))
	}
	return table.Row{
		cpu, table.IntValue(int64(e.Vector)), table.TextValue(e.Type), table.IntValue(int64(e.DPL)),
		table.IntValue(int64(e.IST)), table.AddrValue(uint64(e.Segment)), table.BoolValue(e.Present),
		at, symbol, owner, address(e.Address),
	}
}
