package network

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Device is a network device.
type Device struct {
	Addr              virt.Addr // of the struct net_device
	Net               Namespace
	Name, Alias       string
	Index             int32
	MAC               []byte
	Addresses         []Address // IPv4, then IPv6
	Flags             uint32    // IFF_ as ip shows them (dev_get_flags)
	Promisc, AllMulti uint32    // how often each was asked for
	MTU               uint32
	OperState         uint8  // IF_OPER_
	Kind              string // of its rtnl_link_ops; empty for hardware
	Qdisc             string
	Master            string
	Ops               virt.Addr // its net_device_ops
	Transmit          virt.Addr // of those, ndo_start_xmit: code of its driver
	XDP               []Program
	TC                []Program // in the order in which they run
	TCErr             error     // why TC may not be all; wraps ErrUnsupported or ErrNoModuleTypes
	Counters          *Counters // nil where they could not be read
	CountersErr       error     // why not; wraps the same where the driver's way is not known
	Errs              []error   // parts that could not be read
}

// Address is an IP address of a device.
type Address struct {
	netip.Prefix
	Peer  netip.Addr // the other end's, to which the length belongs; invalid without
	Label string     // of IPv4; the device's name unless somebody gave another
}

// Program is a BPF program attached to a device.
type Program struct {
	Mode string // generic, native, offload; ingress, egress, or the handle of a qdisc: "1:"
	ID   uint32 // 0 for classic code, which has none
	Name string
	How  string // of tc: "tcx", "cls_bpf", "cls_bpf direct-action", "act_bpf"
}

type netDevLayout struct {
	flags, gflags, state, mtu, operstate, promisc, allmulti kobj.Field
	macAddr, macLen, alias, aliasText                       kobj.Field
	ops, xmit, linkOps, kind                                kobj.Field
	qdisc, qdiscOps, qdiscID                                kobj.Field
	ipPtr, ifaList, ifaNext, ifaLocal, ifaPrefix            kobj.Field
	ifaAddress, ifaLabel                                    kobj.Field
	ip6Ptr, addrList, ifList, addr6, prefix6, peer6         kobj.Field
	upper, adjList, adjDev, adjMaster                       kobj.Field
	xdp, xdpProg, xdpLink, linkProg, aux, auxID, auxName    kobj.Field
	xdpSize                                                 uint32
}

func netDevLayoutOf(s *linux.System) (*netDevLayout, error) {
	return kobj.LayoutOf(s.Walker, "network devices", func(r *kobj.Resolver, o *netDevLayout) {
		d := func(paths ...string) kobj.Field { return r.Field("net_device", paths...) }
		m := func(paths ...string) kobj.Field { return r.Optional("net_device", paths...) }
		o.flags, o.gflags, o.state, o.mtu = d("flags"), d("gflags"), d("state"), d("mtu")
		o.operstate, o.promisc, o.allmulti = d("operstate"), d("promiscuity"), d("allmulti")
		o.macAddr, o.macLen = d("dev_addr"), d("addr_len")
		o.alias, o.aliasText = m("ifalias"), r.Optional("dev_ifalias", "ifalias")
		o.ops, o.xmit = d("netdev_ops"), r.Field("net_device_ops", "ndo_start_xmit")
		o.linkOps, o.kind = d("rtnl_link_ops"), r.Field("rtnl_link_ops", "kind")
		o.qdisc, o.qdiscOps, o.qdiscID = d("qdisc"), r.Field("Qdisc", "ops"), r.Field("Qdisc_ops", "id")
		o.ipPtr, o.ifaList, o.ifaNext = m("ip_ptr"), r.Optional("in_device", "ifa_list"), r.Optional("in_ifaddr", "ifa_next")
		o.ifaLocal, o.ifaPrefix = r.Optional("in_ifaddr", "ifa_local"), r.Optional("in_ifaddr", "ifa_prefixlen")
		o.ifaAddress, o.ifaLabel, o.peer6 = r.Optional("in_ifaddr", "ifa_address"), r.Optional("in_ifaddr", "ifa_label"), r.Optional("inet6_ifaddr", "peer_addr")
		o.ip6Ptr, o.addrList = m("ip6_ptr"), r.Optional("inet6_dev", "addr_list")
		o.ifList, o.addr6, o.prefix6 = r.Optional("inet6_ifaddr", "if_list"), r.Optional("inet6_ifaddr", "addr"), r.Optional("inet6_ifaddr", "prefix_len")
		o.upper, o.adjList = d("adj_list.upper"), r.Field("netdev_adjacent", "list")
		o.adjDev, o.adjMaster = r.Field("netdev_adjacent", "dev"), r.Field("netdev_adjacent", "master")
		o.xdp, o.xdpProg, o.xdpLink = m("xdp_state"), r.Optional("bpf_xdp_entity", "prog"), r.Optional("bpf_xdp_entity", "link") // 5.9
		o.linkProg = r.Optional("bpf_xdp_link", "link.prog")
		o.aux, o.auxID, o.auxName = r.Optional("bpf_prog", "aux"), r.Optional("bpf_prog_aux", "id"), r.Optional("bpf_prog_aux", "name")
		o.xdpSize, _ = r.Types.StructSize("bpf_xdp_entity")
	})
}

// Devices yields the network devices of all namespaces, in order of registration. By
// owners it knows the functions that count.
func Devices(ctx context.Context, s *linux.System, owners *linux.Owners) iter.Seq2[*Device, error] {
	return overDevices(ctx, s, func(w *netDevReader) deviceOf {
		w.names, w.owners = NewDeviceNames(s), owners
		w.counting, w.countingErr = netCountLayoutOf(s)
		w.tc, w.tcErr = tcLayoutOf(s)
		return func(n Namespace, dev virt.Addr, err error) (*Device, error) {
			if err != nil {
				return nil, err
			}
			return w.device(ctx, n, dev)
		}
	})
}

type netDevReader struct {
	s     *linux.System
	o     *netDevLayout
	ns    *netNSLayout
	r     kobj.Reader
	names *DeviceNames

	counting    *netCountLayout
	countingErr error
	owners      *linux.Owners
	tc          *tcLayout
	tcErr       error
}

func (w *netDevReader) device(ctx context.Context, n Namespace, a virt.Addr) (*Device, error) {
	o, r := w.o, &w.r
	d := &Device{Addr: a, Net: n}
	_, err := kobj.Read(r, func() int {
		w.state(d)
		d.Ops = r.Pointer(a, o.ops)
		return 0
	})
	if err != nil {
		return nil, fmt.Errorf("network device at %#x: %w", uint64(a), err)
	}
	part := func(what string, read func()) {
		if _, err := kobj.Read(r, func() int { read(); return 0 }); err != nil {
			d.Errs = append(d.Errs, fmt.Errorf("%s of network device %q: %w", what, d.Name, err))
		}
	}
	part("driver", func() {
		if d.Ops != 0 {
			d.Transmit = r.Pointer(d.Ops, o.xmit)
		}
		if ops := r.Pointer(a, o.linkOps); ops != 0 {
			if kind := r.Pointer(ops, o.kind); kind != 0 {
				d.Kind = r.CString(kind, 32)
			}
		}
	})
	part("hardware address", func() {
		if n := min(r.Uint(a, o.macLen), 32); n != 0 {
			d.MAC = append(d.MAC, r.Bytes(r.Pointer(a, o.macAddr), int(n))...)
		}
	})
	part("alias", func() {
		if p := r.Pointer(a, o.alias); p != 0 && o.aliasText.Present() {
			d.Alias = r.CString(o.aliasText.At(p), 256)
		}
	})
	part("queueing discipline", func() {
		if q := r.Pointer(a, o.qdisc); q != 0 {
			d.Qdisc = r.CString(o.qdiscID.At(r.Pointer(q, o.qdiscOps)), 16)
		}
	})
	part("addresses", func() { w.addresses(ctx, d) })
	part("programs", func() { w.programs(d) })
	part("programs of tc", func() { w.tcPrograms(ctx, d) })
	part("counters", func() { w.counters(d) })
	w.master(ctx, d)
	return d, nil
}

const (
	linkStart = 1 << 0 // __LINK_STATE_START
	operDown  = 2      // IF_OPER_DOWN
)

// netFlags are the flags as dev_get_flags reports them: PROMISC and ALLMULTI only as
// far as an administrator asked for them, the rest of those four from the state.
func netFlags(flags, gflags uint32, state uint64, oper uint8) uint32 {
	const (
		promisc, allmulti, running, lowerUp, dormant = 0x100, 0x200, 0x40, 0x10000, 0x20000
		noCarrier, isDormant                         = 1 << 2, 1 << 4
		operUnknown, operUp                          = 0, 6
	)
	f := flags&^(promisc|allmulti|running|lowerUp|dormant) | gflags&(promisc|allmulti)
	if state&linkStart == 0 {
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

func (w *netDevReader) addresses(ctx context.Context, d *Device) {
	o, r := w.o, &w.r
	if in := r.Pointer(d.Addr, o.ipPtr); in != 0 {
		seen := 0
		for ifa := r.Pointer(in, o.ifaList); ifa != 0 && r.Err == nil && seen < maxNetAddresses; seen++ {
			ip := netIPv4(uint32(r.Uint(ifa, o.ifaLocal)))
			a := Address{Prefix: netip.PrefixFrom(ip, int(min(r.Uint(ifa, o.ifaPrefix), 32)))}
			if o.ifaAddress.Present() {
				if peer := netIPv4(uint32(r.Uint(ifa, o.ifaAddress))); peer != ip {
					a.Peer = peer
				}
			}
			if o.ifaLabel.Present() {
				a.Label = r.CString(o.ifaLabel.At(ifa), int(min(o.ifaLabel.Size, 16)))
			}
			d.Addresses = append(d.Addresses, a)
			ifa = r.Pointer(ifa, o.ifaNext)
		}
	}
	in6 := r.Pointer(d.Addr, o.ip6Ptr)
	if in6 == 0 || r.Err != nil || !o.addrList.Present() {
		return
	}
	for node, err := range w.s.List(ctx, o.addrList.At(in6), maxNetAddresses) {
		if err != nil {
			d.Errs = append(d.Errs, err)
			continue
		}
		ifa := node - virt.Addr(o.ifList.Offset)
		var ip [16]byte
		copy(ip[:], r.Bytes(o.addr6.At(ifa), 16))
		a := Address{Prefix: netip.PrefixFrom(netip.AddrFrom16(ip), int(min(r.Uint(ifa, o.prefix6), 128)))}
		if o.peer6.Present() {
			copy(ip[:], r.Bytes(o.peer6.At(ifa), 16))
			if peer := netip.AddrFrom16(ip); !peer.IsUnspecified() {
				a.Peer = peer
			}
		}
		d.Addresses = append(d.Addresses, a)
	}
}

func (w *netDevReader) programs(d *Device) {
	o, r := w.o, &w.r
	if !o.aux.Present() || !o.auxID.Present() || !o.auxName.Present() {
		return
	}
	if o.xdp.Present() && o.xdpProg.Present() {
		for i, mode := range []string{"generic", "native", "offload"} { // enum bpf_xdp_mode
			e := o.xdp.At(d.Addr) + virt.Addr(uint32(i)*o.xdpSize)
			prog := r.Pointer(e, o.xdpProg)
			if link := r.Pointer(e, o.xdpLink); link != 0 && o.linkProg.Present() {
				prog = r.Pointer(link, o.linkProg)
			}
			if prog != 0 {
				d.XDP = append(d.XDP, w.program(mode, prog, ""))
			}
		}
	}
}

func (w *netDevReader) program(mode string, prog virt.Addr, how string) Program {
	o, r := w.o, &w.r
	aux := r.Pointer(prog, o.aux)
	return Program{mode, uint32(r.Uint(aux, o.auxID)), kobj.CString(slices.Clone(r.Bytes(o.auxName.At(aux), 16))), how}
}

func (w *netDevReader) master(ctx context.Context, d *Device) {
	const most = 4096
	for node, err := range w.s.List(ctx, w.o.upper.At(d.Addr), most) {
		if err != nil {
			d.Errs = append(d.Errs, fmt.Errorf("master of network device %q: %w", d.Name, err))
			return
		}
		adj := node - virt.Addr(w.o.adjList.Offset)
		dev, err := kobj.Read(&w.r, func() virt.Addr {
			if w.r.Uint(adj, w.o.adjMaster) == 0 {
				return 0
			}
			return w.r.Pointer(adj, w.o.adjDev)
		})
		if err == nil && dev != 0 {
			d.Master = w.names.Name(dev)
		}
	}
}
