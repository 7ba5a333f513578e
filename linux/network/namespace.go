package network

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// maxNetNS bounds the network namespaces of one guest, and maxNetDevices the
// devices of one namespace.
const (
	maxNetNS      = 1 << 16
	maxNetDevices = 1 << 16
)

// Namespace is a network namespace.
type Namespace struct {
	Addr  virt.Addr // of the struct net
	Inode uint64    // as the links in /proc/PID/ns/net show it
}

type netNSLayout struct {
	list, inum, devices        kobj.Field // struct net
	devList, devName, devIndex kobj.Field // struct net_device
}

func netNSLayoutOf(s *linux.System) (*netNSLayout, error) {
	return kobj.LayoutOf(s.Walker, "network namespaces", func(r *kobj.Resolver, o *netNSLayout) {
		r.Prefetch("net_namespace_list", "init_net")
		o.list, o.inum = r.Field("net", "list"), r.Field("net", "ns.inum")
		o.devices = r.Field("net", "dev_base_head")
		o.devList, o.devName = r.Field("net_device", "dev_list"), r.Field("net_device", "name")
		o.devIndex = r.Field("net_device", "ifindex")
	})
}

// netField is where the member of type possible_net_t leads to a network namespace. It is
// empty in a kernel without CONFIG_NET_NS, which has the initial one only.
func netField(r *kobj.Resolver, structure, member string) kobj.Field {
	if whole := r.Optional(structure, member); whole.Present() && whole.Size == 0 {
		return kobj.Field{}
	}
	return r.Field(structure, member+".net")
}

// netAt is the network namespace that member f, of netField, of the structure at a leads to.
func netAt(s *linux.System, r *kobj.Reader, a virt.Addr, f kobj.Field) virt.Addr {
	if f.Present() {
		return r.Pointer(a, f)
	}
	net, _ := s.Address("init_net")
	return net
}

// Namespaces yields the network namespaces on the kernel's list, the initial one
// first.
func Namespaces(ctx context.Context, s *linux.System) iter.Seq2[Namespace, error] {
	return func(yield func(Namespace, error) bool) {
		o, err := netNSLayoutOf(s)
		if err != nil {
			yield(Namespace{}, err)
			return
		}
		head, err := s.ListHead("net_namespace_list")
		if err != nil {
			yield(Namespace{}, fmt.Errorf("network namespaces: %w: %w", kobj.ErrUnsupported, err))
			return
		}
		r := s.Reader()
		for node, err := range s.List(ctx, head, maxNetNS) {
			n := Namespace{Addr: node - virt.Addr(o.list.Offset)}
			if err == nil {
				n.Inode, err = kobj.Read(&r, func() uint64 { return r.Uint(n.Addr, o.inum) })
			}
			if err != nil {
				n, err = Namespace{}, fmt.Errorf("network namespaces: %w", err)
			}
			if !yield(n, err) {
				return
			}
		}
	}
}

// DeviceAddrs yields the addresses of the net_device structures of n, in order of
// their registration.
func DeviceAddrs(ctx context.Context, s *linux.System, n Namespace) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		o, err := netNSLayoutOf(s)
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

// DeviceNames remembers the names of the devices of each namespace by index.
type DeviceNames struct {
	s     *linux.System
	r     kobj.Reader
	known map[virt.Addr]map[int32]string // by struct net
}

// NewDeviceNames prepares to look up the names of network devices by index.
func NewDeviceNames(s *linux.System) *DeviceNames {
	return &DeviceNames{s: s, r: s.Reader(), known: map[virt.Addr]map[int32]string{}}
}

// Of is the name of the device with that index in namespace n; empty if there is
// none.
func (d *DeviceNames) Of(ctx context.Context, n Namespace, index int32) string {
	names, ok := d.known[n.Addr]
	if !ok {
		names = map[int32]string{}
		d.known[n.Addr] = names
		for dev, err := range DeviceAddrs(ctx, d.s, n) {
			if err != nil {
				continue
			}
			o, _ := netNSLayoutOf(d.s)
			_, _ = kobj.Read(&d.r, func() int {
				names[int32(d.r.Uint(dev, o.devIndex))] = d.r.CString(o.devName.At(dev), 16)
				return 0
			})
		}
	}
	return names[index]
}

// Name is the name of the net_device at dev; empty for none.
func (d *DeviceNames) Name(dev virt.Addr) string {
	o, err := netNSLayoutOf(d.s)
	if dev == 0 || err != nil {
		return ""
	}
	name, _ := kobj.Read(&d.r, func() string { return d.r.CString(o.devName.At(dev), 16) })
	return name
}
