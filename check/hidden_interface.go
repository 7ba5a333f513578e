package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-interface",
		Title:     "Network interfaces that a list of the kernel leaves out",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source:    "net.dev_base_head, dev_name_head (struct netdev_name_node) and dev_index_head of every network namespace",
		Proves: `An interface is known to one part of the kernel and not to another that knows every interface for as long as it is registered: ip link and /proc/net/dev go by
the list, a program that names it by the table of names, and routes and addresses by that of indexes. Somebody took it out of one, so that a tunnel or a tap is not seen.`,
		Blind: `An interface that was taken out of all three, and one in a network namespace that was taken off the list of namespaces.`,
		Next:  `"outsight interfaces TARGET" shows what the list has; the command shown reads the one that is missing. Look at its driver (netdev_ops), and who has it open: a tun or tap belongs to a process.`,
		Example: `An interface was taken off the list that "ip link" goes by:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK             TITLE
    high      certain     hidden-interface  interface dummy0 is missing from the list of interfaces`,
		Kept: true,
		Run:  hiddenInterfaces,
	})
}

// interfaceLayout is where members of the structures lie that lead to interfaces.
type interfaceLayout struct {
	byName, byIndex kobj.Field // of net
	index, state    kobj.Field // of net_device
	node, device    kobj.Field // of netdev_name_node
}

const (
	// interfaceBuckets are those of the tables of names and of indexes (NETDEV_HASHENTRIES).
	interfaceBuckets = 256
	maxInterfaces    = 1 << 20
	registered       = 1 // NETREG_REGISTERED
)

func hiddenInterfaces(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		o, err := kobj.LayoutOf(s.Linux.Walker, "ways to interfaces", func(r *kobj.Resolver, o *interfaceLayout) {
			o.byName, o.byIndex = r.Field("net", "dev_name_head"), r.Field("net", "dev_index_head")
			o.index, o.state = r.Field("net_device", "index_hlist"), r.Field("net_device", "reg_state")
			o.node, o.device = r.Field("netdev_name_node", "hlist"), r.Field("netdev_name_node", "dev") // 5.5
		})
		if err != nil {
			yield(nil, err)
			return
		}
		names := network.NewDeviceNames(s.Linux)
		for n, err := range network.Namespaces(ctx, s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			ways, errs := follow(ctx, s.interfaceWays(n, o))
			for _, err := range errs {
				if !yield(nil, fmt.Errorf("network namespace %d: %w", n.Inode, err)) {
					return
				}
			}
			r := s.Linux.Reader()
			for _, dev := range ways.objects() {
				in, out := ways.of(dev)
				r.Err = nil
				const mask = 0xff // it is a bit field of 8 up to 6.8
				if len(out) == 0 || r.Uint(dev, o.state)&mask != registered && r.Err == nil {
					continue // that is just being registered, or goes
				}
				if r.Err != nil {
					if !yield(nil, fmt.Errorf("interface at %#x: %w", uint64(dev), r.Err)) {
						return
					}
					continue
				}
				f := missing(Object{Kind: "interface", Name: names.Name(dev), Addr: dev}, "net_device", in, out)
				if !yield(f, nil) {
					return
				}
			}
		}
	}
}

func (s *Subject) interfaceWays(n network.Namespace, o *interfaceLayout) []way {
	table := func(head kobj.Field, device func(r *kobj.Reader, node virt.Addr) virt.Addr) func(context.Context, func(virt.Addr)) error {
		return func(ctx context.Context, met func(virt.Addr)) error {
			r := s.Linux.Reader()
			first := r.Pointer(n.Addr, head)
			if r.Err != nil || first == 0 {
				return r.Err // a namespace that is just being made
			}
			left := maxInterfaces // of all buckets: forged ones may share what they lead to
			for bucket := range virt.Addr(interfaceBuckets) {
				for node, err := range s.Linux.HList(ctx, first+8*bucket, left) {
					left--
					if err != nil {
						return err
					}
					if dev := device(&r, node); r.Err != nil {
						return r.Err
					} else if dev != 0 {
						met(dev)
					}
				}
			}
			return nil
		}
	}
	return []way{
		{"the list of interfaces", func(ctx context.Context, met func(virt.Addr)) error {
			for dev, err := range network.DeviceAddrs(ctx, s.Linux, n) {
				if err != nil {
					return err
				}
				met(dev)
			}
			return nil
		}},
		{"the table of their names", table(o.byName, func(r *kobj.Reader, node virt.Addr) virt.Addr { return r.Pointer(node-o.node.At(0), o.device) })},
		{"the table of their indexes", table(o.byIndex, func(_ *kobj.Reader, node virt.Addr) virt.Addr { return node - o.index.At(0) })},
	}
}
