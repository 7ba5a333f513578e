package views

import (
	"context"
	"iter"
	"net"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "neighbours", Group: table.Network,
		Doc: `Show the neighbours of a guest: its ARP and neighbour-discovery caches.

Those of all network namespaces are shown, as ip neigh shows them with "nud all", and the
entries by which the guest answers for others (ip neigh show proxy). What a bridge or a
VXLAN has learnt (bridge fdb) is not.`,
		Columns: neighbourColumns,
		Rows:    neighbourRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var neighbourColumns = []table.Column{
	{Name: "address", Type: table.Text, Doc: "IP address of the neighbour."},
	{Name: "mac", Type: table.Text, Doc: "Its hardware address; missing where it is not known."},
	{Name: "interface", Type: table.Text, Doc: "Device through which it is reached; missing for a proxy on all of them."},
	{Name: "state", Type: table.List, Doc: "State: INCOMPLETE, REACHABLE, STALE, DELAY, PROBE, FAILED, NOARP, PERMANENT; missing before the first."},
	{Name: "flags", Type: table.List, Extra: true, Doc: "Flags: USE, SELF, MASTER, PROXY, EXT_LEARNED, OFFLOADED, STICKY, ROUTER, MANAGED, LOCKED, EXT_VALIDATED."},
	{Name: "protocol", Type: table.Text, Extra: true, Doc: "Who made it: static, zebra, bird …; missing where nobody said."},
	{Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace."},
	{Name: "neighbour", Type: table.Addr, Extra: true, Doc: "Address of the struct neighbour, or pneigh_entry."},
}

var (
	nudStates = []string{"INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT"}
	nudFlags  = []string{"USE", "SELF", "MASTER", "PROXY", "EXT_LEARNED", "OFFLOADED", "STICKY", "ROUTER", "MANAGED", "LOCKED", "EXT_VALIDATED"}
)

func neighbourRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for n, err := range g.Linux.Neighbours(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(neighbourRow(n), nil) {
				return
			}
		}
	}
}

func neighbourRow(n *linux.Neighbour) table.Row {
	protocol := table.Missing(table.None)
	if n.Protocol != 0 {
		protocol = routeNamed(routeProtos, n.Protocol)
	}
	return table.Row{
		ipCell(n.IP), text(net.HardwareAddr(n.MAC).String()), text(n.Interface), someList(bitNames(uint32(n.State), nudStates)),
		someList(bitNames(n.Flags, nudFlags)), protocol, table.UintValue(n.Net.Inode), address(n.Addr),
	}
}
