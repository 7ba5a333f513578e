package network

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// DeviceStates yields the network devices of all namespaces with their names, indexes, flags and
// promiscuity alone, in order of registration: a fraction of what [Devices] reads.
func DeviceStates(ctx context.Context, s *linux.System) iter.Seq2[*Device, error] {
	return overDevices(ctx, s, func(w *netDevReader) deviceOf {
		return func(n Namespace, dev virt.Addr, err error) (*Device, error) {
			d := &Device{Addr: dev, Net: n}
			if err == nil {
				_, err = kobj.Read(&w.r, func() int { w.state(d); return 0 })
			}
			if err != nil {
				return nil, fmt.Errorf("network device at %#x: %w", uint64(dev), err)
			}
			return d, nil
		}
	})
}

// deviceOf reads a device of a namespace, unless err says why it cannot be.
type deviceOf func(n Namespace, dev virt.Addr, err error) (*Device, error)

// overDevices yields what is read of the network devices of all namespaces, in order of registration.
func overDevices(ctx context.Context, s *linux.System, start func(*netDevReader) deviceOf) iter.Seq2[*Device, error] {
	return func(yield func(*Device, error) bool) {
		o, err := netDevLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		ns, err := netNSLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		read := start(&netDevReader{s: s, o: o, ns: ns, r: s.Reader()})
		for n, err := range Namespaces(ctx, s) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			for dev, err := range DeviceAddrs(ctx, s, n) {
				if !yield(read(n, dev, err)) {
					return
				}
			}
		}
	}
}

// state reads what d is called and how it is.
func (w *netDevReader) state(d *Device) {
	o, r, a := w.o, &w.r, d.Addr
	d.Name, d.Index = r.CString(w.ns.devName.At(a), 16), int32(r.Uint(a, w.ns.devIndex))
	d.Promisc, d.AllMulti, d.MTU = uint32(r.Uint(a, o.promisc)), uint32(r.Uint(a, o.allmulti)), uint32(r.Uint(a, o.mtu))
	d.OperState = uint8(r.Uint(a, o.operstate))
	d.Flags = netFlags(uint32(r.Uint(a, o.flags)), uint32(r.Uint(a, o.gflags)), r.Uint(a, o.state), d.OperState)
	if r.Uint(a, o.state)&linkStart == 0 {
		d.OperState = operDown // as rtnetlink reports it
	}
}
