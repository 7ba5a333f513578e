package netfilter

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Object is an object of nf_tables that rules name: a counter, a quota, a limit, a
// helper; or a flowtable.
type Object struct {
	Table *Table
	Addr  virt.Addr // of the struct nft_object or nft_flowtable
	Kind  string    // in nft's words: "counter", "quota", "ct helper", "flowtable"
	Name  string
	// Text is what nft lists of a quota, a limit or a count of connections, without what
	// was used of it; empty for others.
	Text           string
	Counted        bool // a counter
	Packets, Bytes uint64
	// Of a flowtable:
	Hook     string
	Priority int32
	Devices  []string

	Handle uint64
	Refs   uint64 // rules and elements that use it
}

// nftObjectKinds are the kinds by number (NFT_OBJECT_… of uapi/linux/netfilter/nf_tables.h),
// and how those are decoded that expressions of a rule's own have too.
var nftObjectKinds = map[uint64]struct {
	name   string
	decode func(nftExpr) bool
}{
	1: {"counter", nftCounter}, 2: {"quota", nftQuota}, 3: {"ct helper", nil}, 4: {"limit", nftLimitObject}, 5: {"ct count", nftConnlimit}, 6: {"tunnel", nil},
	7: {"ct timeout", nil}, 8: {"secmark", nil}, 9: {"ct expectation", nil}, 10: {"synproxy", nil},
}

// nftLimitObject has its bytes or packets told by the operations, as the rule's own.
func nftLimitObject(x nftExpr) bool {
	if strings.Contains(x.kind.ops, "bytes") {
		return nftLimitBytes(x)
	}
	return nftLimit(x)
}

const (
	maxNFTObjects = 1 << 16
	nftFlowtable  = "flowtable"
)

type nftObjectLayout struct {
	list, name, genmask, use, handle, ops, data kobj.Field // struct nft_object
	opsType, number, owner                      kobj.Field // its operations and type
	fList, fName, fGenmask, fUse, fHandle       kobj.Field // struct nft_flowtable
	fHook, fPriority, fHooks                    kobj.Field
	flowtables                                  kobj.Field // of struct nft_table
}

func nftObjectLayoutOf(s *linux.System) (*nftObjectLayout, error) {
	return linux.LayoutIn(s, nftModule, "objects of nf_tables", func(r *kobj.Resolver, o *nftObjectLayout) {
		const b, f = "nft_object", "nft_flowtable"
		o.list, o.name, o.genmask, o.use = r.Field(b, "list"), r.Field(b, "key.name"), r.Field(b, "genmask"), r.Field(b, "use")
		o.handle, o.ops, o.data = r.Field(b, "handle"), r.Field(b, "ops"), r.Field(b, "data")
		o.opsType, o.number, o.owner = r.Field("nft_object_ops", "type"), r.Field("nft_object_type", "type"), r.Field("nft_object_type", "owner")
		o.fList, o.fName, o.fGenmask, o.fUse = r.Field(f, "list"), r.Field(f, "name"), r.Field(f, "genmask"), r.Field(f, "use")
		o.fHandle, o.fHook, o.fPriority, o.fHooks = r.Field(f, "handle"), r.Field(f, "hooknum"), r.Field(f, "data.priority"), r.Field(f, "hook_list")
		o.flowtables = r.Field("nft_table", "flowtables")
	})
}

// Objects yields the objects and flowtables of all tables of nf_tables.
func Objects(ctx context.Context, s *linux.System) iter.Seq2[*Object, error] {
	return func(yield func(*Object, error) bool) {
		w := newNFTWalk(s)
		w.tables(ctx, func(t *Table, gen uint, err error) bool {
			if err != nil {
				return yield(nil, err)
			}
			o, err := nftObjectLayoutOf(s)
			if err != nil {
				return yield(nil, err)
			}
			return w.objects(ctx, t, w.o.tObjects.At(t.Addr), o.list, o.genmask, gen, func(a virt.Addr) *Object { return w.object(o, t, a) }, yield) &&
				w.objects(ctx, t, o.flowtables.At(t.Addr), o.fList, o.fGenmask, gen, func(a virt.Addr) *Object { return w.flowtable(ctx, o, t, a) }, yield)
		})
	}
}

// objects yields what read makes of a table's list.
func (w *nftWalk) objects(ctx context.Context, t *Table, head virt.Addr, list, genmask kobj.Field, gen uint, read func(virt.Addr) *Object, yield func(*Object, error) bool) bool {
	for node, err := range w.s.List(ctx, head, maxNFTObjects) {
		var x *Object
		active := true
		if err == nil {
			a := node - virt.Addr(list.Offset)
			x, err = kobj.Read(&w.r, func() *Object {
				active = w.r.Uint(a, genmask)&(1<<gen) == 0
				return read(a)
			})
		}
		if err != nil {
			x, err = nil, fmt.Errorf("nf_tables: table %s %s: objects: %w", t.Family, t.Name, err)
		}
		if active && !yield(x, err) {
			return false
		}
	}
	return true
}

func (w *nftWalk) object(o *nftObjectLayout, t *Table, a virt.Addr) *Object {
	r := &w.r
	x := &Object{Table: t, Addr: a, Name: r.CString(r.Pointer(a, o.name), maxNFTName), Handle: r.Uint(a, o.handle), Refs: r.Uint(a, o.use)}
	ops := r.Pointer(a, o.ops)
	typ := r.Pointer(ops, o.opsType)
	number := r.Uint(typ, o.number)
	kind, known := nftObjectKinds[number]
	if !known {
		x.Kind = fmt.Sprint(number)
		return x
	}
	x.Kind = kind.name
	module := nftModule
	if owner := r.Pointer(typ, o.owner); owner != 0 {
		module = w.s.ModuleNameAt(r, owner)
	}
	if kind.decode == nil || r.Err != nil {
		return x
	}
	d := w.dec.begin(&Chain{Table: t})
	if !kind.decode(nftExpr{d: d, kind: nftKind{module: module, ops: dataSymbol(w.s, module, ops)}, priv: o.data.At(a)}) {
		return x
	}
	if x.Counted = d.counted; x.Counted {
		x.Packets, x.Bytes = d.packets, d.bytes
		return x
	}
	x.Text = strings.TrimPrefix(d.text(), x.Kind+" ")
	return x
}

func (w *nftWalk) flowtable(ctx context.Context, o *nftObjectLayout, t *Table, a virt.Addr) *Object {
	r := &w.r
	return &Object{
		Table: t, Addr: a, Kind: nftFlowtable, Name: r.CString(r.Pointer(a, o.fName), maxNFTName), Handle: r.Uint(a, o.fHandle), Refs: r.Uint(a, o.fUse),
		Hook: nftHookName("netdev", int(r.Uint(a, o.fHook))), Priority: int32(r.Int(a, o.fPriority)), Devices: w.devices(ctx, o.fHooks.At(a)),
	}
}
