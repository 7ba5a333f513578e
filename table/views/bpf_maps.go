package views

import (
	"context"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "bpf_maps", Group: table.Internals,
		Doc: `Show the maps of BPF programs of a guest.

The maps are those in the kernel's table of identifiers, which bpf(2) and bpftool
read. What is in them is not shown. Which programs use a map is in the column "maps"
of the view bpf. A map that was taken out of the table is not shown.`,
		Source:  "map_idr: struct bpf_map; file descriptors and bpffs for its holders",
		Key:     []string{"id"},
		Of:      heldBy,
		Example: "lab:demo",
	}, bpfMapColumns, bpfMaps))
}

var bpfMapColumns = table.Columns[bpfMap]{
	{Name: "id", Type: table.Uint, Doc: "Identifier.", Get: func(m *bpfMap) table.Value { return unsigned(m.ID) }},
	{
		Name: "type", Type: table.Text, Doc: "Type of map: hash, array, ringbuf and so on, as bpftool has it.",
		Get: func(m *bpfMap) table.Value { return table.TextValue(m.Type) },
	},
	{
		Name: "name", Type: table.Text, Doc: "Name, at most 15 bytes that who made it chose; missing without one.",
		Get: func(m *bpfMap) table.Value { return text(m.Name) },
	},
	{Name: "key_size", Type: table.Size, Doc: "Size of a key in bytes.", Get: func(m *bpfMap) table.Value { return size(m.KeySize) }},
	{Name: "value_size", Type: table.Size, Doc: "Size of a value in bytes.", Get: func(m *bpfMap) table.Value { return size(m.ValueSize) }},
	{
		Name: "max_entries", Type: table.Uint, Doc: "Most entries that it can hold; of a ring buffer, its size in bytes.",
		Get: func(m *bpfMap) table.Value { return unsigned(m.MaxEntries) },
	},
	{
		Name: "flags", Type: table.Uint, Extra: true, Doc: "Flags that it was made with (BPF_F_…).",
		Get: func(m *bpfMap) table.Value { return unsigned(m.Flags) },
	},
	{
		Name: "memory", Type: table.Size, Doc: "What as many entries take in bytes, computed, without the kernel's overhead.",
		Get: func(m *bpfMap) table.Value { return size(m.Memory) },
	},
	{
		Name: "btf_id", Type: table.Uint, Extra: true, Doc: "Identifier of its type information; missing without.",
		Get: func(m *bpfMap) table.Value { return positive(m.BTF) },
	},
	{
		Name: "frozen", Type: table.Bool, Doc: "Whether user space can no longer change it.",
		Get: func(m *bpfMap) table.Value { return table.BoolValue(m.Frozen) },
	},
	{Name: "refs", Type: table.Int, Extra: true, Doc: "Number of references to it.", Get: func(m *bpfMap) table.Value { return integer(m.Refs) }},
	{Name: "user_refs", Type: table.Int, Extra: true, Doc: "Of those, descriptors and pins.", Get: func(m *bpfMap) table.Value { return integer(m.UserRefs) }},
	{
		Name: "holders", Type: table.List, Doc: "File descriptors of it: process/descriptor.",
		Get: func(m *bpfMap) table.Value { return m.holders.files(m.Addr) },
	},
	{
		Name: "pinned", Type: table.List, Doc: "Paths under which it is pinned in a BPF file system.",
		Get: func(m *bpfMap) table.Value { return m.holders.pins(m.Addr) },
	},
	{Name: "address", Type: table.Addr, Extra: true, Doc: "Address of the struct bpf_map.", Get: func(m *bpfMap) table.Value { return address(m.Addr) }},
}

// bpfMap is a row of bpf_maps.
type bpfMap struct {
	*bpf.Map
	holders *bpfHolders
}

func bpfMaps(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*bpfMap, error] {
	wanted, some := r.Values("id")
	return func(yield func(*bpfMap, error) bool) {
		holders := newBPFHolders(ctx, l.Linux, r)
		for m, err := range bpf.Maps(ctx, l.Linux) {
			if m == nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !anyUint(wanted, uint64(m.ID)) {
				continue
			}
			if !holders.look(func(err error) bool { return yield(nil, err) }) || !yield(&bpfMap{m, holders}, err) {
				return
			}
		}
	}
}

// bpfHolders are the holders of BPF objects, looked for when the first object is met.
type bpfHolders struct {
	ctx     context.Context
	s       *linux.System
	wanted  bool
	looked  bool
	holders *bpf.Holders // nil if they cannot be read
}

func newBPFHolders(ctx context.Context, s *linux.System, r table.Request) *bpfHolders {
	return &bpfHolders{ctx: ctx, s: s, wanted: r.Wants("holders", "pinned")}
}

// look reads the holders, once and if they are wanted. failed gets what cannot be read; it
// returns false when the consumer wants no more, and so does look.
func (h *bpfHolders) look(failed func(error) bool) bool {
	if h.looked || !h.wanted {
		return true
	}
	h.looked = true
	var err error
	if h.holders, err = bpf.FindHolders(h.ctx, h.s); err != nil {
		h.holders = nil
		return failed(err)
	}
	for _, err := range h.holders.Errs {
		if !failed(err) {
			return false
		}
	}
	return true
}

// files is the cell holders of the object at a.
func (h *bpfHolders) files(a virt.Addr) table.Value {
	if h.holders == nil {
		return table.Missing(table.Unreadable)
	}
	list := make([]string, 0, len(h.holders.Files[a]))
	for _, f := range h.holders.Files[a] {
		list = append(list, f.String())
	}
	return table.ListValue(list)
}

// pins is the cell pinned of the object at a.
func (h *bpfHolders) pins(a virt.Addr) table.Value {
	if h.holders == nil {
		return table.Missing(table.Unreadable)
	}
	return table.ListValue(append([]string{}, h.holders.Pins[a]...))
}
