package views

import (
	"context"
	"iter"
	"strconv"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "routes", Group: table.Network,
		Doc: `Show the routes of a guest: all tables of all network namespaces, IPv4 and IPv6.

A route with several next hops has a line for each; next hops that are objects of their
own (ip nexthop) are followed. What is not seen: rules that choose a table (ip rule),
routes learnt for single destinations (exceptions), encapsulations, multicast
forwarding.`,
		Columns: routeColumns,
		Rows:    routeRows,
		Example: "lab:demo",
	}))
}

var routeColumns = []table.Column{
	{Name: "table", Type: table.Uint, Doc: "Routing table: 254 is main, 255 local."},
	{Name: "destination", Type: table.Text, Doc: "Destination with the length of its prefix."},
	{Name: "gateway", Type: table.Text, Doc: "Next hop; missing where the destination is on the link."},
	{Name: "interface", Type: table.Text, Doc: "Device; missing for routes that lead nowhere."},
	{Name: "source", Type: table.Text, Doc: "Preferred source address; missing without one."},
	{Name: "metric", Type: table.Uint, Doc: "Priority: the lowest is taken."},
	{Name: "type", Type: table.Text, Doc: "unicast, local, broadcast, anycast, multicast, blackhole, unreachable, prohibit, throw."},
	{Name: "protocol", Type: table.Text, Doc: "Who made it: kernel, boot, static, ra, dhcp, bird, zebra …; a number if it has no name here."},
	{Name: "scope", Type: table.Text, Extra: true, Doc: "Scope of an IPv4 route: global, site, link, host, nowhere; missing for IPv6."},
	{Name: "flags", Type: table.List, Extra: true, Doc: "Flags of the next hop: dead, pervasive, onlink, offload, linkdown, unresolved, trap."},
	{Name: "nexthop", Type: table.Uint, Extra: true, Doc: "Identifier of its nexthop object; missing without one."},
	{Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace."},
	{Name: "route", Type: table.Addr, Extra: true, Doc: "Address of the fib_alias (IPv4) or fib6_info."},
}

var (
	routeTypes  = []string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat", "xresolve"}
	routeFlags  = []string{"dead", "pervasive", "onlink", "offload", "linkdown", "unresolved", "trap"}
	routeProtos = map[uint8]string{
		0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird",
		13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived", 42: "babel", 99: "openr",
		186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp",
	}
	routeScopes = map[uint8]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
)

func routeRows(ctx context.Context, g *table.Guest, _ []table.Constraint) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for r, err := range g.Linux.Routes(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(routeRow(r), nil) {
				return
			}
		}
	}
}

func routeRow(r *linux.Route) table.Row {
	named := func(names map[uint8]string, n uint8) table.Value {
		if name, ok := names[n]; ok {
			return table.TextValue(name)
		}
		return table.TextValue(strconv.Itoa(int(n)))
	}
	kind := strconv.Itoa(int(r.Type))
	if int(r.Type) < len(routeTypes) {
		kind = routeTypes[r.Type]
	}
	scope := table.Missing(table.None)
	if r.Dst.Addr().Is4() {
		scope = named(routeScopes, r.Scope)
	}
	return table.Row{
		table.UintValue(uint64(r.Table)), table.TextValue(r.Dst.String()), ipCell(r.Gateway), text(r.Interface), ipCell(r.Source),
		table.UintValue(uint64(r.Metric)), table.TextValue(kind), named(routeProtos, r.Protocol), scope,
		someList(bitNames(uint32(r.Flags), routeFlags)), numberIf(r.Nexthop != 0, uint64(r.Nexthop)),
		table.UintValue(r.Net.Inode), address(r.Addr),
	}
}
