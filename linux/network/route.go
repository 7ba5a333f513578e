package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Route is one way to a destination: a route with several next hops comes as
// several.
type Route struct {
	Addr       virt.Addr // of the struct fib_alias or fib6_info
	Net        Namespace
	Table      uint32 // RT_TABLE_
	Dst        netip.Prefix
	From       netip.Prefix // of the source that it is for (IPv6); invalid for any
	TOS        uint8        // type of service that it is for (IPv4)
	Gateway    netip.Addr   // invalid without one
	Source     netip.Addr   // preferred source; invalid without one
	Interface  string
	Metric     uint32
	Type       uint8    // RTN_
	Protocol   uint8    // RTPROT_
	Scope      uint8    // RT_SCOPE_ of IPv4
	Preference uint8    // of the router that told of it (IPv6): 0 medium, 1 high, 3 low
	Flags      uint8    // RTNH_F_
	Nexthop    uint32   // identifier of the nexthop object; 0 without one
	Weight     uint32   // among several next hops; 0 for a single one
	Encap      uint16   // LWTUNNEL_ENCAP_; 0 without
	Metrics    []uint32 // by RTAX_ number less one; nil where all are the defaults
}

type routeLayout struct {
	hash4, hash6, null6                                    kobj.Field // struct net
	tbNode, tbID, tbData                                   kobj.Field
	kv, key, bits, leaf                                    kobj.Field
	faNode, faInfo, faType, faSlen, faTable                kobj.Field
	fiProto, fiScope, fiSrc, fiPrio, fiNhs, fiNh, fiObject kobj.Field
	nhSize                                                 uint32
	dev, gwFamily, gw, flags                               kobj.Field
	objID, objGroup, objInfo, infoNhc, grpCount, grpEntry  kobj.Field
	grpNh                                                  kobj.Field
	grpSize                                                uint32
	tb6Node, tb6ID, tb6Root                                kobj.Field
	left, right, subtree, leaf6                            kobj.Field
	next6, dst6, src6, metric6, proto6, type6, nh6, obj6   kobj.Field
	keyAddr, keyLen, nh6Common, its6, parent               kobj.Field
	tos, metrics4, metrics6, metrics, from6, flags6        kobj.Field
	weight, lwt, lwtType, grpWeight, reject                kobj.Field
	siblings                                               kobj.Field
	nodeFlags                                              kobj.Field
	tables4, tables6                                       uint64 // lists in the hash tables
}

func routeLayoutOf(s *linux.System) (*routeLayout, error) {
	return kobj.LayoutOf(s.Walker, "routes", func(r *kobj.Resolver, o *routeLayout) {
		f, m := r.Field, r.Optional
		o.hash4, o.hash6, o.null6 = f("net", "ipv4.fib_table_hash"), m("net", "ipv6.fib_table_hash"), m("net", "ipv6.fib6_null_entry")
		o.tables4, o.tables6 = routeTables, routeTables
		if !m("net", "ipv4.rules_ops").Present() { // without CONFIG_IP_MULTIPLE_TABLES
			o.tables4 = 2
		}
		if !m("net", "ipv6.fib6_rules_ops").Present() { // CONFIG_IPV6_MULTIPLE_TABLES
			o.tables6 = 1
		}
		o.tbNode, o.tbID, o.tbData = f("fib_table", "tb_hlist"), f("fib_table", "tb_id"), f("fib_table", "tb_data")
		o.kv, o.key, o.bits, o.leaf = f("trie", "kv"), f("key_vector", "key"), f("key_vector", "bits"), f("key_vector", "leaf")
		o.faNode, o.faInfo, o.faType = f("fib_alias", "fa_list"), f("fib_alias", "fa_info"), f("fib_alias", "fa_type")
		o.faSlen, o.faTable = f("fib_alias", "fa_slen"), f("fib_alias", "tb_id")
		o.fiProto, o.fiScope, o.fiSrc = f("fib_info", "fib_protocol"), f("fib_info", "fib_scope"), f("fib_info", "fib_prefsrc")
		o.fiPrio, o.fiNhs, o.fiNh = f("fib_info", "fib_priority"), f("fib_info", "fib_nhs"), f("fib_info", "fib_nh")
		o.fiObject, o.nhSize = m("fib_info", "nh"), r.Size("fib_nh") // 5.3
		o.dev, o.gwFamily = f("fib_nh_common", "nhc_dev"), f("fib_nh_common", "nhc_gw_family")
		o.gw, o.flags = f("fib_nh_common", "nhc_gw"), f("fib_nh_common", "nhc_flags")
		o.objID, o.objGroup, o.objInfo = m("nexthop", "id"), m("nexthop", "is_group"), m("nexthop", "nh_info")
		o.infoNhc, o.grpCount, o.grpEntry = m("nh_info", "fib_nhc"), m("nh_group", "num_nh"), m("nh_group", "nh_entries")
		o.grpNh = m("nh_grp_entry", "nh")
		o.grpSize, _ = r.Types.StructSize("nh_grp_entry")
		o.tb6Node, o.tb6ID, o.tb6Root = m("fib6_table", "tb6_hlist"), m("fib6_table", "tb6_id"), m("fib6_table", "tb6_root")
		o.left, o.right, o.subtree, o.leaf6 = m("fib6_node", "left"), m("fib6_node", "right"), m("fib6_node", "subtree"), m("fib6_node", "leaf")
		o.next6, o.dst6, o.src6 = m("fib6_info", "fib6_next"), m("fib6_info", "fib6_dst"), m("fib6_info", "fib6_prefsrc")
		o.metric6, o.proto6, o.type6 = m("fib6_info", "fib6_metric"), m("fib6_info", "fib6_protocol"), m("fib6_info", "fib6_type")
		o.its6, o.parent = m("fib6_info", "fib6_table"), m("fib6_node", "parent")
		o.nh6, o.obj6 = m("fib6_info", "fib6_nh"), m("fib6_info", "nh")
		o.keyAddr, o.keyLen, o.nh6Common = m("rt6key", "addr"), m("rt6key", "plen"), m("fib6_nh", "nh_common")
		o.tos = m("fib_alias", "fa_dscp", "fa_tos") // renamed in 5.18
		o.metrics4, o.metrics6, o.metrics = m("fib_info", "fib_metrics"), m("fib6_info", "fib6_metrics"), m("dst_metrics", "metrics")
		o.from6, o.flags6 = m("fib6_info", "fib6_src"), m("fib6_info", "fib6_flags")
		o.weight, o.lwt = m("fib_nh_common", "nhc_weight"), m("fib_nh_common", "nhc_lwtstate")
		o.lwtType, o.grpWeight = m("lwtunnel_state", "type"), m("nh_grp_entry", "weight")
		o.reject, o.siblings = m("nh_info", "reject_nh"), m("fib6_info", "fib6_nsiblings")
		o.nodeFlags = m("fib6_node", "fn_flags")
	})
}

const (
	maxRoutes     = 1 << 20
	routeTables   = 256 // FIB_TABLE_HASHSZ, FIB6_TABLE_HASHSZ
	maxRouteHops  = 512
	maxRouteErrs  = 256
	maxRouteDepth = 160 // of a trie over 128 bits, or over 32
)

// Routes yields the routes of all tables of all network namespaces: IPv4, then IPv6.
func Routes(ctx context.Context, s *linux.System) iter.Seq2[*Route, error] {
	return func(yield func(*Route, error) bool) {
		o, err := routeLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		w := &routeWalk{s: s, ctx: ctx, o: o, r: s.Reader(), names: NewDeviceNames(s), yield: yield, left: maxRoutes}
		for n, err := range Namespaces(ctx, s) {
			if err != nil {
				w.fail(err)
			} else {
				w.namespace(n)
			}
			if w.stopped {
				return
			}
		}
	}
}

type routeWalk struct {
	s       *linux.System
	ctx     context.Context
	o       *routeLayout
	r       kobj.Reader
	names   *DeviceNames
	yield   func(*Route, error) bool
	left    int // nodes and routes that may still be visited
	errs    int
	seen    map[virt.Addr]struct{} // nodes of the table that is walked
	table   virt.Addr              // the fib6_table that is walked
	from    virt.Addr              // the fib6_node that led to the next one
	stopped bool
}

func (w *routeWalk) fail(err error) {
	if err == nil || w.stopped {
		return
	}
	// A node that claims millions of children which are none has nothing to say.
	if w.errs++; w.errs == maxRouteErrs {
		err = fmt.Errorf("%w: too much of them is", kobj.ErrBroken)
	}
	w.stopped = !w.yield(nil, fmt.Errorf("routes: %w", err)) || w.errs == maxRouteErrs
}

// again reports whether the node at a was visited before: a tree that leads back
// into itself has more ways than can be gone.
func (w *routeWalk) again(a virt.Addr) bool {
	if _, twice := w.seen[a]; twice {
		w.fail(fmt.Errorf("node at %#x: %w: it is there twice", uint64(a), kobj.ErrBroken))
		return true
	}
	w.seen[a] = struct{}{}
	return false
}

// read runs f and reports its error.
func (w *routeWalk) read(f func(r *kobj.Reader)) bool {
	_, err := kobj.Read(&w.r, func() int { f(&w.r); return 0 })
	w.fail(err)
	return err == nil && !w.stopped
}

// visit counts one more node; it returns false when there were too many.
func (w *routeWalk) visit() bool {
	if w.left--; w.left < 0 || w.ctx.Err() != nil {
		w.fail(kobj.ErrBudget)
		w.stopped = true
	}
	return !w.stopped
}

func (w *routeWalk) namespace(n Namespace) {
	o := w.o
	for i, f := range []kobj.Field{o.hash4, o.hash6} {
		tables := [...]uint64{o.tables4, o.tables6}[i]
		var base virt.Addr
		if !f.Present() || !w.read(func(r *kobj.Reader) { base = r.Pointer(n.Addr, f) }) {
			continue
		}
		w.fail(w.s.HashBuckets(&w.r, base, tables, 8, 0, func(head virt.Addr) bool {
			for node, err := range w.s.HList(w.ctx, head, 1<<16) {
				switch {
				case err != nil:
					w.fail(err)
				case i == 0:
					w.table4(n, node-virt.Addr(o.tbNode.Offset))
				case o.tb6Node.Present() && o.tb6Root.Present():
					w.table6(n, node-virt.Addr(o.tb6Node.Offset))
				}
				if w.stopped {
					break
				}
			}
			return !w.stopped
		}))
	}
}

func (w *routeWalk) table4(n Namespace, table virt.Addr) {
	var id uint32
	var root virt.Addr
	if w.read(func(r *kobj.Reader) {
		id = uint32(r.Uint(table, w.o.tbID))
		root = r.Ptr(w.o.kv.At(r.Pointer(table, w.o.tbData)) + virt.Addr(w.o.leaf.Offset))
	}) {
		w.seen = map[virt.Addr]struct{}{}
		w.trie(n, id, root, maxRouteDepth)
	}
}

// trie visits a key_vector of the IPv4 trie: a node with 2^bits children, or, with
// no bits, a leaf.
func (w *routeWalk) trie(n Namespace, table uint32, a virt.Addr, depth int) {
	o := w.o
	if a == 0 || depth == 0 || !w.visit() || w.again(a) {
		return
	}
	var key uint32
	var bits uint64
	if !w.read(func(r *kobj.Reader) { key, bits = uint32(r.Uint(a, o.key)), r.Uint(a, o.bits) }) {
		return
	}
	if bits == 0 {
		for node, err := range w.s.HList(w.ctx, o.leaf.At(a), maxRoutes) {
			if err != nil {
				w.fail(err)
			} else {
				w.alias(n, table, key, node-virt.Addr(o.faNode.Offset))
			}
			if w.stopped {
				return
			}
		}
		return
	}
	if bits > 24 {
		w.fail(fmt.Errorf("trie node at %#x: %w: 2^%d children", uint64(a), kobj.ErrBroken, bits))
		return
	}
	const piece = 64
	for i := uint64(0); i < 1<<bits; i += piece {
		var raw [8 * piece]byte
		part := raw[:8*min(piece, 1<<bits-i)]
		if !w.read(func(r *kobj.Reader) { copy(part, r.Bytes(o.leaf.At(a)+virt.Addr(8*i), len(part))) }) {
			return
		}
		for ; len(part) > 0 && w.visit(); part = part[8:] {
			w.trie(n, table, virt.Addr(binary.LittleEndian.Uint64(part)), depth-1)
		}
		if w.stopped {
			return
		}
	}
}

// alias yields the routes of a fib_alias. Tables local and main can share a trie.
func (w *routeWalk) alias(n Namespace, table, key uint32, a virt.Addr) {
	o := w.o
	var info, object virt.Addr
	var hops uint64
	route := Route{Addr: a, Net: n, Table: table}
	mine := false
	if !w.visit() || !w.read(func(r *kobj.Reader) {
		mine = uint32(r.Uint(a, o.faTable)) == table
		info = r.Pointer(a, o.faInfo)
		route.Type, route.TOS = uint8(r.Uint(a, o.faType)), uint8(r.Uint(a, o.tos))
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], key)
		route.Dst = netip.PrefixFrom(netip.AddrFrom4(b), int(32-min(r.Uint(a, o.faSlen), 32)))
		route.Protocol, route.Scope = uint8(r.Uint(info, o.fiProto)), uint8(r.Uint(info, o.fiScope))
		route.Metric = uint32(r.Uint(info, o.fiPrio))
		if src := uint32(r.Uint(info, o.fiSrc)); src != 0 {
			route.Source = netIPv4(src)
		}
		hops, object = r.Uint(info, o.fiNhs), r.Pointer(info, o.fiObject)
		route.Metrics = w.metrics(r, r.Pointer(info, o.metrics4))
	}) || !mine {
		return
	}
	if object != 0 {
		w.object(route, object)
		return
	}
	for i := range min(hops, maxRouteHops) {
		if w.hop(route, o.fiNh.At(info)+virt.Addr(i*uint64(o.nhSize)), hops > 1); w.stopped {
			return
		}
	}
}

// metrics are those of the dst_metrics at a; nil where none is set.
func (w *routeWalk) metrics(r *kobj.Reader, a virt.Addr) []uint32 {
	if a == 0 || !w.o.metrics.Present() {
		return nil
	}
	b := r.Bytes(w.o.metrics.At(a), int(min(w.o.metrics.Size, 256)&^3))
	if len(bytes.Trim(b, "\x00")) == 0 {
		return nil // dst_default_metrics, as most have
	}
	m := make([]uint32, len(b)/4)
	for i := range m {
		m[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return m
}

// hop yields route by way of the fib_nh_common at nhc, one of several or the only one.
func (w *routeWalk) hop(route Route, nhc virt.Addr, several bool) {
	o := w.o
	var dev virt.Addr
	if !w.read(func(r *kobj.Reader) {
		dev, route.Flags = r.Pointer(nhc, o.dev), uint8(r.Uint(nhc, o.flags))
		if several && route.Weight == 0 {
			route.Weight = uint32(r.Uint(nhc, o.weight))
		}
		if state := r.Pointer(nhc, o.lwt); state != 0 {
			route.Encap = uint16(r.Uint(state, o.lwtType))
		}
		switch r.Uint(nhc, o.gwFamily) {
		case FamilyInet:
			route.Gateway, _ = netip.AddrFromSlice(r.Bytes(o.gw.At(nhc), 4))
		case FamilyInet6:
			route.Gateway, _ = netip.AddrFromSlice(r.Bytes(o.gw.At(nhc), 16))
		}
	}) {
		return
	}
	route.Interface = w.names.Name(dev)
	w.stopped = !w.yield(&route, nil)
}

// object yields route by way of the nexthop object at a: one, or a group of them.
func (w *routeWalk) object(route Route, a virt.Addr) {
	o := w.o
	if !o.objInfo.Present() || !o.infoNhc.Present() || !o.grpEntry.Present() || !o.grpNh.Present() {
		w.fail(fmt.Errorf("nexthop object at %#x: %w", uint64(a), kobj.ErrUnsupported))
		return
	}
	var infos []virt.Addr
	var weights []uint32
	if !w.read(func(r *kobj.Reader) {
		route.Nexthop = uint32(r.Uint(a, o.objID))
		info := r.Pointer(a, o.objInfo)
		if r.Uint(a, o.objGroup) == 0 {
			infos, weights = append(infos, info), append(weights, 0)
			return
		}
		for i := range min(r.Uint(info, o.grpCount), maxRouteHops) {
			entry := o.grpEntry.At(info) + virt.Addr(i*uint64(o.grpSize))
			infos = append(infos, r.Pointer(r.Pointer(entry, o.grpNh), o.objInfo))
			weights = append(weights, uint32(r.Uint(entry, o.grpWeight)))
		}
	}) {
		return
	}
	for i, info := range infos {
		by := route
		const blackhole = 6 // RTN_BLACKHOLE
		if !w.read(func(r *kobj.Reader) {
			if r.Uint(info, o.reject) != 0 {
				by.Type = blackhole
			}
		}) {
			continue
		}
		if by.Weight = weights[i]; len(infos) == 1 && route.Dst.Addr().Is4() {
			by.Weight = 0 // IPv6 has a group of one too
		}
		if w.hop(by, o.infoNhc.At(info), false); w.stopped {
			return
		}
	}
}

func (w *routeWalk) table6(n Namespace, table virt.Addr) {
	var id uint32
	var null virt.Addr
	if w.read(func(r *kobj.Reader) { id, null = uint32(r.Uint(table, w.o.tb6ID)), r.Pointer(n.Addr, w.o.null6) }) {
		w.seen, w.table, w.from = map[virt.Addr]struct{}{}, table, 0
		w.node6(n, id, null, w.o.tb6Root.At(table), maxRouteDepth)
	}
}

// node6 visits a fib6_node, its routes first.
func (w *routeWalk) node6(n Namespace, table uint32, null, a virt.Addr, depth int) {
	const hasRoutes = 0x4 // RTN_RTINFO: else its leaf is one from below
	o := w.o
	if a == 0 || depth == 0 || !w.visit() || w.again(a) {
		return
	}
	var left, right, leaf, sub virt.Addr
	var flags uint64
	if !w.read(func(r *kobj.Reader) {
		if o.parent.Present() && r.Pointer(a, o.parent) != w.from && r.Err == nil {
			r.Err = fmt.Errorf("node at %#x: %w: it hangs elsewhere", uint64(a), kobj.ErrBroken)
			return
		}
		left, right, leaf, sub = r.Pointer(a, o.left), r.Pointer(a, o.right), r.Pointer(a, o.leaf6), r.Pointer(a, o.subtree)
		flags = r.Uint(a, o.nodeFlags)
	}) {
		return
	}
	for flags&hasRoutes != 0 && leaf != 0 && leaf != null && w.visit() && !w.again(leaf) {
		if leaf = w.info6(n, table, leaf); w.stopped {
			return
		}
	}
	for _, child := range []virt.Addr{left, right, sub} {
		w.from = a
		if w.node6(n, table, null, child, depth-1); w.stopped {
			return
		}
	}
}

// info6 yields the fib6_info at a and returns the next of its node.
func (w *routeWalk) info6(n Namespace, table uint32, a virt.Addr) (next virt.Addr) {
	o := w.o
	route := Route{Addr: a, Net: n, Table: table}
	var object virt.Addr
	var siblings uint64
	if !w.read(func(r *kobj.Reader) {
		next = r.Pointer(a, o.next6)
		if o.its6.Present() && r.Pointer(a, o.its6) != w.table && r.Err == nil { // of no route to lead on
			r.Err = fmt.Errorf("route at %#x: %w: it is of another table", uint64(a), kobj.ErrBroken)
			return
		}
		key := func(f kobj.Field) netip.Prefix {
			var b [16]byte
			copy(b[:], r.Bytes(o.keyAddr.At(f.At(a)), 16))
			return netip.PrefixFrom(netip.AddrFrom16(b), int(min(r.Uint(f.At(a), o.keyLen), 128)))
		}
		route.Dst = key(o.dst6)
		if src := key(o.src6); src.Bits() != 0 {
			route.Source = src.Addr()
		}
		route.Metric, route.Protocol, route.Type = uint32(r.Uint(a, o.metric6)), uint8(r.Uint(a, o.proto6)), uint8(r.Uint(a, o.type6))
		if o.from6.Present() {
			if from := key(o.from6); from.Bits() != 0 {
				route.From = from
			}
		}
		route.Preference = uint8(r.Uint(a, o.flags6) >> 27 & 3) // RTF_PREF_MASK
		route.Metrics = w.metrics(r, r.Pointer(a, o.metrics6))
		object, siblings = r.Pointer(a, o.obj6), r.Uint(a, o.siblings)
	}) {
		return 0
	}
	if object != 0 {
		w.object(route, object)
	} else {
		w.hop(route, o.nh6.At(a)+virt.Addr(o.nh6Common.Offset), siblings != 0)
	}
	return next
}
