package views

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"strconv"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "interfaces", Group: table.Network,
		Doc: `Show the network devices of a guest, those of all network namespaces.

Flags are those that ip shows; "promiscuity" counts how often something asked for all
frames, a packet socket included, which no flag tells. The owner of the transmit function
is the driver.

Counters are added up as the kernel does it for ip -s link: those of the kernel's core,
and those of veth, virtio_net, tun, VLANs, macvlan, bridges, tunnels, VRFs and dummies. Where
another driver counts (bonds, most hardware) they are missing. The structures of a driver
or classifier that is a module are known since 5.11: before, the counters of veth, tun and
virtio_net are missing, and so is "tc" where such a filter is.

What is not seen: programs that tc has in actions of filters other than bpf and matchall,
on classes of htb below its root, and in queueing disciplines other than prio, htb and
fq_codel ("tc" is missing where such a one could have filters).`,
		Columns: interfaceColumns,
		Rows:    interfaceRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var interfaceColumns = append([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Name of the device."},
	{Name: "index", Type: table.Int, Doc: "Its index in its namespace."},
	{Name: "net_ns", Type: table.Uint, Doc: "Inode of the network namespace."},
	{Name: "mac", Type: table.Text, Doc: "Hardware address; missing where the kind has none."},
	{Name: "addresses", Type: table.List, Doc: "IPv4 and IPv6 addresses with the lengths of their prefixes."},
	{Name: "peers", Type: table.List, Extra: true, Doc: "Addresses with another one at the other end: the device's, and that with the length of its prefix."},
	{Name: "labels", Type: table.List, Extra: true, Doc: "IPv4 addresses with a label that is not the device's name."},
	{Name: "flags", Type: table.List, Doc: "Flags, as ip shows them."},
	{Name: "promiscuity", Type: table.Uint, Doc: "How often promiscuous mode was asked for."},
	{Name: "allmulti", Type: table.Uint, Extra: true, Doc: "How often all multicast frames were asked for."},
	{Name: "mtu", Type: table.Uint, Doc: "Largest packet, in bytes."},
	{Name: "state", Type: table.Text, Doc: "Operational state (RFC 2863): unknown, up, down, lowerlayerdown, dormant …"},
	{Name: "kind", Type: table.Text, Doc: "Kind of a virtual device: bridge, veth, vxlan …; missing for lo and hardware."},
	{Name: "master", Type: table.Text, Doc: "Bridge, bond or other device that it belongs to."},
	{Name: "qdisc", Type: table.Text, Extra: true, Doc: "Queueing discipline."},
	{Name: "alias", Type: table.Text, Extra: true, Doc: "Alias given by the administrator."},
	{Name: "rx_bytes", Type: table.Size, Doc: "Bytes received; like all counters, missing where the driver keeps them its own way."},
	{Name: "rx_packets", Type: table.Uint, Extra: true, Doc: "Packets received."},
	{Name: "rx_errors", Type: table.Uint, Extra: true, Doc: "Packets received in error."},
	{Name: "rx_dropped", Type: table.Uint, Extra: true, Doc: "Packets received and dropped."},
	{Name: "tx_bytes", Type: table.Size, Doc: "Bytes sent."},
	{Name: "tx_packets", Type: table.Uint, Extra: true, Doc: "Packets sent."},
	{Name: "tx_errors", Type: table.Uint, Extra: true, Doc: "Packets not sent for an error."},
	{Name: "tx_dropped", Type: table.Uint, Extra: true, Doc: "Packets dropped instead of sent."},
	{Name: "xdp", Type: table.List, Doc: "XDP programs: mode, identifier and name."},
	{Name: "tc", Type: table.List, Doc: "Programs of tc, in the order in which they run: side, or the handle of a qdisc; identifier and name, or bytecode; how attached: tcx, cls_bpf (direct-action), act_bpf."},
	{Name: "device", Type: table.Addr, Extra: true, Doc: "Address of the struct net_device."},
	{Name: "ops", Type: table.Addr, Extra: true, Doc: "Address of its net_device_ops."},
}, functionColumns("transmit", "the function that sends a packet (ndo_start_xmit)")...)

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

func interfaceRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for d, err := range g.Linux.NetDevices(ctx, owners) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(interfaceRow(owners, d), errors.Join(d.Errs...)) {
				return
			}
		}
	}
}

func interfaceRow(owners *linux.Owners, d *linux.NetDevice) table.Row {
	state := strconv.Itoa(int(d.OperState))
	if int(d.OperState) < len(operStates) {
		state = operStates[d.OperState]
	}
	var addresses, peers, labels []string
	for _, a := range d.Addresses {
		addresses = append(addresses, a.String())
		if a.Peer.IsValid() {
			peers = append(peers, fmt.Sprintf("%s %s/%d", a.Addr(), a.Peer, a.Bits()))
		}
		if a.Label != "" && a.Label != d.Name {
			labels = append(labels, fmt.Sprintf("%s %s", a.Addr(), a.Label))
		}
	}
	var xdp, tc []string
	for _, p := range d.XDP {
		xdp = append(xdp, fmt.Sprintf("%s %d %s", p.Mode, p.ID, p.Name))
	}
	for _, p := range d.TC {
		if p.ID == 0 {
			tc = append(tc, fmt.Sprintf("%s bytecode %s", p.Mode, p.How))
		} else {
			tc = append(tc, fmt.Sprintf("%s %d %s %s", p.Mode, p.ID, p.Name, p.How))
		}
	}
	tcCell := someList(tc)
	if d.TCErr != nil {
		tcCell = unknown(d.TCErr)
	}
	var counters [8]table.Value
	for i := range counters {
		counters[i] = unknown(d.CountersErr)
	}
	if c := d.Counters; c != nil {
		u := table.UintValue
		counters = [8]table.Value{
			table.SizeValue(c.RxBytes), u(c.RxPackets), u(c.RxErrors), u(c.RxDropped),
			table.SizeValue(c.TxBytes), u(c.TxPackets), u(c.TxErrors), u(c.TxDropped),
		}
	}
	row := table.Row{
		table.TextValue(d.Name), table.IntValue(int64(d.Index)), table.UintValue(d.Net.Inode), text(net.HardwareAddr(d.MAC).String()),
		someList(addresses), someList(peers), someList(labels), table.ListValue(bitNames(d.Flags, linkFlags[:])), table.UintValue(uint64(d.Promisc)),
		table.UintValue(uint64(d.AllMulti)), table.UintValue(uint64(d.MTU)), table.TextValue(state), text(d.Kind),
		text(d.Master), text(d.Qdisc), text(d.Alias),
	}
	row = append(row, counters[:]...)
	at, symbol, owner := function(owners, d.Transmit)
	return append(row, someList(xdp), tcCell, address(d.Addr), address(d.Ops), at, symbol, owner)
}

// unknown is a cell of what this kernel keeps in a way that is not known, or of what
// could not be read.
func unknown(err error) table.Value {
	if errors.Is(err, kobj.ErrUnsupported) || errors.Is(err, linux.ErrNoModuleTypes) || errors.Is(err, linux.ErrNotLoaded) {
		return table.Missing(table.Unsupported)
	}
	return unreadable(err)
}

// someList is a cell of a list; an empty one is missing.
func someList(l []string) table.Value {
	if len(l) == 0 {
		return table.Missing(table.None)
	}
	return table.ListValue(l)
}
