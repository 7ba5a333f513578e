package linux

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
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
	list, inum, devices        kobj.Field // struct net
	devList, devName, devIndex kobj.Field // struct net_device
}

func (s *System) netNSLayout() (*netNSLayout, error) {
	return kobj.LayoutOf(s.Walker, "network namespaces", func(r *kobj.Resolver, o *netNSLayout) {
		r.Prefetch("net_namespace_list", "init_net")
		o.list, o.inum = r.Field("net", "list"), r.Field("net", "ns.inum")
		o.devices = r.Field("net", "dev_base_head")
		o.devList, o.devName = r.Field("net_device", "dev_list"), r.Field("net_device", "name")
		o.devIndex = r.Field("net_device", "ifindex")
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
		head, err := s.ListHead("net_namespace_list")
		if err != nil {
			yield(NetNS{}, fmt.Errorf("network namespaces: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		r := s.Reader()
		for node, err := range s.List(ctx, head, maxNetNS) {
			n := NetNS{Addr: node - virt.Addr(o.list.Offset)}
			if err == nil {
				n.Inode, err = kobj.Guarded(&r, func() uint64 { return r.Uint(n.Addr, o.inum) })
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
		for node, err := range s.List(ctx, o.devices.At(n.Addr), maxNetDevices) {
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
	r     kobj.Reader
	known map[virt.Addr]map[int32]string // by struct net
}

func (s *System) netNames() *netNames {
	return &netNames{s: s, r: s.Reader(), known: map[virt.Addr]map[int32]string{}}
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
			_, _ = kobj.Guarded(&d.r, func() int {
				names[int32(d.r.Uint(dev, o.devIndex))] = d.r.CString(o.devName.At(dev), 16)
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
	name, _ := kobj.Guarded(&d.r, func() string { return d.r.CString(o.devName.At(dev), 16) })
	return name
}
