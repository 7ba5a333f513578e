package network

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxNetQueues bounds the queues of one device.
const maxNetQueues = 4096

type vethLayout struct {
	peer, dropped, rq                         kobj.Field // struct veth_priv
	size                                      uint32
	drops, packets, bytes, txErr, peerXmitErr kobj.Field // struct veth_rq
}

// veth counts what it sends for each CPU, and what came past the usual way for each
// queue; what one end sends the other receives.
func (w *netDevReader) veth(d *Device) (c Counters, err error) {
	o, err := linux.LayoutIn(w.s, "veth", "counters of veth", func(r *kobj.Resolver, o *vethLayout) {
		o.peer, o.dropped, o.rq = r.Field("veth_priv", "peer"), r.Field("veth_priv", "dropped"), r.Field("veth_priv", "rq")
		q := func(path string) kobj.Field { return r.Field("veth_rq", "stats.vs."+path) }
		o.size, o.drops, o.packets, o.bytes = r.Size("veth_rq"), q("rx_drops"), q("xdp_packets"), q("xdp_bytes")
		o.txErr, o.peerXmitErr = q("xdp_tx_err"), q("peer_tq_xdp_xmit_err")
	})
	if err != nil {
		return c, err
	}
	r := &w.r
	type queues struct{ drops, packets, bytes, txErr, peerXmitErr uint64 }
	received := func(d *Device) (q queues) {
		rq := r.Pointer(w.private(d), o.rq)
		for i := range min(r.Uint(d.Addr, w.counting.queues), maxNetQueues) {
			if rq == 0 || r.Err != nil {
				break
			}
			a := rq + virt.Addr(i*uint64(o.size))
			q.drops, q.packets, q.bytes = q.drops+r.Uint(a, o.drops), q.packets+r.Uint(a, o.packets), q.bytes+r.Uint(a, o.bytes)
			q.txErr, q.peerXmitErr = q.txErr+r.Uint(a, o.txErr), q.peerXmitErr+r.Uint(a, o.peerXmitErr)
		}
		return q
	}
	// Since 6.7 in both directions: what BPF hands to an end never was the other's.
	counted := func(a virt.Addr) (c Counters, err error) {
		if r.Uint(a, w.counting.statType) == statTstats {
			return w.percpu(a, w.counting.percpu, w.counting.tstats), nil
		}
		c.TxPackets, c.TxBytes, err = w.lstats(a)
		return c, err
	}
	if c, err = counted(d.Addr); err != nil {
		return c, err
	}
	own := received(d)
	c.TxDropped = r.Uint(w.private(d), o.dropped) + own.txErr
	c.RxDropped, c.RxBytes, c.RxPackets = own.drops+own.peerXmitErr, c.RxBytes+own.bytes, c.RxPackets+own.packets
	if p := r.Pointer(w.private(d), o.peer); p != 0 {
		sent, err := counted(p)
		if err != nil {
			return c, err
		}
		peer := received(&Device{Addr: p})
		c.RxBytes, c.RxPackets, c.RxDropped = c.RxBytes+sent.TxBytes, c.RxPackets+sent.TxPackets, c.RxDropped+peer.txErr
		c.TxBytes, c.TxPackets, c.TxDropped = c.TxBytes+peer.bytes, c.TxPackets+peer.packets, c.TxDropped+peer.peerXmitErr
	}
	return c, nil
}

type virtioNetLayout struct {
	sq, rq, pairs  kobj.Field // struct virtnet_info
	sqSize, rqSize uint32
	sent, received netCountFields
}

// virtio counts for each queue.
func (w *netDevReader) virtio(d *Device) (c Counters, err error) {
	o, err := linux.LayoutIn(w.s, "virtio_net", "counters of virtio_net", func(r *kobj.Resolver, o *virtioNetLayout) {
		o.sq, o.rq, o.pairs = r.Field("virtnet_info", "sq"), r.Field("virtnet_info", "rq"), r.Field("virtnet_info", "max_queue_pairs")
		o.sqSize, o.rqSize = r.Size("send_queue"), r.Size("receive_queue")
		o.sent = resolveNetCounts(r, "send_queue", [8]string{4: "stats.bytes", 5: "stats.packets", 6: "stats.tx_timeouts"})
		o.received = resolveNetCounts(r, "receive_queue", [8]string{0: "stats.bytes", 1: "stats.packets", 3: "stats.drops"})
		_ = r.Field("send_queue", "stats.bytes") // without those it is another driver
		_ = r.Field("receive_queue", "stats.bytes")
	})
	if err != nil {
		return c, err
	}
	r, info := &w.r, w.private(d)
	sq, rq := r.Pointer(info, o.sq), r.Pointer(info, o.rq)
	for i := range min(r.Uint(info, o.pairs), maxNetQueues) {
		if r.Err != nil {
			break
		}
		c.add(netCounts(r, sq+virt.Addr(i*uint64(o.sqSize)), o.sent))
		c.add(netCounts(r, rq+virt.Addr(i*uint64(o.rqSize)), o.received))
	}
	c.TxDropped += r.Uint(d.Addr, w.counting.stats.txDropped)
	return c, nil //nolint:nilerr // whoever asks looks at the reader
}
