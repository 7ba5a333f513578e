package network

import (
	"context"
	"fmt"
	"iter"
	"net/netip"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Neighbour is an entry of the ARP or neighbour-discovery cache, or one by which the
// guest answers for another (proxy).
type Neighbour struct {
	Addr      virt.Addr // of the struct neighbour or pneigh_entry
	Net       Namespace
	IP        netip.Addr
	MAC       []byte // empty where it is not known
	Interface string // empty for a proxy on all of them
	State     uint8  // NUD_ bits
	Flags     uint32 // NTF_ bits; from bit 8 on, NTF_EXT_ ones
	Protocol  uint8  // RTPROT_ of its creator; 0 if unspecified
	Proxy     bool
}

type neighLayout struct {
	nht, heads, shift, hash, next                kobj.Field
	dev, state, flags, ha, key, devNet, macWidth kobj.Field
	proto                                        kobj.Field
	proxies, pNext, pNet, pDev, pFlags, pProto   kobj.Field // struct pneigh_entry
	pKey                                         kobj.Field
}

// Neighbours yields the entries of the ARP and neighbour-discovery caches of all
// namespaces, and after those of each cache its proxies.
func Neighbours(ctx context.Context, s *linux.System) iter.Seq2[*Neighbour, error] {
	return func(yield func(*Neighbour, error) bool) {
		o, err := kobj.LayoutOf(s.Walker, "neighbours", func(r *kobj.Resolver, o *neighLayout) {
			r.Prefetch("arp_tbl", "nd_tbl")
			o.nht, o.shift = r.Field("neigh_table", "nht"), r.Field("neigh_hash_table", "hash_shift")
			o.heads = r.Field("neigh_hash_table", "hash_heads", "hash_buckets")
			// A plain pointer up to 6.12, which RANDSTRUCT puts anywhere.
			if o.hash = r.Optional("neighbour", "hash"); !o.hash.Present() {
				o.next = r.Field("neighbour", "next")
			}
			o.dev, o.state, o.flags = r.Field("neighbour", "dev"), r.Field("neighbour", "nud_state"), r.Field("neighbour", "flags")
			o.ha, o.key = r.Field("neighbour", "ha"), r.Field("neighbour", "primary_key")
			o.proto = r.Optional("neighbour", "protocol") // 5.0
			const p = "pneigh_entry"
			o.proxies, o.pNext, o.pNet = r.Field("neigh_table", "phash_buckets"), r.Field(p, "next"), netField(r, p, "net")
			o.pDev, o.pFlags, o.pKey, o.pProto = r.Field(p, "dev"), r.Field(p, "flags"), r.Field(p, "key"), r.Optional(p, "protocol")
			o.devNet, o.macWidth = netField(r, "net_device", "nd_net"), r.Field("net_device", "addr_len")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		ns, err := netNSLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		w := &neighWalk{s: s, ctx: ctx, o: o, ns: ns, r: s.Reader(), names: NewDeviceNames(s), yield: yield, seen: map[virt.Addr]struct{}{}}
		if !s.NamesVariables() {
			yield(nil, fmt.Errorf("neighbours: %w: %w", kobj.ErrUnsupported, s.NoSymbol("arp_tbl")))
			return
		}
		for _, t := range []struct {
			name  string
			width int
		}{{"arp_tbl", 4}, {"nd_tbl", 16}} {
			if a, ok := s.Address(t.name); ok && (!w.table(a, t.width) || !w.proxies(a, t.width)) {
				return
			}
		}
	}
}

type neighWalk struct {
	s     *linux.System
	ctx   context.Context
	o     *neighLayout
	ns    *netNSLayout
	r     kobj.Reader
	names *DeviceNames
	seen  map[virt.Addr]struct{}
	yield func(*Neighbour, error) bool
}

func (w *neighWalk) table(a virt.Addr, width int) bool {
	const maxShift, maxNeighbours = 22, 1 << 22
	var heads virt.Addr
	shift, err := kobj.Read(&w.r, func() uint64 {
		nht := w.r.Pointer(a, w.o.nht)
		heads = w.r.Pointer(nht, w.o.heads)
		return w.r.Uint(nht, w.o.shift)
	})
	if err == nil && shift > maxShift {
		err = fmt.Errorf("%w: 2^%d chains", kobj.ErrBroken, shift)
	}
	if err != nil {
		return w.yield(nil, fmt.Errorf("table of neighbours at %#x: %w", uint64(a), err))
	}
	going := true
	err = w.s.HashBuckets(&w.r, heads, 1<<shift, 8, 0, func(head virt.Addr) bool {
		chain := w.s.SList(w.ctx, head, w.o.next, maxNeighbours)
		if w.o.hash.Present() {
			chain = w.s.HList(w.ctx, head, maxNeighbours)
		}
		for node, err := range chain {
			var n *Neighbour
			if err == nil {
				at := node - virt.Addr(w.o.hash.Offset)
				if _, twice := w.seen[at]; twice || len(w.seen) > maxNeighbours {
					continue
				}
				w.seen[at] = struct{}{}
				n, err = w.one(at, width)
			}
			if going = w.yield(n, err); !going {
				return false
			}
		}
		return true
	})
	if going && err != nil {
		return w.yield(nil, err)
	}
	return going
}

func (w *neighWalk) one(a virt.Addr, width int) (*Neighbour, error) {
	const valid = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80 // NUD_VALID
	o, r := w.o, &w.r
	n := &Neighbour{Addr: a}
	dev, err := kobj.Read(r, func() virt.Addr {
		n.IP, _ = netip.AddrFromSlice(r.Bytes(o.key.At(a), width))
		n.State, n.Flags = uint8(r.Uint(a, o.state)), uint32(r.Uint(a, o.flags))
		n.Protocol = uint8(r.Uint(a, o.proto))
		dev := r.Pointer(a, o.dev)
		n.Net.Addr = netAt(w.s, r, dev, o.devNet)
		n.Net.Inode = r.Uint(n.Net.Addr, w.ns.inum)
		if n.State&valid != 0 {
			n.MAC = append(n.MAC, r.Bytes(o.ha.At(a), int(min(r.Uint(dev, o.macWidth), 32)))...)
		}
		return dev
	})
	if err != nil {
		return nil, fmt.Errorf("neighbour at %#x: %w", uint64(a), err)
	}
	n.Interface = w.names.Name(dev)
	return n, nil
}

// proxies yields the entries by which the guest answers for others.
func (w *neighWalk) proxies(a virt.Addr, width int) bool {
	const buckets, maxProxies = 16, 1 << 20 // PNEIGH_HASHMASK + 1
	o := w.o
	base, err := kobj.Read(&w.r, func() virt.Addr { return w.r.Pointer(a, o.proxies) })
	if err != nil {
		return w.yield(nil, fmt.Errorf("proxies at %#x: %w", uint64(a), err))
	}
	for i := range buckets {
		at, err := kobj.Read(&w.r, func() virt.Addr { return w.r.Ptr(base + virt.Addr(8*i)) })
		for err == nil && at != 0 {
			if _, twice := w.seen[at]; twice || len(w.seen) > maxProxies {
				err = fmt.Errorf("%w: it does not end", kobj.ErrBroken)
				break
			}
			if w.seen[at] = struct{}{}; len(w.seen)%1024 == 0 && w.ctx.Err() != nil {
				return w.yield(nil, w.ctx.Err())
			}
			var n *Neighbour
			var next virt.Addr
			if n, next, err = w.proxy(at, width); err == nil && !w.yield(n, nil) {
				return false
			}
			at = next
		}
		if err != nil && !w.yield(nil, fmt.Errorf("proxies at %#x: %w", uint64(base), err)) {
			return false
		}
	}
	return true
}

func (w *neighWalk) proxy(a virt.Addr, width int) (n *Neighbour, next virt.Addr, err error) {
	const proxy = 0x08 // NTF_PROXY
	o, r := w.o, &w.r
	n = &Neighbour{Addr: a, Proxy: true}
	dev, err := kobj.Read(r, func() virt.Addr {
		next = r.Pointer(a, o.pNext)
		n.IP, _ = netip.AddrFromSlice(r.Bytes(o.pKey.At(a), width))
		n.Flags, n.Protocol = uint32(r.Uint(a, o.pFlags))|proxy, uint8(r.Uint(a, o.pProto))
		n.Net.Addr = netAt(w.s, r, a, o.pNet)
		n.Net.Inode = r.Uint(n.Net.Addr, w.ns.inum)
		return r.Pointer(a, o.pDev)
	})
	n.Interface = w.names.Name(dev)
	return n, next, err
}
