package bpf

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Map is a map of BPF programs.
type Map struct {
	Addr       virt.Addr // of the struct bpf_map
	ID         uint32
	Type       string // "hash", "array" …
	Name       string // at most 15 bytes
	KeySize    uint32 // in bytes
	ValueSize  uint32 // in bytes
	MaxEntries uint32
	Flags      uint32 // BPF_F_…, as given to bpf(2)
	Memory     uint64 // its entries take at most, in bytes; without the kernel's overhead
	BTF        uint32 // identifier of its type information; 0 without
	Frozen     bool   // user space can no longer write it
	Refs       int64
	UserRefs   int64 // of those, held by file descriptors and pins
}

type mapLayout struct {
	typ, key, value, entries, flags, id, name, frozen, refs, users, btf, btfID kobj.Field
}

func mapLayoutOf(s *linux.System) (*mapLayout, error) {
	return kobj.LayoutOf(s.Walker, "BPF maps", func(r *kobj.Resolver, o *mapLayout) {
		const m = "bpf_map"
		r.Prefetch("map_idr")
		o.typ, o.key, o.value = r.Field(m, "map_type"), r.Field(m, "key_size"), r.Field(m, "value_size")
		o.entries, o.flags, o.id = r.Field(m, "max_entries"), r.Field(m, "map_flags"), r.Field(m, "id")
		o.name, o.frozen = r.Field(m, "name"), r.Optional(m, "frozen") // 5.2
		o.refs, o.users = r.Field(m, "refcnt"), r.Field(m, "usercnt")
		o.btf, o.btfID = r.Optional(m, "btf"), r.Optional("btf", "id")
	})
}

// Maps yields the BPF maps in order of identifier: those that bpf(2) lists.
func Maps(ctx context.Context, s *linux.System) iter.Seq2[*Map, error] {
	return func(yield func(*Map, error) bool) {
		o, err := mapLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.Reader()
		for e, err := range objects(ctx, s, "map_idr") {
			var m *Map
			if err == nil {
				m, err = o.read(s, &r, e.Value)
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (o *mapLayout) read(s *linux.System, r *kobj.Reader, a virt.Addr) (_ *Map, err error) {
	r.Err = nil
	num := func(f kobj.Field) uint32 { return uint32(r.Uint(a, f)) }
	kind := r.Uint(a, o.typ)
	m := &Map{
		Addr: a, ID: num(o.id), Type: kobj.EnumName(mapTypes[:], kind),
		KeySize: num(o.key), ValueSize: num(o.value), MaxEntries: num(o.entries), Flags: num(o.flags),
		Frozen: num(o.frozen) != 0, Refs: r.Int(a, o.refs), UserRefs: r.Int(a, o.users),
	}
	m.Name = kobj.CString(r.Bytes(o.name.At(a), int(min(o.name.Size, 64))))
	if b := r.Pointer(a, o.btf); b != 0 {
		m.BTF = uint32(r.Uint(b, o.btfID))
	}
	m.Memory = mapMemory(kind, m, uint64(len(s.CPUAreas)))
	if r.Err != nil {
		return nil, fmt.Errorf("BPF map at %#x: %w", uint64(a), r.Err)
	}
	return m, nil
}

// mapMemory is what the entries of a map take at most, as the kernel estimated
// it up to 6.3 (bpf_map_memory_footprint).
func mapMemory(kind uint64, m *Map, cpus uint64) uint64 {
	key, value := uint64(m.KeySize), (uint64(m.ValueSize)+7)&^7
	switch kobj.EnumName(mapTypes[:], kind) {
	case "percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage":
		value *= cpus
	case "ringbuf", "user_ringbuf":
		return uint64(m.MaxEntries)
	case "arena":
		return uint64(m.MaxEntries) * phys.PageSize
	case "array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "struct_ops", "insn_array":
		key = 0 // is the index
	}
	return uint64(m.MaxEntries) * ((key + value + 7) &^ 7)
}
