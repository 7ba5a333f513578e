package linux

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// NetDevice is a network device.
type NetDevice struct {
	Addr              virt.Addr // of the struct net_device
	Net               NetNS
	Name, Alias       string
	Index             int32
	MAC               []byte
	Addresses         []netip.Prefix // IPv4, then IPv6
	Flags             uint32         // IFF_ as ip shows them (dev_get_flags)
	Promisc, AllMulti uint32         // how often each was asked for
	MTU               uint32
	OperState         uint8  // IF_OPER_
	Kind              string // of its rtnl_link_ops; empty for hardware
	Qdisc             string
	Master            string
	Ops               virt.Addr // its net_device_ops
	Transmit          virt.Addr // of those, ndo_start_xmit: code of its driver
	XDP               []NetProgram
	TCX               []NetProgram
	Counters          *NetCounters // nil where the driver keeps them in a way not known
	Errs              []error      // parts that could not be read
}

// NetProgram is a BPF program attached to a device.
type NetProgram struct {
	Mode string // generic, native, offload; ingress, egress
	ID   uint32
	Name string
}

// NetCounters are a device's counters, as in /proc/net/dev.
type NetCounters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

type netDevLayout struct {
	flags, gflags, state, mtu, operstate, promisc, allmulti kernel.Field
	macAddr, macLen, alias, aliasText                       kernel.Field
	ops, xmit, stats64, getStats, linkOps, kind             kernel.Field
	qdisc, qdiscOps, qdiscID                                kernel.Field
	ipPtr, ifaList, ifaNext, ifaLocal, ifaPrefix            kernel.Field
	ip6Ptr, addrList, ifList, addr6, prefix6                kernel.Field
	upper, adjList, adjDev, adjMaster                       kernel.Field
	xdp, xdpProg, xdpLink, linkProg, aux, auxID, auxName    kernel.Field
	tcxIn, tcxOut, mprogItems, mprogProg                    kernel.Field
	xdpSize, mprogSize                                      uint32
	lstats, tstats, statType                                kernel.Field
	lPackets, lBytes, tRxP, tRxB, tTxP, tTxB                kernel.Field
	stats                                                   [8]kernel.Field
	core, coreRx, coreTx, devRx, devTx                      kernel.Field
}

func (s *System) netDevLayout() (*netDevLayout, error) {
	return layoutOf(s, "network devices", func(r *resolver, o *netDevLayout) {
		d := func(paths ...string) kernel.Field { return r.field("net_device", paths...) }
		m := func(paths ...string) kernel.Field { return r.optional("net_device", paths...) }
		o.flags, o.gflags, o.state, o.mtu = d("flags"), d("gflags"), d("state"), d("mtu")
		o.operstate, o.promisc, o.allmulti = d("operstate"), d("promiscuity"), d("allmulti")
		o.macAddr, o.macLen = d("dev_addr"), d("addr_len")
		o.alias, o.aliasText = m("ifalias"), r.optional("dev_ifalias", "ifalias")
		o.ops, o.xmit = d("netdev_ops"), r.field("net_device_ops", "ndo_start_xmit")
		o.stats64, o.getStats = r.field("net_device_ops", "ndo_get_stats64"), r.field("net_device_ops", "ndo_get_stats")
		o.linkOps, o.kind = d("rtnl_link_ops"), r.field("rtnl_link_ops", "kind")
		o.qdisc, o.qdiscOps, o.qdiscID = d("qdisc"), r.field("Qdisc", "ops"), r.field("Qdisc_ops", "id")
		o.ipPtr, o.ifaList, o.ifaNext = m("ip_ptr"), r.optional("in_device", "ifa_list"), r.optional("in_ifaddr", "ifa_next")
		o.ifaLocal, o.ifaPrefix = r.optional("in_ifaddr", "ifa_local"), r.optional("in_ifaddr", "ifa_prefixlen")
		o.ip6Ptr, o.addrList = m("ip6_ptr"), r.optional("inet6_dev", "addr_list")
		o.ifList, o.addr6, o.prefix6 = r.optional("inet6_ifaddr", "if_list"), r.optional("inet6_ifaddr", "addr"), r.optional("inet6_ifaddr", "prefix_len")
		o.upper, o.adjList = d("adj_list.upper"), r.field("netdev_adjacent", "list")
		o.adjDev, o.adjMaster = r.field("netdev_adjacent", "dev"), r.field("netdev_adjacent", "master")
		o.xdp, o.xdpProg, o.xdpLink = m("xdp_state"), r.optional("bpf_xdp_entity", "prog"), r.optional("bpf_xdp_entity", "link") // 5.9
		o.linkProg = r.optional("bpf_xdp_link", "link.prog")
		o.aux, o.auxID, o.auxName = r.optional("bpf_prog", "aux"), r.optional("bpf_prog_aux", "id"), r.optional("bpf_prog_aux", "name")
		o.tcxIn, o.tcxOut = m("tcx_ingress"), m("tcx_egress") // 6.6
		o.mprogItems, o.mprogProg = r.optional("bpf_mprog_entry", "fp_items"), r.optional("bpf_mprog_fp", "prog")
		o.xdpSize, _ = r.types.StructSize("bpf_xdp_entity")
		o.mprogSize, _ = r.types.StructSize("bpf_mprog_fp")
		o.lstats, o.tstats, o.statType = m("lstats"), m("tstats"), m("pcpu_stat_type") // 6.8
		o.lPackets, o.lBytes = r.optional("pcpu_lstats", "packets"), r.optional("pcpu_lstats", "bytes")
		o.tRxP, o.tRxB = r.optional("pcpu_sw_netstats", "rx_packets"), r.optional("pcpu_sw_netstats", "rx_bytes")
		o.tTxP, o.tTxB = r.optional("pcpu_sw_netstats", "tx_packets"), r.optional("pcpu_sw_netstats", "tx_bytes")
		for i, name := range []string{"rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"} {
			o.stats[i] = d("stats." + name)
		}
		o.core = m("core_stats") // 5.18; per CPU
		o.coreRx, o.coreTx = r.optional("net_device_core_stats", "rx_dropped"), r.optional("net_device_core_stats", "tx_dropped")
		o.devRx, o.devTx = m("rx_dropped"), m("tx_dropped") // until 5.17
	})
}

// NetDevices yields the network devices of all namespaces, in order of registration.
func (s *System) NetDevices(ctx context.Context) iter.Seq2[*NetDevice, error] {
	return func(yield func(*NetDevice, error) bool) {
		o, err := s.netDevLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		ns, err := s.netNSLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &netDevReader{s: s, o: o, ns: ns, r: s.reader(), names: s.netNames()}
		for n, err := range s.NetNamespaces(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for dev, err := range s.netDevices(ctx, n) {
				var d *NetDevice
				if err == nil {
					d, err = w.device(ctx, n, dev)
				}
				if !yield(d, err) {
					return
				}
			}
		}
	}
}

type netDevReader struct {
	s     *System
	o     *netDevLayout
	ns    *netNSLayout
	r     reader
	names *netNames
}

func (w *netDevReader) device(ctx context.Context, n NetNS, a virt.Addr) (*NetDevice, error) {
	o, r := w.o, &w.r
	d := &NetDevice{Addr: a, Net: n}
	_, err := netGuarded(r, func() int {
		d.Name, d.Index = r.cString(at(a, w.ns.devName), 16), int32(r.num(a, w.ns.devIndex))
		d.Promisc, d.AllMulti, d.MTU = uint32(r.num(a, o.promisc)), uint32(r.num(a, o.allmulti)), uint32(r.num(a, o.mtu))
		d.OperState = uint8(r.num(a, o.operstate))
		d.Flags = netFlags(uint32(r.num(a, o.flags)), uint32(r.num(a, o.gflags)), r.num(a, o.state), d.OperState)
		d.Ops = r.pointer(a, o.ops)
		return 0
	})
	if err != nil {
		return nil, fmt.Errorf("network device at %#x: %w", uint64(a), err)
	}
	part := func(what string, read func()) {
		if _, err := netGuarded(r, func() int { read(); return 0 }); err != nil {
			d.Errs = append(d.Errs, fmt.Errorf("%s of network device %q: %w", what, d.Name, err))
		}
	}
	part("driver", func() {
		if d.Ops != 0 {
			d.Transmit = r.pointer(d.Ops, o.xmit)
		}
		if ops := r.pointer(a, o.linkOps); ops != 0 {
			if kind := r.pointer(ops, o.kind); kind != 0 {
				d.Kind = r.cString(kind, 32)
			}
		}
	})
	part("hardware address", func() {
		if n := min(r.num(a, o.macLen), 32); n != 0 {
			d.MAC = append(d.MAC, r.bytes(r.pointer(a, o.macAddr), int(n))...)
		}
	})
	part("alias", func() {
		if p := r.pointer(a, o.alias); p != 0 && has(o.aliasText) {
			d.Alias = r.cString(at(p, o.aliasText), 256)
		}
	})
	part("queueing discipline", func() {
		if q := r.pointer(a, o.qdisc); q != 0 {
			d.Qdisc = r.cString(at(r.pointer(q, o.qdiscOps), o.qdiscID), 16)
		}
	})
	part("addresses", func() { w.addresses(ctx, d) })
	part("programs", func() { w.programs(d) })
	part("counters", func() { w.counters(d) })
	w.master(ctx, d)
	return d, nil
}

// netFlags are the flags as dev_get_flags tells them: PROMISC and ALLMULTI only as
// far as an administrator asked for them, the rest of those four from the state.
func netFlags(flags, gflags uint32, state uint64, oper uint8) uint32 {
	const (
		promisc, allmulti, running, lowerUp, dormant = 0x100, 0x200, 0x40, 0x10000, 0x20000
		start, noCarrier, isDormant                  = 1 << 0, 1 << 2, 1 << 4
		operUnknown, operUp                          = 0, 6
	)
	f := flags&^(promisc|allmulti|running|lowerUp|dormant) | gflags&(promisc|allmulti)
	if state&start == 0 {
		return f
	}
	if oper == operUp || oper == operUnknown {
		f |= running
	}
	if state&noCarrier == 0 {
		f |= lowerUp
	}
	if state&isDormant != 0 {
		f |= dormant
	}
	return f
}

// maxNetAddresses bounds the addresses of one device.
const maxNetAddresses = 1 << 16

func (w *netDevReader) addresses(ctx context.Context, d *NetDevice) {
	o, r := w.o, &w.r
	if in := r.pointer(d.Addr, o.ipPtr); in != 0 {
		seen := 0
		for ifa := r.pointer(in, o.ifaList); ifa != 0 && r.err == nil && seen < maxNetAddresses; seen++ {
			ip := netIPv4(uint32(r.num(ifa, o.ifaLocal)))
			d.Addresses = append(d.Addresses, netip.PrefixFrom(ip, int(min(r.num(ifa, o.ifaPrefix), 32))))
			ifa = r.pointer(ifa, o.ifaNext)
		}
	}
	in6 := r.pointer(d.Addr, o.ip6Ptr)
	if in6 == 0 || r.err != nil || !has(o.addrList) {
		return
	}
	for node, err := range w.s.list(ctx, at(in6, o.addrList), maxNetAddresses) {
		if err != nil {
			d.Errs = append(d.Errs, err)
			continue
		}
		ifa := node - virt.Addr(o.ifList.Offset)
		var ip [16]byte
		copy(ip[:], r.bytes(at(ifa, o.addr6), 16))
		d.Addresses = append(d.Addresses, netip.PrefixFrom(netip.AddrFrom16(ip), int(min(r.num(ifa, o.prefix6), 128))))
	}
}

func (w *netDevReader) programs(d *NetDevice) {
	o, r := w.o, &w.r
	program := func(mode string, prog virt.Addr) NetProgram {
		aux := r.pointer(prog, o.aux)
		return NetProgram{mode, uint32(r.num(aux, o.auxID)), cString(slices.Clone(r.bytes(at(aux, o.auxName), 16)))}
	}
	if !has(o.aux) || !has(o.auxID) || !has(o.auxName) {
		return
	}
	if has(o.xdp) && has(o.xdpProg) {
		for i, mode := range []string{"generic", "native", "offload"} { // enum bpf_xdp_mode
			e := at(d.Addr, o.xdp) + virt.Addr(uint32(i)*o.xdpSize)
			prog := r.pointer(e, o.xdpProg)
			if link := r.pointer(e, o.xdpLink); link != 0 && has(o.linkProg) {
				prog = r.pointer(link, o.linkProg)
			}
			if prog != 0 {
				d.XDP = append(d.XDP, program(mode, prog))
			}
		}
	}
	if has(o.tcxIn) && has(o.mprogItems) && o.mprogSize >= 8 {
		for i, side := range []kernel.Field{o.tcxIn, o.tcxOut} {
			e := r.pointer(d.Addr, side)
			for slot := uint32(0); e != 0 && slot < o.mprogItems.Size/o.mprogSize; slot++ {
				prog := r.pointer(at(e, o.mprogItems)+virt.Addr(slot*o.mprogSize), o.mprogProg)
				if prog == 0 {
					break
				}
				d.TCX = append(d.TCX, program([]string{"ingress", "egress"}[i], prog))
			}
		}
	}
}

func (w *netDevReader) master(ctx context.Context, d *NetDevice) {
	const most = 4096
	for node, err := range w.s.list(ctx, at(d.Addr, w.o.upper), most) {
		if err != nil {
			d.Errs = append(d.Errs, fmt.Errorf("master of network device %q: %w", d.Name, err))
			return
		}
		adj := node - virt.Addr(w.o.adjList.Offset)
		dev, err := netGuarded(&w.r, func() virt.Addr {
			if w.r.num(adj, w.o.adjMaster) == 0 {
				return 0
			}
			return w.r.pointer(adj, w.o.adjDev)
		})
		if err == nil && dev != 0 {
			d.Master = w.names.name(dev)
		}
	}
}

// counters reads the counters of devices that keep them in the device or in one of
// the common per-CPU structures, as dev_get_stats does.
func (w *netDevReader) counters(d *NetDevice) {
	const loopback = 0x8 // IFF_LOOPBACK
	const typeTstats = 2 // NETDEV_PCPU_STAT_TSTATS
	o, r, a := w.o, &w.r, d.Addr
	var v [8]uint64
	for i, f := range o.stats {
		v[i] = r.num(a, f)
	}
	c := NetCounters{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]}
	switch {
	case d.Flags&loopback != 0 && has(o.lstats) && has(o.lPackets):
		w.percpu(a, o.lstats, func(at virt.Addr) {
			p, b := r.num(at, o.lPackets), r.num(at, o.lBytes)
			c.RxPackets, c.TxPackets = c.RxPackets+p, c.TxPackets+p
			c.RxBytes, c.TxBytes = c.RxBytes+b, c.TxBytes+b
		})
	case has(o.tstats) && has(o.tRxP) && (has(o.statType) && r.num(a, o.statType) == typeTstats || slices.Contains(netTstatsKinds, d.Kind)):
		w.percpu(a, o.tstats, func(at virt.Addr) {
			c.RxPackets, c.RxBytes = c.RxPackets+r.num(at, o.tRxP), c.RxBytes+r.num(at, o.tRxB)
			c.TxPackets, c.TxBytes = c.TxPackets+r.num(at, o.tTxP), c.TxBytes+r.num(at, o.tTxB)
		})
	case d.Ops != 0 && r.pointer(d.Ops, o.stats64) == 0 && r.pointer(d.Ops, o.getStats) == 0:
	default:
		return
	}
	if has(o.core) && has(o.coreRx) {
		w.percpu(a, o.core, func(at virt.Addr) {
			c.RxDropped, c.TxDropped = c.RxDropped+r.num(at, o.coreRx), c.TxDropped+r.num(at, o.coreTx)
		})
	} else {
		c.RxDropped, c.TxDropped = c.RxDropped+r.num(a, o.devRx), c.TxDropped+r.num(a, o.devTx)
	}
	if r.err == nil {
		d.Counters = &c
	}
}

// netTstatsKinds use dev->tstats since before 5.10.
var netTstatsKinds = []string{"bridge", "gre", "gretap", "erspan", "ipip", "sit", "ip6tnl", "ip6gre", "vti", "vti6", "wireguard", "vxlan", "geneve"}

// percpu calls f with each CPU's copy of what the per-CPU pointer in member p of a
// leads to.
func (w *netDevReader) percpu(a virt.Addr, p kernel.Field, f func(virt.Addr)) {
	base := w.r.pointer(a, p)
	if base == 0 {
		return
	}
	for _, cpu := range w.s.cpus {
		f(base + cpu)
	}
}
