package network

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Counters are a device's counters, as ip -s link shows them.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

func (c *Counters) add(d Counters) {
	c.RxBytes, c.RxPackets, c.RxErrors, c.RxDropped = c.RxBytes+d.RxBytes, c.RxPackets+d.RxPackets, c.RxErrors+d.RxErrors, c.RxDropped+d.RxDropped
	c.TxBytes, c.TxPackets, c.TxErrors, c.TxDropped = c.TxBytes+d.TxBytes, c.TxPackets+d.TxPackets, c.TxErrors+d.TxErrors, c.TxDropped+d.TxDropped
}

// netCountFields are where a structure has the counters of [NetCounters]; some have
// not all.
type netCountFields struct {
	rxBytes, rxPackets, rxErrors, rxDropped kobj.Field
	txBytes, txPackets, txErrors, txDropped kobj.Field
}

func resolveNetCounts(r *kobj.Resolver, structure string, names [8]string) netCountFields {
	f := func(i int) kobj.Field {
		if names[i] == "" {
			return kobj.Field{}
		}
		return r.Optional(structure, names[i])
	}
	return netCountFields{f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)}
}

func netCounts(r *kobj.Reader, a virt.Addr, f netCountFields) Counters {
	return Counters{
		r.Uint(a, f.rxBytes), r.Uint(a, f.rxPackets), r.Uint(a, f.rxErrors), r.Uint(a, f.rxDropped),
		r.Uint(a, f.txBytes), r.Uint(a, f.txPackets), r.Uint(a, f.txErrors), r.Uint(a, f.txDropped),
	}
}

type netCountLayout struct {
	stats64, getStats                       kobj.Field // struct net_device_ops
	percpu, statType                        kobj.Field
	queues, core, devRx, devTx, priv        kobj.Field
	size                                    uint32
	stats, tstats, dstats, coreStats, vlans netCountFields
	lPackets, lBytes                        kobj.Field
	vlanStats                               kobj.Field
}

func netCountLayoutOf(s *linux.System) (*netCountLayout, error) {
	return kobj.LayoutOf(s.Walker, "counters of network devices", func(r *kobj.Resolver, o *netCountLayout) {
		d := func(path string) kobj.Field { return r.Field("net_device", path) }
		m := func(path string) kobj.Field { return r.Optional("net_device", path) }
		o.stats64, o.getStats = r.Field("net_device_ops", "ndo_get_stats64"), r.Field("net_device_ops", "ndo_get_stats")
		o.percpu, o.statType = d("tstats"), m("pcpu_stat_type") // 6.8; tstats is a union's with the others
		o.queues, o.priv, o.size = d("num_rx_queues"), m("priv"), r.Size("net_device")
		o.stats = resolveNetCounts(r, "net_device", [8]string{
			"stats.rx_bytes", "stats.rx_packets", "stats.rx_errors", "stats.rx_dropped",
			"stats.tx_bytes", "stats.tx_packets", "stats.tx_errors", "stats.tx_dropped",
		})
		o.tstats = resolveNetCounts(r, "pcpu_sw_netstats", [8]string{"rx_bytes", "rx_packets", "", "", "tx_bytes", "tx_packets", "", ""})
		o.dstats = resolveNetCounts(r, "pcpu_dstats", [8]string{"rx_bytes", "rx_packets", "", "rx_drops", "tx_bytes", "tx_packets", "", "tx_drops"})
		o.core, o.coreStats = m("core_stats"), resolveNetCounts(r, "net_device_core_stats", [8]string{3: "rx_dropped", 7: "tx_dropped"}) // 5.18
		o.devRx, o.devTx = m("rx_dropped"), m("tx_dropped")                                                                              // until 5.17
		o.lPackets, o.lBytes = r.Optional("pcpu_lstats", "packets"), r.Optional("pcpu_lstats", "bytes")
		o.vlans = resolveNetCounts(r, "vlan_pcpu_stats", [8]string{"rx_bytes", "rx_packets", "rx_errors", "", "tx_bytes", "tx_packets", "", "tx_dropped"})
		o.vlanStats = r.Optional("vlan_dev_priv", "vlan_pcpu_stats")
	})
}

// statTstats is NETDEV_PCPU_STAT_TSTATS.
const statTstats = 2

// counters adds up a device's counters as dev_get_stats does: by the function that its
// driver has for it, or from where drivers without one count.
func (w *netDevReader) counters(d *Device) {
	const dstats = 3 // NETDEV_PCPU_STAT_DSTATS
	if d.CountersErr = w.countingErr; w.countingErr != nil {
		return
	}
	o, r, a := w.counting, &w.r, d.Addr
	var c Counters
	var f64, f virt.Addr
	if d.Ops != 0 {
		f64, f = r.Pointer(d.Ops, o.stats64), r.Pointer(d.Ops, o.getStats)
	}
	switch {
	case f64 != 0:
		c, d.CountersErr = w.countedBy(d, f64)
	case f != 0:
		_, d.CountersErr = w.countedBy(d, f)
	default:
		c = netCounts(r, a, o.stats)
		switch kind := r.Uint(a, o.statType); {
		case o.statType.Present() && kind == statTstats:
			c.add(w.percpu(a, o.percpu, o.tstats))
		case o.statType.Present() && kind == dstats:
			c.add(w.percpu(a, o.percpu, o.dstats))
		}
	}
	if d.CountersErr != nil {
		return
	}
	if o.core.Present() {
		c.add(w.percpu(a, o.core, o.coreStats))
	} else {
		c.RxDropped, c.TxDropped = c.RxDropped+r.Uint(a, o.devRx), c.TxDropped+r.Uint(a, o.devTx)
	}
	if d.CountersErr = r.Err; r.Err == nil {
		d.Counters = &c
	}
}

// NetCounters are the functions that count, by name: of the kernel's core, and of
// drivers.
var NetCounters = map[string]func(*netDevReader, *Device) (Counters, error){
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
func (w *netDevReader) countedBy(d *Device, f virt.Addr) (Counters, error) {
	who := w.owners.CodeAt(f)
	count, ok := NetCounters[who.Function()]
	if !ok || who.Kind != linux.OwnerKernel && who.Kind != linux.OwnerModule {
		return Counters{}, fmt.Errorf("%w: they are counted by %s of %s", kobj.ErrUnsupported, who.Function(), who)
	}
	return count(w, d)
}

// percpu adds up the copies of all CPUs of what member p of the structure at a points to.
func (w *netDevReader) percpu(a virt.Addr, p kobj.Field, f netCountFields) (c Counters) {
	base := w.r.Pointer(a, p)
	if base == 0 {
		return c
	}
	if w.r.Err == nil {
		w.r.Err = w.s.CPUAreasErr // the sum would lack what some of them hold
	}
	for _, cpu := range w.s.CPUAreas {
		c.add(netCounts(&w.r, base+cpu, f))
	}
	return c
}

// private is where a driver's own part of the device begins (netdev_priv).
func (w *netDevReader) private(d *Device) virt.Addr {
	if o := w.counting; o.priv.Present() { // 6.10
		return o.priv.At(d.Addr)
	}
	const align = 32 // NETDEV_ALIGN
	return d.Addr + virt.Addr((w.counting.size+align-1)&^(align-1))
}

func (w *netDevReader) tstats(d *Device) (Counters, error) {
	o, r := w.counting, &w.r
	if r.Pointer(d.Addr, o.percpu) == 0 {
		return Counters{}, fmt.Errorf("%w: the driver has its own", kobj.ErrUnsupported) // tun until 5.10
	}
	c := netCounts(r, d.Addr, o.stats)
	c.add(w.percpu(d.Addr, o.percpu, o.tstats))
	return c, nil
}

func (w *netDevReader) dstats(d *Device) (Counters, error) {
	if !w.counting.dstats.rxBytes.Present() {
		return Counters{}, fmt.Errorf("struct pcpu_dstats: %w", kobj.ErrUnsupported)
	}
	return w.percpu(d.Addr, w.counting.percpu, w.counting.dstats), nil
}

// lstats adds up what a device has that counts in one direction.
func (w *netDevReader) lstats(a virt.Addr) (packets, bytes uint64, err error) {
	const none, lstats = 0, 1 // NETDEV_PCPU_STAT_; none where the driver allocates them itself
	o, r := w.counting, &w.r
	if kind := r.Uint(a, o.statType); !o.lPackets.Present() || kind != none && kind != lstats {
		return 0, 0, fmt.Errorf("struct pcpu_lstats: %w", kobj.ErrUnsupported)
	}
	if base := r.Pointer(a, o.percpu); base != 0 {
		if w.s.CPUAreasErr != nil {
			return 0, 0, w.s.CPUAreasErr
		}
		for _, cpu := range w.s.CPUAreas {
			packets, bytes = packets+r.Uint(base+cpu, o.lPackets), bytes+r.Uint(base+cpu, o.lBytes)
		}
	}
	return packets, bytes, nil
}

func (w *netDevReader) loopback(d *Device) (Counters, error) {
	p, b, err := w.lstats(d.Addr)
	return Counters{RxPackets: p, RxBytes: b, TxPackets: p, TxBytes: b}, err
}

func (w *netDevReader) dummy(d *Device) (Counters, error) {
	p, b, err := w.lstats(d.Addr)
	return Counters{TxPackets: p, TxBytes: b}, err
}

func (w *netDevReader) monitor(d *Device) (Counters, error) {
	p, b, err := w.lstats(d.Addr)
	return Counters{RxPackets: p, RxBytes: b}, err
}

func (w *netDevReader) bridge(d *Device) (Counters, error) {
	type bridgeLayout struct{ stats kobj.Field }
	b, err := linux.LayoutIn(w.s, "bridge", "counters of bridges", func(r *kobj.Resolver, o *bridgeLayout) { o.stats = r.Field("net_bridge", "stats") })
	if err != nil {
		return Counters{}, err
	}
	c := netCounts(&w.r, d.Addr, w.counting.stats)
	c.add(w.percpu(w.private(d), b.stats, w.counting.tstats))
	return c, nil
}

func (w *netDevReader) vlan(d *Device) (Counters, error) {
	if o := w.counting; o.vlanStats.Present() && o.vlans.rxBytes.Present() {
		return w.percpu(w.private(d), o.vlanStats, o.vlans), nil
	}
	return Counters{}, fmt.Errorf("struct vlan_dev_priv: %w", kobj.ErrUnsupported)
}

func (w *netDevReader) macvlan(d *Device) (Counters, error) {
	type macvlanLayout struct{ stats kobj.Field }
	m, err := linux.LayoutIn(w.s, "macvlan", "counters of macvlan", func(r *kobj.Resolver, o *macvlanLayout) { o.stats = r.Field("macvlan_dev", "pcpu_stats") })
	if err != nil || !w.counting.vlans.rxBytes.Present() {
		return Counters{}, fmt.Errorf("struct macvlan_dev: %w", eitherErr(err, kobj.ErrUnsupported))
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
