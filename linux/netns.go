package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/phys"
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
	list, inum, devices        kernel.Field // struct net
	devList, devName, devIndex kernel.Field // struct net_device
}

func (s *System) netNSLayout() (*netNSLayout, error) {
	return layoutOf(s, "network namespaces", func(r *resolver, o *netNSLayout) {
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

// netGuarded runs read, which uses r, guarded by itself, and returns its error with
// r fit for the next use.
func netGuarded[T any](r *reader, read func() T) (v T, err error) {
	defer func() {
		if r.err != nil && err == nil {
			err = r.err
		}
		if r.left > 0 {
			r.err = nil
		}
	}()
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	return read(), nil
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

// netBuckets reads the count heads of a hash table at base, stride bytes apart, in
// large pieces, and calls visit with the address of each that is not empty, until
// it returns false. The head lies off bytes into a bucket.
func (s *System) netBuckets(r *reader, base virt.Addr, count uint64, stride, off uint32, visit func(head virt.Addr) bool) error {
	const maxBuckets = 1 << 24 // the kernel itself stops at 512 Ki unless told otherwise
	if base == 0 || count == 0 {
		return nil
	}
	if !s.Space.KernelHalf(base) || count > maxBuckets || stride < 8 || stride > 1024 {
		return fmt.Errorf("hash table at %#x: %w: %d buckets", uint64(base), ErrBroken, count)
	}
	perPiece := uint64(phys.PageSize / stride)
	const maxGone = 64
	var heads []virt.Addr
	var first error
	gone := 0
	for at := uint64(0); at < count; at += perPiece {
		n := min(perPiece, count-at)
		start := base + virt.Addr(at*uint64(stride))
		heads = heads[:0]
		_, err := netGuarded(r, func() int {
			b := r.bytes(start, int(n)*int(stride))
			for i := range n {
				w := b[i*uint64(stride)+uint64(off):]
				// 0 ends a chain, and an odd word ends a nulls chain.
				if w[0]&1 == 0 && (w[0]|w[1]|w[2]|w[3]|w[4]|w[5]|w[6]|w[7]) != 0 {
					heads = append(heads, start+virt.Addr(i*uint64(stride)+uint64(off)))
				}
			}
			return 0
		})
		if err != nil && first == nil {
			first = fmt.Errorf("hash table at %#x: %w", uint64(base), err)
		}
		// A whole table is mapped: behind so much that is not there is none.
		if err != nil {
			if gone++; gone == maxGone {
				return first
			}
		}
		for _, h := range heads {
			if !visit(h) {
				return first
			}
		}
	}
	return first
}
