package linux

import (
	"context"
	"fmt"
	"iter"
	"net/netip"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// Neighbour is an entry of the ARP or neighbour-discovery cache.
type Neighbour struct {
	Addr      virt.Addr // of the struct neighbour
	Net       NetNS
	IP        netip.Addr
	MAC       []byte // empty where it is not known
	Interface string
	State     uint8  // NUD_ bits
	Flags     uint32 // NTF_ bits
}

type neighLayout struct {
	nht, heads, shift, node                      kernel.Field
	dev, state, flags, ha, key, devNet, macWidth kernel.Field
}

// Neighbours yields the entries of the ARP and neighbour-discovery caches of all
// namespaces.
func (s *System) Neighbours(ctx context.Context) iter.Seq2[*Neighbour, error] {
	return func(yield func(*Neighbour, error) bool) {
		o, err := layoutOf(s, "neighbours", func(r *resolver, o *neighLayout) {
			r.symbols("arp_tbl", "nd_tbl")
			o.nht, o.shift = r.field("neigh_table", "nht"), r.field("neigh_hash_table", "hash_shift")
			o.heads, o.node = r.field("neigh_hash_table", "hash_heads", "hash_buckets"), r.field("neighbour", "hash", "next") // 6.13
			o.dev, o.state, o.flags = r.field("neighbour", "dev"), r.field("neighbour", "nud_state"), r.field("neighbour", "flags")
			o.ha, o.key = r.field("neighbour", "ha"), r.field("neighbour", "primary_key")
			o.devNet, o.macWidth = r.field("net_device", "nd_net.net"), r.field("net_device", "addr_len")
		})
		if err != nil {
			yield(nil, err)
			return
		}
		ns, err := s.netNSLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &neighWalk{s: s, ctx: ctx, o: o, ns: ns, r: s.reader(), names: s.netNames(), yield: yield, seen: map[virt.Addr]struct{}{}}
		for _, t := range []struct {
			name  string
			width int
		}{{"arp_tbl", 4}, {"nd_tbl", 16}} {
			if a, ok := s.Address(t.name); ok && !w.table(a, t.width) {
				return
			}
		}
	}
}

type neighWalk struct {
	s     *System
	ctx   context.Context
	o     *neighLayout
	ns    *netNSLayout
	r     reader
	names *netNames
	seen  map[virt.Addr]struct{}
	yield func(*Neighbour, error) bool
}

func (w *neighWalk) table(a virt.Addr, width int) bool {
	const maxShift, maxNeighbours = 22, 1 << 22
	var heads virt.Addr
	shift, err := netGuarded(&w.r, func() uint64 {
		nht := w.r.pointer(a, w.o.nht)
		heads = w.r.pointer(nht, w.o.heads)
		return w.r.num(nht, w.o.shift)
	})
	if err == nil && shift > maxShift {
		err = fmt.Errorf("%w: 2^%d chains", ErrBroken, shift)
	}
	if err != nil {
		return w.yield(nil, fmt.Errorf("table of neighbours at %#x: %w", uint64(a), err))
	}
	going := true
	err = w.s.netBuckets(&w.r, heads, 1<<shift, 8, 0, func(head virt.Addr) bool {
		// next has been the first member for as long as it was a plain pointer, as
		// it is of the node that replaced it in 6.13.
		for node, err := range w.s.hlist(w.ctx, head, maxNeighbours) {
			var n *Neighbour
			if err == nil {
				at := node - virt.Addr(w.o.node.Offset)
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
	dev, err := netGuarded(r, func() virt.Addr {
		n.IP, _ = netip.AddrFromSlice(r.bytes(at(a, o.key), width))
		n.State, n.Flags = uint8(r.num(a, o.state)), uint32(r.num(a, o.flags))
		dev := r.pointer(a, o.dev)
		n.Net.Addr = r.pointer(dev, o.devNet)
		n.Net.Inode = r.num(n.Net.Addr, w.ns.inum)
		if n.State&valid != 0 {
			n.MAC = append(n.MAC, r.bytes(at(a, o.ha), int(min(r.num(dev, o.macWidth), 32)))...)
		}
		return dev
	})
	if err != nil {
		return nil, fmt.Errorf("neighbour at %#x: %w", uint64(a), err)
	}
	n.Interface = w.names.name(dev)
	return n, nil
}
