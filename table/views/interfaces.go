package views

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strconv"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "interfaces", Group: table.Network,
		Doc: `Show the network devices of a guest, those of all network namespaces.

Flags are those that ip shows; "promiscuity" counts how often something asked for all
frames, a packet socket included, which no flag shows. The owner of the transmit function
is the driver.

Counters are added up as the kernel does it for ip -s link: those of the kernel's core,
and those of veth, virtio_net, tun, VLANs, macvlan, bridges, tunnels, VRFs and dummies. Where
another driver counts (bonds, most hardware) they are missing. The structures of a driver
or classifier that is a module are known since 5.11: before, the counters of veth, tun and
virtio_net are missing, and so is "tc" where such a filter is.

What is not seen: programs that tc has in actions of filters other than bpf and matchall,
on classes of htb below its root, and in queueing disciplines other than prio, htb and
fq_codel ("tc" is missing where such a one could have filters).`,
		Source:  "net_device of every network namespace, in_device and inet6_dev, Qdisc and tcf_proto, the private data of drivers",
		Key:     []string{"net_ns", "index"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, interfaceColumns, withOwners(netDevices)))
}

func interfaceColumns() table.Columns[owned[network.Device]] {
	return slices.Concat(
		plain(table.Columns[network.Device]{
			{Name: "name", Type: table.Text, Doc: "Name of the device.", Get: func(d *network.Device) table.Value { return table.TextValue(d.Name) }},
			{Name: "index", Type: table.Int, Doc: "Its index in its namespace.", Get: func(d *network.Device) table.Value { return integer(d.Index) }},
			{Name: "net_ns", Type: table.Uint, Doc: "Inode of the network namespace.", Get: func(d *network.Device) table.Value { return unsigned(d.Net.Inode) }},
			{
				Name: "mac", Type: table.Text, Doc: "Hardware address; missing where the kind has none.",
				Get: func(d *network.Device) table.Value { return text(net.HardwareAddr(d.MAC).String()) },
			},
			{
				Name: "addresses", Type: table.List, Doc: "IPv4 and IPv6 addresses with the lengths of their prefixes.",
				Get: func(d *network.Device) table.Value { return list(linkAddresses(d)) },
			},
			{
				Name: "peers", Type: table.List, Extra: true, Doc: "Addresses with another one at the other end: the device's, and that with the length of its prefix.",
				Get: func(d *network.Device) table.Value { return list(linkPeers(d)) },
			},
			{
				Name: "labels", Type: table.List, Extra: true, Doc: "IPv4 addresses with a label that is not the device's name.",
				Get: func(d *network.Device) table.Value { return list(linkLabels(d)) },
			},
			{
				Name: "flags", Type: table.List, Doc: "Flags, as ip shows them.",
				Get: func(d *network.Device) table.Value { return table.ListValue(bitNames(d.Flags, linkFlags[:])) },
			},
			{
				Name: "promiscuity", Type: table.Uint, Doc: "How often promiscuous mode was asked for.",
				Get: func(d *network.Device) table.Value { return unsigned(d.Promisc) },
			},
			{
				Name: "allmulti", Type: table.Uint, Extra: true, Doc: "How often all multicast frames were asked for.",
				Get: func(d *network.Device) table.Value { return unsigned(d.AllMulti) },
			},
			{Name: "mtu", Type: table.Uint, Doc: "Largest packet, in bytes.", Get: func(d *network.Device) table.Value { return unsigned(d.MTU) }},
			{
				Name: "state", Type: table.Text, Doc: "Operational state (RFC 2863): unknown, up, down, lowerlayerdown, dormant …",
				Get: func(d *network.Device) table.Value {
					if int(d.OperState) < len(operStates) {
						return table.TextValue(operStates[d.OperState])
					}
					return table.TextValue(strconv.Itoa(int(d.OperState)))
				},
			},
			{
				Name: "kind", Type: table.Text, Doc: "Kind of a virtual device: bridge, veth, vxlan …; missing for lo and hardware.",
				Get: func(d *network.Device) table.Value { return text(d.Kind) },
			},
			{
				Name: "master", Type: table.Text, Doc: "Bridge, bond or other device that it belongs to.",
				Get: func(d *network.Device) table.Value { return text(d.Master) },
			},
			{Name: "qdisc", Type: table.Text, Extra: true, Doc: "Queueing discipline.", Get: func(d *network.Device) table.Value { return text(d.Qdisc) }},
			{
				Name: "alias", Type: table.Text, Extra: true, Doc: "Alias given by the administrator.",
				Get: func(d *network.Device) table.Value { return text(d.Alias) },
			},
			{
				Name: "rx_bytes", Type: table.Size, Doc: "Bytes received; like all counters, missing where the driver keeps them its own way.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return size(c.RxBytes) })
				},
			},
			{
				Name: "rx_packets", Type: table.Uint, Extra: true, Doc: "Packets received.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.RxPackets) })
				},
			},
			{
				Name: "rx_errors", Type: table.Uint, Extra: true, Doc: "Packets received in error.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.RxErrors) })
				},
			},
			{
				Name: "rx_dropped", Type: table.Uint, Extra: true, Doc: "Packets received and dropped.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.RxDropped) })
				},
			},
			{
				Name: "tx_bytes", Type: table.Size, Doc: "Bytes sent.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return size(c.TxBytes) })
				},
			},
			{
				Name: "tx_packets", Type: table.Uint, Extra: true, Doc: "Packets sent.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.TxPackets) })
				},
			},
			{
				Name: "tx_errors", Type: table.Uint, Extra: true, Doc: "Packets not sent for an error.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.TxErrors) })
				},
			},
			{
				Name: "tx_dropped", Type: table.Uint, Extra: true, Doc: "Packets dropped instead of sent.",
				Get: func(d *network.Device) table.Value {
					return counter(d, func(c *network.Counters) table.Value { return unsigned(c.TxDropped) })
				},
			},
			{
				Name: "xdp", Type: table.List, Doc: "XDP programs: mode, identifier and name.",
				Get: func(d *network.Device) table.Value { return list(xdpPrograms(d)) },
			},
			{
				Name: "tc", Type: table.List, Doc: "Programs of tc, in the order in which they run: side, or the handle of a qdisc; identifier and name, or bytecode; how attached: tcx, cls_bpf (direct-action), act_bpf.",
				Get: func(d *network.Device) table.Value {
					if d.TCErr != nil {
						return unknown(d.TCErr)
					}
					return list(tcPrograms(d))
				},
			},
			{
				Name: "device", Type: table.Addr, Extra: true, Doc: "Address of the struct net_device.",
				Get: func(d *network.Device) table.Value { return address(d.Addr) },
			},
			{Name: "ops", Type: table.Addr, Extra: true, Doc: "Address of its net_device_ops.", Get: func(d *network.Device) table.Value { return address(d.Ops) }},
		}),
		code("transmit", "the function that sends a packet (ndo_start_xmit)", func(d *network.Device) virt.Addr { return d.Transmit }),
	)
}

var linkFlags = [...]string{
	"UP", "BROADCAST", "DEBUG", "LOOPBACK", "POINTOPOINT", "NOTRAILERS", "RUNNING", "NOARP", "PROMISC", "ALLMULTI",
	"MASTER", "SLAVE", "MULTICAST", "PORTSEL", "AUTOMEDIA", "DYNAMIC", "LOWER_UP", "DORMANT", "ECHO",
}

var operStates = [...]string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}

// bitNames are the names of the bits that are set; those without one as a number.
func bitNames(v uint32, names []string) []string {
	set := []string{}
	for i := range 32 {
		switch {
		case v&(1<<i) == 0:
		case i < len(names):
			set = append(set, names[i])
		default:
			set = append(set, fmt.Sprintf("%#x", uint32(1)<<i))
		}
	}
	return set
}

// unknown is a cell of what this kernel keeps in a way that is not known, or of what
// could not be read.
func unknown(err error) table.Value {
	if errors.Is(err, kobj.ErrUnsupported) || errors.Is(err, linux.ErrNoModuleTypes) || errors.Is(err, linux.ErrNotLoaded) {
		return table.MissingBecause(table.Unsupported, err)
	}
	return unreadable(err)
}

func linkAddresses(d *network.Device) (addresses []string) {
	for _, a := range d.Addresses {
		addresses = append(addresses, a.String())
	}
	return addresses
}

func linkPeers(d *network.Device) (peers []string) {
	for _, a := range d.Addresses {
		if a.Peer.IsValid() {
			peers = append(peers, fmt.Sprintf("%s %s/%d", a.Addr(), a.Peer, a.Bits()))
		}
	}
	return peers
}

func linkLabels(d *network.Device) (labels []string) {
	for _, a := range d.Addresses {
		if a.Label != "" && a.Label != d.Name {
			labels = append(labels, fmt.Sprintf("%s %s", a.Addr(), a.Label))
		}
	}
	return labels
}

func xdpPrograms(d *network.Device) (programs []string) {
	for _, p := range d.XDP {
		programs = append(programs, fmt.Sprintf("%s %d %s", p.Mode, p.ID, p.Name))
	}
	return programs
}

func tcPrograms(d *network.Device) (programs []string) {
	for _, p := range d.TC {
		if p.ID == 0 {
			programs = append(programs, fmt.Sprintf("%s bytecode %s", p.Mode, p.How))
		} else {
			programs = append(programs, fmt.Sprintf("%s %d %s %s", p.Mode, p.ID, p.Name, p.How))
		}
	}
	return programs
}

// counter is a cell of a counter of a device.
func counter(d *network.Device, cell func(*network.Counters) table.Value) table.Value {
	if d.Counters == nil {
		return unknown(d.CountersErr)
	}
	return cell(d.Counters)
}

func netDevices(ctx context.Context, s *linux.System, o *owners) iter.Seq2[*network.Device, error] {
	return withCode(o, func(owners *linux.Owners) iter.Seq2[*network.Device, error] {
		return func(yield func(*network.Device, error) bool) {
			for d, err := range whole(network.Devices(ctx, s, owners)) {
				if d != nil {
					err = errors.Join(d.Errs...)
				}
				if !yield(d, err) {
					return
				}
			}
		}
	})
}
