package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// maxNetNS bounds the network namespaces of one guest, and maxNetDevices the
// devices of one namespace.
const (
	maxNetNS      = 1 << 16
	maxNetDevices = 1 << 16
)

// NetNS is a network namespace.
type NetNS struct {
	Addr  virt.Addr // of the struct net
	Inode uint64    // as the links in /proc/PID/ns/net show it
}

type netNSLayout struct {
	list, inum, devices        Field // struct net
	devList, devName, devIndex Field // struct net_device
}

func (s *System) netNSLayout() (*netNSLayout, error) {
	return layoutOf(s.Walker, "network namespaces", func(r *resolver, o *netNSLayout) {
		r.symbols("net_namespace_list", "init_net")
		o.list, o.inum = r.field("net", "list"), r.field("net", "ns.inum")
		o.devices = r.field("net", "dev_base_head")
		o.devList, o.devName = r.field("net_device", "dev_list"), r.field("net_device", "name")
		o.devIndex = r.field("net_device", "ifindex")
	})
}

// NetNamespaces yields the network namespaces on the kernel's list, the initial one
// first.
func (s *System) NetNamespaces(ctx context.Context) iter.Seq2[NetNS, error] {
	return func(yield func(NetNS, error) bool) {
		o, err := s.netNSLayout()
		if err != nil {
			yield(NetNS{}, err)
			return
		}
		head, err := s.listHead("net_namespace_list")
		if err != nil {
			yield(NetNS{}, fmt.Errorf("network namespaces: %w: %w", ErrUnsupported, err))
			return
		}
		r := s.reader()
		for node, err := range s.list(ctx, head, maxNetNS) {
			n := NetNS{Addr: node - virt.Addr(o.list.Offset)}
			if err == nil {
				n.Inode, err = netGuarded(&r, func() uint64 { return r.num(n.Addr, o.inum) })
			}
			if err != nil {
				n, err = NetNS{}, fmt.Errorf("network namespaces: %w", err)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// netDevices yields the addresses of the net_device structures of n, in order of
// their registration.
func (s *System) netDevices(ctx context.Context, n NetNS) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		o, err := s.netNSLayout()
		if err != nil {
			yield(0, err)
			return
		}
		for node, err := range s.list(ctx, at(n.Addr, o.devices), maxNetDevices) {
			if err != nil {
				err = fmt.Errorf("network devices: %w", err)
			}
			if !yield(node-virt.Addr(o.devList.Offset), err) {
				return
			}
		}
	}
}

// netNames remembers the names of the devices of each namespace by index.
type netNames struct {
	s     *System
	r     reader
	known map[virt.Addr]map[int32]string // by struct net
}

func (s *System) netNames() *netNames {
	return &netNames{s: s, r: s.reader(), known: map[virt.Addr]map[int32]string{}}
}

// of is the name of the device with that index in namespace n; empty if there is
// none.
func (d *netNames) of(ctx context.Context, n NetNS, index int32) string {
	names, ok := d.known[n.Addr]
	if !ok {
		names = map[int32]string{}
		d.known[n.Addr] = names
		for dev, err := range d.s.netDevices(ctx, n) {
			if err != nil {
				continue
			}
			o, _ := d.s.netNSLayout()
			_, _ = netGuarded(&d.r, func() int {
				names[int32(d.r.num(dev, o.devIndex))] = d.r.cString(at(dev, o.devName), 16)
				return 0
			})
		}
	}
	return names[index]
}

// name is the name of the net_device at dev; empty for none.
func (d *netNames) name(dev virt.Addr) string {
	o, err := d.s.netNSLayout()
	if dev == 0 || err != nil {
		return ""
	}
	name, _ := netGuarded(&d.r, func() string { return d.r.cString(at(dev, o.devName), 16) })
	return name
}
