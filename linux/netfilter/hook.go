package netfilter

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// Hook is a function that the kernel calls on packets.
type Hook struct {
	Net       network.Namespace
	Family    string // ip, ip6, arp, bridge, netdev
	Hook      string // prerouting, input, forward, output, postrouting, ingress, egress
	Index     int    // in the order in which they run
	Device    string // of netdev
	Function  virt.Addr
	Private   virt.Addr // what it gets as its first argument
	Priority  int32
	HasOps    bool   // whether the priority could be read
	Type      string // nf_tables, bpf, flowtable; empty for others, and before 5.14
	OpsDiffer bool   // its nf_hook_ops names another function
	// Caller is the function of NAT's that calls it in its turn; 0: it is hooked in itself.
	Caller virt.Addr
	// Behind a function of nf_tables:
	Table string // family and name, "inet filter"
	Chain string // or flowtable
	// Behind one of BPF:
	ProgID uint32
}

type nfHookLayout struct {
	tables                             [4]kobj.Field // struct net
	count, hooks, fn, priv             kobj.Field
	entrySize                          uint32
	opsFn, opsPriority, opsType        kobj.Field
	ingress, egress                    kobj.Field // struct net_device
	typeTables, typeBPF, typeFlowtable int64
}

// Who registered a hook (enum nf_hook_ops_type).
const (
	nfTypeTables    = "nf_tables"
	nfTypeBPF       = "bpf"
	nfTypeFlowtable = "flowtable"
)

var nfFamilies = [...]string{"ip", "ip6", "arp", "bridge"}

// nfHookNames are the hooks by family: those of inet and bridge have the same
// numbers; arp has its own.
func nfHookName(family string, n int) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	if family == "arp" {
		names = []string{"input", "output", "forward"}
	}
	if n < len(names) {
		return names[n]
	}
	return fmt.Sprint(n)
}

// maxNFHooks is the kernel's own limit on the functions of one hook
// (MAX_HOOK_COUNT).
const maxNFHooks = 1024

// Hooks yields the functions that are hooked into the path of packets, for
// each network namespace, family and hook in the order in which they run.
func Hooks(ctx context.Context, s *linux.System) iter.Seq2[*Hook, error] {
	return func(yield func(*Hook, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "netfilter hooks", func(r *kobj.Resolver, o *nfHookLayout) {
			o.tables[0] = r.Field("net", "nf.hooks_ipv4")
			o.tables[1] = r.Optional("net", "nf.hooks_ipv6")
			o.tables[2] = r.Optional("net", "nf.hooks_arp")
			o.tables[3] = r.Optional("net", "nf.hooks_bridge")
			o.count, o.hooks = r.Field("nf_hook_entries", "num_hook_entries"), r.Field("nf_hook_entries", "hooks")
			o.fn, o.priv, o.entrySize = r.Field("nf_hook_entry", "hook"), r.Field("nf_hook_entry", "priv"), r.Size("nf_hook_entry")
			o.opsFn, o.opsPriority = r.Field("nf_hook_ops", "hook"), r.Field("nf_hook_ops", "priority")
			o.opsType = r.Optional("nf_hook_ops", "hook_ops_type")   // 5.14
			o.ingress = r.Optional("net_device", "nf_hooks_ingress") // 4.2
			o.egress = r.Optional("net_device", "nf_hooks_egress")   // 5.16
			enum := func(name string) int64 {
				v, err := r.Types.EnumValue("nf_hook_ops_type", name)
				if err != nil {
					return -1
				}
				return v
			}
			o.typeTables, o.typeBPF, o.typeFlowtable = enum("NF_HOOK_OP_NF_TABLES"), enum("NF_HOOK_OP_BPF"), enum("NF_HOOK_OP_NFT_FT")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		w := &nfWalk{s: s, o: o, r: s.Reader(), names: network.NewDeviceNames(s), yield: yield}
		if o.opsType.Present() {
			if w.t, err = nfTargetLayoutOf(s); err != nil && !yield(nil, err) {
				return
			}
		}
		if w.nat, err = newNfNAT(s); err != nil && !yield(nil, err) {
			return
		}
		for n, err := range network.Namespaces(ctx, s) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !w.namespace(ctx, n) {
				return
			}
		}
	}
}

type nfWalk struct {
	s     *linux.System
	o     *nfHookLayout
	t     *nfTargetLayout // nil where hooks do not say who registered them
	nat   *nfNAT          // nil where its functions call none that can be read
	r     kobj.Reader
	names *network.DeviceNames
	yield func(*Hook, error) bool
}

func (w *nfWalk) namespace(ctx context.Context, n network.Namespace) bool {
	for i, f := range w.o.tables {
		if !f.Present() {
			continue
		}
		for hook := range min(int(f.Size/8), 16) {
			h := Hook{Net: n, Family: nfFamilies[i], Hook: nfHookName(nfFamilies[i], hook)}
			if !w.entries(f.At(n.Addr)+virt.Addr(8*hook), h) {
				return false
			}
		}
	}
	if !w.o.ingress.Present() && !w.o.egress.Present() {
		return true
	}
	for dev, err := range network.DeviceAddrs(ctx, w.s, n) {
		if err != nil {
			if !w.yield(nil, err) {
				return false
			}
			continue
		}
		for i, f := range []kobj.Field{w.o.ingress, w.o.egress} {
			if !f.Present() {
				continue
			}
			h := Hook{Net: n, Family: "netdev", Hook: []string{"ingress", "egress"}[i], Device: w.names.Name(dev)}
			if !w.entries(f.At(dev), h) {
				return false
			}
		}
	}
	return true
}

// entries yields the functions behind the pointer at link. Behind the array that
// the kernel runs lies one of pointers to the nf_hook_ops that they came from
// (nf_hook_entries_get_hook_ops).
func (w *nfWalk) entries(link virt.Addr, like Hook) bool {
	o, r := w.o, &w.r
	var base virt.Addr
	n, err := kobj.Read(r, func() uint64 {
		if base = r.Ptr(link); base == 0 {
			return 0
		}
		return r.Uint(base, o.count)
	})
	if err == nil && n > maxNFHooks {
		err = fmt.Errorf("%w: %d functions", kobj.ErrBroken, n)
	}
	if err != nil {
		return w.yield(nil, fmt.Errorf("netfilter hook %s %s at %#x: %w", like.Family, like.Hook, uint64(link), err))
	}
	array := o.hooks.At(base)
	for i := range n {
		h := like
		h.Index = int(i)
		_, err := kobj.Read(r, func() int {
			e := array + virt.Addr(i*uint64(o.entrySize))
			h.Function, h.Private = r.Pointer(e, o.fn), r.Pointer(e, o.priv)
			return 0
		})
		if err != nil {
			if !w.yield(nil, fmt.Errorf("netfilter hook %s %s: function %d: %w", like.Family, like.Hook, i, err)) {
				return false
			}
			continue
		}
		_, err = kobj.Read(r, func() int {
			ops := r.Ptr(array + virt.Addr(n*uint64(o.entrySize)+8*i))
			h.Priority = int32(r.Int(ops, o.opsPriority))
			h.OpsDiffer = r.Pointer(ops, o.opsFn) != h.Function
			if o.opsType.Present() {
				switch int64(r.Uint(ops, o.opsType)) {
				case o.typeTables:
					h.Type = nfTypeTables
				case o.typeBPF:
					h.Type = nfTypeBPF
				case o.typeFlowtable:
					h.Type = nfTypeFlowtable
				}
			}
			return 0
		})
		if h.HasOps = err == nil; h.HasOps {
			err = w.target(&h)
		}
		if !w.yield(&h, err) || !w.called(&h) {
			return false
		}
	}
	return true
}
