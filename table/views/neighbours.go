package views

import (
	"net"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "neighbours", Group: table.Network,
		Doc: `Show the neighbours of a guest: its ARP and neighbour-discovery caches.

Those of all network namespaces are shown, as ip neigh shows them with "nud all", and the
entries by which the guest answers for others (ip neigh show proxy). What a bridge or a
VXLAN has learnt (bridge fdb) is not.`,
		Source:  "neigh_tables: neigh_hash_table and pneigh_entry",
		Key:     []string{"net_ns", "interface", "address", "flags"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, neighbourColumns, fromEach(of(network.Neighbours))))
}

var neighbourColumns = table.Columns[network.Neighbour]{
	{Name: "address", Type: table.Text, Doc: "IP address of the neighbour.", Get: func(n *network.Neighbour) table.Value { return ipCell(n.IP) }},
	{
		Name: "mac", Type: table.Text, Doc: "Its hardware address; missing where it is not known.",
		Get: func(n *network.Neighbour) table.Value { return text(net.HardwareAddr(n.MAC).String()) },
	},
	{
		Name: "interface", Type: table.Text, Doc: "Device through which it is reached; missing for a proxy on all of them.",
		Get: func(n *network.Neighbour) table.Value { return text(n.Interface) },
	},
	{
		Name: "state", Type: table.List, Doc: "State: INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT; missing before the first.",
		Get: func(n *network.Neighbour) table.Value { return list(bitNames(uint32(n.State), nudStates)) },
	},
	{
		Name: "flags", Type: table.List, Extra: true, Doc: "Flags: USE, SELF, MASTER, PROXY, EXT_LEARNED, OFFLOADED, STICKY, ROUTER, MANAGED, LOCKED, EXT_VALIDATED.",
		Get: func(n *network.Neighbour) table.Value { return list(bitNames(n.Flags, nudFlags)) },
	},
	{
		Name: "protocol", Type: table.Text, Extra: true, Doc: "Who made it: static, zebra, bird …; missing if unset.",
		Get: func(n *network.Neighbour) table.Value {
			return when(n.Protocol != 0, routeNamed(routeProtos, n.Protocol))
		},
	},
	{
		Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace.",
		Get: func(n *network.Neighbour) table.Value { return unsigned(n.Net.Inode) },
	},
	{
		Name: "neighbour", Type: table.Addr, Extra: true, Doc: "Address of the struct neighbour, or pneigh_entry.",
		Get: func(n *network.Neighbour) table.Value { return address(n.Addr) },
	},
}

var (
	nudStates = []string{"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT"}
	nudFlags  = []string{"USE", "SELF", "MASTER", "PROXY", "EXT_LEARNED", "OFFLOADED", "STICKY", "ROUTER", "MANAGED", "LOCKED", "EXT_VALIDATED"}
)
