package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

// NetCounters are a device's counters, as ip -s link shows them.
type NetCounters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

func (c *NetCounters) add(d NetCounters) {
	c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped = c.RxBytes+d.RxBytes, c.RxPackets+d.RxPackets, c.RxErrors+d.RxErrors, c.RxDropped+d.RxDropped
	c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped = c.TxBytes+d.TxBytes, c.TxPackets+d.TxPackets, c.TxErrors+d.TxErrors, c.TxDropped+d.TxDropped
}

// netCountFields are where a structure has the counters of [NetCounters]; some have
// not all.
type netCountFields struct {
	rxBytes, rxPackets, rxErrors, rxDropped Field
	txBytes, txPackets, txErrors, txDropped Field
}

func (r *resolver) netCounts(structure string, names [8]string) netCountFields {
	f := func(i int) Field {
		if names[i] == "" {
			return Field{}
		}
		return r.optional(structure, names[i])
	}
	return netCountFields{f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)}
}

func (r *reader) netCounts(a virt.Addr, f netCountFields) NetCounters {
	return NetCounters{
		r.num(a, f.rxBytes), r.num(a, f.rxPackets), r.num(a, f.rxErrors), r.num(a, f.rxDropped),
		r.num(a, f.txBytes), r.num(a, f.txPackets), r.num(a, f.txErrors), r.num(a, f.txDropped),
	}
}

type netCountLayout struct {
	stats64, getStats                       Field // struct net_device_ops
	percpu, statType                        Field
	queues, core, devRx, devTx, priv        Field
	size                                    uint32
	stats, tstats, dstats, coreStats, vlans netCountFields
	lPackets, lBytes                        Field
	vlanStats                               Field
}

func (s *System) netCountLayout() (*netCountLayout, error) {
	return layoutOf(s.Walker, "counters of network devices", func(r *resolver, o *netCountLayout) {
		d := func(path string) Field { return r.field("net_device", path) }
		m := func(path string) Field { return r.optional("net_device", path) }
		o.stats64, o.getStats = r.field("net_device_ops", "ndo_get_stats64"), r.field("net_device_ops", "ndo_get_stats")
		o.percpu, o.statType = d("tstats"), m("pcpu_stat_type") // 6.8; tstats is a union's with the others
		o.queues, o.priv, o.size = d("num_rx_queues"), m("priv"), r.size("net_device")
		o.stats = r.netCounts("net_device", [8]string{
			"stats.rx_bytes", "stats.rx_packets", "stats.rx_errors", "stats.rx_dropped",
			"stats.tx_bytes", "stats.tx_packets", "stats.tx_errors", "stats.tx_dropped",
		})
		o.tstats = r.netCounts("pcpu_sw_netstats", [8]string{"rx_bytes", "rx_packets", "", "", "tx_bytes", "tx_packets", "", ""})
		o.dstats = r.netCounts("pcpu_dstats", [8]string{"rx_bytes", "rx_packets", "", "rx_drops", "tx_bytes", "tx_packets", "", "tx_drops"})
		o.core, o.coreStats = m("core_stats"), r.netCounts("net_device_core_stats", [8]string{3: "rx_dropped", 7: "tx_dropped"}) // 5.18
		o.devRx, o.devTx = m("rx_dropped"), m("tx_dropped")                                                                      // until 5.17
		o.lPackets, o.lBytes = r.optional("pcpu_lstats", "packets"), r.optional("pcpu_lstats", "bytes")
		o.vlans = r.netCounts("vlan_pcpu_stats", [8]string{"rx_bytes", "rx_packets", "rx_errors", "", "tx_bytes", "tx_packets", "", "tx_dropped"})
		o.vlanStats = r.optional("vlan_dev_priv", "vlan_pcpu_stats")
	})
}

// statTstats is NETDEV_PCPU_STAT_TSTATS.
const statTstats = 2

// counters adds up a device's counters as dev_get_stats does: by the function that its
// driver has for it, or from where drivers without one count.
func (w *netDevReader) counters(d *NetDevice) {
	const dstats = 3 // NETDEV_PCPU_STAT_DSTATS
	if d.CountersErr = w.countingErr; w.countingErr != nil {
		return
	}
	o, r, a := w.counting, &w.r, d.Addr
	var c NetCounters
	var f64, f virt.Addr
	if d.Ops != 0 {
		f64, f = r.pointer(d.Ops, o.stats64), r.pointer(d.Ops, o.getStats)
	}
	switch {
	case f64 != 0:
		c, d.CountersErr = w.countedBy(d, f64)
	case f != 0:
		_, d.CountersErr = w.countedBy(d, f)
	default:
		c = r.netCounts(a, o.stats)
		switch kind := r.num(a, o.statType); {
		case has(o.statType) && kind == statTstats:
			c.add(w.percpu(a, o.percpu, o.tstats))
		case has(o.statType) && kind == dstats:
			c.add(w.percpu(a, o.percpu, o.dstats))
		}
	}
	if d.CountersErr != nil {
		return
	}
	if has(o.core) {
		c.add(w.percpu(a, o.core, o.coreStats))
	} else {
		c.RxDropped, c.TxDropped = c.RxDropped+r.num(a, o.devRx), c.TxDropped+r.num(a, o.devTx)
	}
	if d.CountersErr = r.err; r.err == nil {
		d.Counters = &c
	}
}

// netCounters are the functions that count, by name: of the kernel's core, and of
// drivers.
var netCounters = map[string]func(*netDevReader, *NetDevice) (NetCounters, error){
	"dev_get_tstats64":        (*netDevReader).tstats, // 5.11
	"ip_tunnel_get_stats64":   (*netDevReader).tstats, // until 5.10
	"tun_net_get_stats64":     (*netDevReader).tstats, // 5.11
	"br_get_stats64":          (*netDevReader).bridge, // until 5.10
	"vrf_get_stats64":         (*netDevReader).dstats,
	"loopback_get_stats64":    (*netDevReader).loopback,
	"dummy_get_stats64":       (*netDevReader).dummy,
	"nlmon_get_stats64":       (*netDevReader).monitor,
	"vsockmon_get_stats64":    (*netDevReader).monitor,
	"vlan_dev_get_stats64":    (*netDevReader).vlan,
	"macvlan_dev_get_stats64": (*netDevReader).macvlan,
	"veth_get_stats64":        (*netDevReader).veth,
	"virtnet_stats":           (*netDevReader).virtio,
}

// countedBy does what the function at f does, if that is known.
func (w *netDevReader) countedBy(d *NetDevice, f virt.Addr) (NetCounters, error) {
	who := w.owners.Of(f)
	count, ok := netCounters[who.Function()]
	if !ok || who.Kind != OwnerKernel && who.Kind != OwnerModule {
		return NetCounters{}, fmt.Errorf("%w: they are counted by %s of %s", ErrUnsupported, who.Function(), who)
	}
	return count(w, d)
}

// percpu adds up the copies of all CPUs of what member p of the structure at a points to.
func (w *netDevReader) percpu(a virt.Addr, p Field, f netCountFields) (c NetCounters) {
	base := w.r.pointer(a, p)
	if base == 0 {
		return c
	}
	for _, cpu := range w.s.cpus {
		c.add(w.r.netCounts(base+cpu, f))
	}
	return c
}

// private is where a driver's own part of the device begins (netdev_priv).
func (w *netDevReader) private(d *NetDevice) virt.Addr {
	if o := w.counting; has(o.priv) { // 6.10
		return at(d.Addr, o.priv)
	}
	const align = 32 // NETDEV_ALIGN
	return d.Addr + virt.Addr((w.counting.size+align-1)&^(align-1))
}

func (w *netDevReader) tstats(d *NetDevice) (NetCounters, error) {
	o, r := w.counting, &w.r
	if r.pointer(d.Addr, o.percpu) == 0 {
		return NetCounters{}, fmt.Errorf("%w: the driver has its own", ErrUnsupported) // tun until 5.10
	}
	c := r.netCounts(d.Addr, o.stats)
	c.add(w.percpu(d.Addr, o.percpu, o.tstats))
	return c, nil
}

func (w *netDevReader) dstats(d *NetDevice) (NetCounters, error) {
	if !has(w.counting.dstats.rxBytes) {
		return NetCounters{}, fmt.Errorf("struct pcpu_dstats: %w", ErrUnsupported)
	}
	return w.percpu(d.Addr, w.counting.percpu, w.counting.dstats), nil
}

// lstats adds up what a device has that counts in one direction.
func (w *netDevReader) lstats(a virt.Addr) (packets, bytes uint64, err error) {
	const none, lstats = 0, 1 // NETDEV_PCPU_STAT_; none where the driver allocates them itself
	o, r := w.counting, &w.r
	if kind := r.num(a, o.statType); !has(o.lPackets) || kind != none && kind != lstats {
		return 0, 0, fmt.Errorf("struct pcpu_lstats: %w", ErrUnsupported)
	}
	if base := r.pointer(a, o.percpu); base != 0 {
		for _, cpu := range w.s.cpus {
			packets, bytes = packets+r.num(base+cpu, o.lPackets), bytes+r.num(base+cpu, o.lBytes)
		}
	}
	return packets, bytes, nil
}

func (w *netDevReader) loopback(d *NetDevice) (NetCounters, error) {
	p, b, err := w.lstats(d.Addr)
	return NetCounters{RxPackets: p, RxBytes: b, TxPackets: p, TxBytes: b}, err
}

func (w *netDevReader) dummy(d *NetDevice) (NetCounters, error) {
	p, b, err := w.lstats(d.Addr)
	return NetCounters{TxPackets: p, TxBytes: b}, err
}

func (w *netDevReader) monitor(d *NetDevice) (NetCounters, error) {
	p, b, err := w.lstats(d.Addr)
	return NetCounters{RxPackets: p, RxBytes: b}, err
}

func (w *netDevReader) bridge(d *NetDevice) (NetCounters, error) {
	type bridgeLayout struct{ stats Field }
	b, err := layoutIn(w.s, "bridge", "counters of bridges", func(r *resolver, o *bridgeLayout) { o.stats = r.field("net_bridge", "stats") })
	if err != nil {
		return NetCounters{}, err
	}
	c := w.r.netCounts(d.Addr, w.counting.stats)
	c.add(w.percpu(w.private(d), b.stats, w.counting.tstats))
	return c, nil
}

func (w *netDevReader) vlan(d *NetDevice) (NetCounters, error) {
	if o := w.counting; has(o.vlanStats) && has(o.vlans.rxBytes) {
		return w.percpu(w.private(d), o.vlanStats, o.vlans), nil
	}
	return NetCounters{}, fmt.Errorf("struct vlan_dev_priv: %w", ErrUnsupported)
}

func (w *netDevReader) macvlan(d *NetDevice) (NetCounters, error) {
	type macvlanLayout struct{ stats Field }
	m, err := layoutIn(w.s, "macvlan", "counters of macvlan", func(r *resolver, o *macvlanLayout) { o.stats = r.field("macvlan_dev", "pcpu_stats") })
	if err != nil || !has(w.counting.vlans.rxBytes) {
		return NetCounters{}, fmt.Errorf("struct macvlan_dev: %w", eitherErr(err, ErrUnsupported))
	}
	c := w.percpu(w.private(d), m.stats, w.counting.vlans)
	c.RxDropped = c.RxErrors
	return c, nil
}

// eitherErr is err, or or where there is none.
func eitherErr(err, or error) error {
	if err != nil {
		return err
	}
	return or
}
