package linux

import "github.com/outsight-vmi/outsight/virt"

// maxNetQueues bounds the queues of one device.
const maxNetQueues = 4096

type vethLayout struct {
	peer, dropped, rq                         Field // struct veth_priv
	size                                      uint32
	drops, packets, bytes, txErr, peerXmitErr Field // struct veth_rq
}

// veth counts what it sends for each CPU, and what came past the usual way for each
// queue; what one end sends the other receives.
func (w *netDevReader) veth(d *NetDevice) (c NetCounters, err error) {
	o, err := layoutIn(w.s, "veth", "counters of veth", func(r *resolver, o *vethLayout) {
		o.peer, o.dropped, o.rq = r.field("veth_priv", "peer"), r.field("veth_priv", "dropped"), r.field("veth_priv", "rq")
		q := func(path string) Field { return r.field("veth_rq", "stats.vs."+path) }
		o.size, o.drops, o.packets, o.bytes = r.size("veth_rq"), q("rx_drops"), q("xdp_packets"), q("xdp_bytes")
		o.txErr, o.peerXmitErr = q("xdp_tx_err"), q("peer_tq_xdp_xmit_err")
	})
	if err != nil {
		return c, err
	}
	r := &w.r
	type queues struct{ drops, packets, bytes, txErr, peerXmitErr uint64 }
	received := func(d *NetDevice) (q queues) {
		rq := r.pointer(w.private(d), o.rq)
		for i := range min(r.num(d.Addr, w.counting.queues), maxNetQueues) {
			if rq == 0 || r.err != nil {
				break
			}
			a := rq + virt.Addr(i*uint64(o.size))
			q.drops, q.packets, q.bytes = q.drops+r.num(a, o.drops), q.packets+r.num(a, o.packets), q.bytes+r.num(a, o.bytes)
			q.txErr, q.peerXmitErr = q.txErr+r.num(a, o.txErr), q.peerXmitErr+r.num(a, o.peerXmitErr)
		}
		return q
	}
	// Since 6.7 in both directions: what BPF hands to an end never was the other's.
	counted := func(a virt.Addr) (c NetCounters, err error) {
		if r.num(a, w.counting.statType) == statTstats {
			return w.percpu(a, w.counting.percpu, w.counting.tstats), nil
		}
		c.TxPackets, c.TxBytes, err = w.lstats(a)
		return c, err
	}
	if c, err = counted(d.Addr); err != nil {
		return c, err
	}
	own := received(d)
	c.TxDropped = r.num(w.private(d), o.dropped) + own.txErr
	c.RxDropped, c.RxBytes, c.RxPackets = own.drops+own.peerXmitErr, c.RxBytes+own.bytes, c.RxPackets+own.packets
	if p := r.pointer(w.private(d), o.peer); p != 0 {
		sent, err := counted(p)
		if err != nil {
			return c, err
		}
		peer := received(&NetDevice{Addr: p})
		c.RxBytes, c.RxPackets, c.RxDropped = c.RxBytes+sent.TxBytes, c.RxPackets+sent.TxPackets, c.RxDropped+peer.txErr
		c.TxBytes, c.TxPackets, c.TxDropped = c.TxBytes+peer.bytes, c.TxPackets+peer.packets, c.TxDropped+peer.peerXmitErr
	}
	return c, nil
}

type virtioNetLayout struct {
	sq, rq, pairs  Field // struct virtnet_info
	sqSize, rqSize uint32
	sent, received netCountFields
}

// virtio counts for each queue.
func (w *netDevReader) virtio(d *NetDevice) (c NetCounters, err error) {
	o, err := layoutIn(w.s, "virtio_net", "counters of virtio_net", func(r *resolver, o *virtioNetLayout) {
		o.sq, o.rq, o.pairs = r.field("virtnet_info", "sq"), r.field("virtnet_info", "rq"), r.field("virtnet_info", "max_queue_pairs")
		o.sqSize, o.rqSize = r.size("send_queue"), r.size("receive_queue")
		o.sent = r.netCounts("send_queue", [8]string{4: "stats.bytes", 5: "stats.packets", 6: "stats.tx_timeouts"})
		o.received = r.netCounts("receive_queue", [8]string{0: "stats.bytes", 1: "stats.packets", 3: "stats.drops"})
		_ = r.field("send_queue", "stats.bytes") // without those it is another driver
		_ = r.field("receive_queue", "stats.bytes")
	})
	if err != nil {
		return c, err
	}
	r, info := &w.r, w.private(d)
	sq, rq := r.pointer(info, o.sq), r.pointer(info, o.rq)
	for i := range min(r.num(info, o.pairs), maxNetQueues) {
		if r.err != nil {
			break
		}
		c.add(r.netCounts(sq+virt.Addr(i*uint64(o.sqSize)), o.sent))
		c.add(r.netCounts(rq+virt.Addr(i*uint64(o.rqSize)), o.received))
	}
	c.TxDropped += r.num(d.Addr, w.counting.stats.txDropped)
	return c, nil //nolint:nilerr // whoever asks looks at the reader
}
