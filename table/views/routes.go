package views

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"strconv"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "routes", Group: table.Network,
		Doc: `Show the routes of a guest: all tables of all network namespaces, IPv4 and IPv6.

A route with several next hops has a line for each; next hops that are objects of their
own (ip nexthop) are followed. Which table is asked is in the view rules. What is not
seen: routes learnt for single destinations (exceptions), what an encapsulation does, the
algorithm against congestion that a route asks for, when a route expires, multicast
forwarding.`,
		Columns: routeColumns,
		Rows:    routeRows,
		Of:      inNetwork,
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
	{Name: "from", Type: table.Text, Extra: true, Doc: "Sources that an IPv6 route is for; missing for all."},
	{Name: "tos", Type: table.Uint, Extra: true, Doc: "Type of service that an IPv4 route is for; missing for all."},
	{Name: "scope", Type: table.Text, Extra: true, Doc: "Scope of an IPv4 route: global, site, link, host, nowhere; missing for IPv6."},
	{Name: "flags", Type: table.List, Extra: true, Doc: "Flags of the next hop: dead, pervasive, onlink, offload, linkdown, unresolved, trap."},
	{Name: "nexthop", Type: table.Uint, Extra: true, Doc: "Identifier of its nexthop object; missing without one."},
	{Name: "weight", Type: table.Uint, Extra: true, Doc: "Share of this next hop among several; missing for a single one."},
	{Name: "encap", Type: table.Text, Extra: true, Doc: "Encapsulation: mpls, ip, ip6, seg6, bpf …; missing without."},
	{Name: "preference", Type: table.Text, Extra: true, Doc: "Preference of the router that told of an IPv6 route: low, medium, high."},
	{Name: "metrics", Type: table.List, Extra: true, Doc: "What else it asks for: mtu, advmss, hoplimit, initcwnd …; missing where nothing."},
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
	routeMetrics = []string{
		"lock", "mtu", "window", "rtt", "rttvar", "ssthresh", "cwnd", "advmss", "reordering", "hoplimit", "initcwnd", "features",
		"rto_min", "initrwnd", "quickack", "", "fastopen_no_cookie",
	}
	routeEncaps = []string{"", "mpls", "ip", "ila", "ip6", "seg6", "bpf", "seg6local", "rpl", "ioam6", "xfrm"}
	routeScopes = map[uint8]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
)

func routeRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
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

// routeNamed is a number by its name in names, or as it is.
func routeNamed(names map[uint8]string, n uint8) table.Value {
	if name, ok := names[n]; ok {
		return table.TextValue(name)
	}
	return table.TextValue(strconv.Itoa(int(n)))
}

// listed is the n-th of names, or the number.
func listed(names []string, n uint64) string {
	if n < uint64(len(names)) {
		return names[n]
	}
	return strconv.FormatUint(n, 10)
}

// prefixCell is a cell of a range of addresses.
func prefixCell(p netip.Prefix) table.Value {
	if !p.IsValid() {
		return table.Missing(table.None)
	}
	return table.TextValue(p.String())
}

func routeRow(r *linux.Route) table.Row {
	scope, preference := table.Missing(table.None), table.Missing(table.None)
	if r.Dst.Addr().Is4() {
		scope = routeNamed(routeScopes, r.Scope)
	} else {
		preference = table.TextValue(listed([]string{"medium", "high", "invalid", "low"}, uint64(r.Preference)))
	}
	var metrics []string
	for i, v := range r.Metrics {
		if name := listed(routeMetrics, uint64(i)); v != 0 && name != "" {
			metrics = append(metrics, fmt.Sprintf("%s %d", name, v))
		}
	}
	return table.Row{
		table.UintValue(uint64(r.Table)), table.TextValue(r.Dst.String()), ipCell(r.Gateway), text(r.Interface), ipCell(r.Source),
		table.UintValue(uint64(r.Metric)), table.TextValue(listed(routeTypes, uint64(r.Type))), routeNamed(routeProtos, r.Protocol),
		prefixCell(r.From), numberIf(r.TOS != 0, uint64(r.TOS)), scope,
		someList(bitNames(uint32(r.Flags), routeFlags)), numberIf(r.Nexthop != 0, uint64(r.Nexthop)),
		numberIf(r.Weight != 0, uint64(r.Weight)), text(listed(routeEncaps, uint64(r.Encap))), preference, texts(metrics),
		table.UintValue(r.Net.Inode), address(r.Addr),
	}
}
