package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// BPFMap is a map of BPF programs.
type BPFMap struct {
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

type bpfMapLayout struct {
	typ, key, value, entries, flags, id, name, frozen, refs, users, btf, btfID Field
}

func (s *System) bpfMapLayout() (*bpfMapLayout, error) {
	return layoutOf(s.Walker, "BPF maps", func(r *resolver, o *bpfMapLayout) {
		const m = "bpf_map"
		r.symbols("map_idr")
		o.typ, o.key, o.value = r.field(m, "map_type"), r.field(m, "key_size"), r.field(m, "value_size")
		o.entries, o.flags, o.id = r.field(m, "max_entries"), r.field(m, "map_flags"), r.field(m, "id")
		o.name, o.frozen = r.field(m, "name"), r.optional(m, "frozen") // 5.2
		o.refs, o.users = r.field(m, "refcnt"), r.field(m, "usercnt")
		o.btf, o.btfID = r.optional(m, "btf"), r.optional("btf", "id")
	})
}

// BPFMaps yields the BPF maps in order of identifier: those that bpf(2) lists.
func (s *System) BPFMaps(ctx context.Context) iter.Seq2[*BPFMap, error] {
	return func(yield func(*BPFMap, error) bool) {
		o, err := s.bpfMapLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.reader()
		for e, err := range s.bpfIDs(ctx, "map_idr") {
			var m *BPFMap
			if err == nil {
				m, err = o.read(s, &r, e.value)
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (o *bpfMapLayout) read(s *System, r *reader, a virt.Addr) (_ *BPFMap, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r.err = nil
	num := func(f Field) uint32 { return uint32(r.num(a, f)) }
	kind := r.num(a, o.typ)
	m := &BPFMap{
		Addr: a, ID: num(o.id), Type: bpfName(bpfMapTypes[:], kind),
		KeySize: num(o.key), ValueSize: num(o.value), MaxEntries: num(o.entries), Flags: num(o.flags),
		Frozen: num(o.frozen) != 0, Refs: r.signed(a, o.refs), UserRefs: r.signed(a, o.users),
	}
	m.Name = cString(r.bytes(at(a, o.name), int(min(o.name.Size, 64))))
	if b := r.pointer(a, o.btf); b != 0 {
		m.BTF = uint32(r.num(b, o.btfID))
	}
	m.Memory = bpfMapMemory(kind, m, uint64(len(s.cpus)))
	if r.err != nil {
		return nil, fmt.Errorf("BPF map at %#x: %w", uint64(a), r.err)
	}
	return m, nil
}

// bpfMapMemory is what the entries of a map take at most, as the kernel estimated
// it up to 6.3 (bpf_map_memory_footprint).
func bpfMapMemory(kind uint64, m *BPFMap, cpus uint64) uint64 {
	key, value := uint64(m.KeySize), (uint64(m.ValueSize)+7)&^7
	switch bpfName(bpfMapTypes[:], kind) {
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
