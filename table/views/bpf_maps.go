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
		Name: "bpf_maps", Group: table.Machinery,
		Doc: `Show the maps of BPF programs of a guest.

The maps are those in the kernel's table of identifiers, which bpf(2) and bpftool
read. What is in them is not shown. Which programs use a map is in the column "maps"
of the view bpf. A map that was taken out of the table is not shown.`,
		Columns: bpfMapColumns,
		Rows:    bpfMapRows,
		Of:      heldBy,
		Example: "lab:demo",
	}))
}

var bpfMapColumns = []table.Column{
	{Name: "id", Type: table.Uint, Doc: "Identifier."},
	{Name: "type", Type: table.Text, Doc: "Type of map: hash, array, ringbuf and so on, as bpftool has it."},
	{Name: "name", Type: table.Text, Doc: "Name, at most 15 bytes that who made it chose; missing without one."},
	{Name: "key_size", Type: table.Size, Doc: "Size of a key in bytes."},
	{Name: "value_size", Type: table.Size, Doc: "Size of a value in bytes."},
	{Name: "max_entries", Type: table.Uint, Doc: "Most entries that it can hold; of a ring buffer, its size in bytes."},
	{Name: "flags", Type: table.Uint, Extra: true, Doc: "Flags that it was made with (BPF_F_…)."},
	{Name: "memory", Type: table.Size, Doc: "What as many entries take in bytes, computed, without the kernel's overhead."},
	{Name: "btf_id", Type: table.Uint, Extra: true, Doc: "Identifier of its type information; missing without."},
	{Name: "frozen", Type: table.Bool, Doc: "Whether user space can no longer change it."},
	{Name: "refs", Type: table.Int, Extra: true, Doc: "Number of references to it."},
	{Name: "user_refs", Type: table.Int, Extra: true, Doc: "Of those, descriptors and pins."},
	{Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor."},
	{Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system."},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_map."},
}

func bpfMapRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	wanted, some := where.Values("id")
	return func(yield func(table.Row, error) bool) {
		holders := lazyHolders(ctx, g.Linux, yield)
		for m, err := range g.Linux.BPFMaps(ctx) {
			if m == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !anyUint(wanted, uint64(m.ID)) {
				continue
			}
			h, more := holders()
			if !more {
				return
			}
			files, pins := held(h, m.Addr)
			row := table.Row{
				table.UintValue(uint64(m.ID)), table.TextValue(m.Type), text(m.Name),
				table.SizeValue(uint64(m.KeySize)), table.SizeValue(uint64(m.ValueSize)),
				table.UintValue(uint64(m.MaxEntries)), table.UintValue(uint64(m.Flags)), table.SizeValue(m.Memory),
				positive(m.BTF), table.BoolValue(m.Frozen), table.IntValue(m.Refs), table.IntValue(m.UserRefs),
				files, pins, address(m.Addr),
			}
			if !yield(row, err) {
				return
			}
		}
	}
}

// lazyHolders looks for the holders of BPF objects when they are first asked for,
// and yields what could not be read. more is false when the consumer wants no more.
func lazyHolders(ctx context.Context, s *linux.System, yield func(table.Row, error) bool) func() (h *linux.BPFHolders, more bool) {
	var h *linux.BPFHolders
	looked := false
	return func() (*linux.BPFHolders, bool) {
		if looked {
			return h, true
		}
		looked = true
		var err error
		if h, err = s.BPFHolders(ctx); err != nil {
			return nil, yield(nil, err)
		}
		for _, err := range h.Errs {
			if !yield(nil, err) {
				return h, false
			}
		}
		return h, true
	}
}
