package views

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "routes", Group: table.Network,
		Doc: `Show the routes of a guest: all tables of all network namespaces, IPv4 and IPv6.

A route with several next hops has a line for each; next hops that are objects of their
own (ip nexthop) are followed. The view ip_rules shows which table is asked. What is not
seen: routes learnt for single destinations (exceptions), what an encapsulation does, the
algorithm against congestion that a route asks for, when a route expires, multicast
forwarding.`,
		Source:  "fib_table_hash: the trie of fib_alias and fib_info; fib6_table: fib6_node and fib6_info; struct nexthop",
		Key:     []string{"net_ns", "table", "destination", "from", "tos", "metric", "type", "gateway", "interface"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, routeColumns, fromEach(of(network.Routes))))
}

var routeColumns = table.Columns[network.Route]{
	{Name: "table", Type: table.Uint, Doc: "Routing table: 254 is main, 255 local.", Get: func(r *network.Route) table.Value { return unsigned(r.Table) }},
	{
		Name: "destination", Type: table.Text, Doc: "Destination with the length of its prefix.",
		Get: func(r *network.Route) table.Value { return table.TextValue(r.Dst.String()) },
	},
	{
		Name: "gateway", Type: table.Text, Doc: "Next hop; missing where the destination is on the link.",
		Get: func(r *network.Route) table.Value { return ipCell(r.Gateway) },
	},
	{
		Name: "interface", Type: table.Text, Doc: "Device; missing for routes that lead nowhere.",
		Get: func(r *network.Route) table.Value { return text(r.Interface) },
	},
	{
		Name: "source", Type: table.Text, Doc: "Preferred source address; missing without one.",
		Get: func(r *network.Route) table.Value { return ipCell(r.Source) },
	},
	{Name: "metric", Type: table.Uint, Doc: "Priority: the lowest is taken.", Get: func(r *network.Route) table.Value { return unsigned(r.Metric) }},
	{
		Name: "type", Type: table.Text, Doc: "unicast, local, broadcast, anycast, multicast, blackhole, unreachable, prohibit, throw.",
		Get: func(r *network.Route) table.Value { return table.TextValue(listed(routeTypes, uint64(r.Type))) },
	},
	{
		Name: "protocol", Type: table.Text, Doc: "Who made it: kernel, boot, static, ra, dhcp, bird, zebra …; a number if it has no name here.",
		Get: func(r *network.Route) table.Value { return routeNamed(routeProtos, r.Protocol) },
	},
	{
		Name: "from", Type: table.Text, Extra: true, Doc: "Sources that an IPv6 route is for; missing for all.",
		Get: func(r *network.Route) table.Value { return prefixCell(r.From) },
	},
	{
		Name: "tos", Type: table.Uint, Extra: true, Doc: "Type of service that an IPv4 route is for; missing for all.",
		Get: func(r *network.Route) table.Value { return positive(r.TOS) },
	},
	{
		Name: "scope", Type: table.Text, Extra: true, Doc: "Scope of an IPv4 route: global, site, link, host, nowhere; missing for IPv6.",
		Get: func(r *network.Route) table.Value { return when(r.Dst.Addr().Is4(), routeNamed(routeScopes, r.Scope)) },
	},
	{
		Name: "flags", Type: table.List, Extra: true, Doc: "Flags of the next hop: dead, pervasive, onlink, offload, linkdown, unresolved, trap.",
		Get: func(r *network.Route) table.Value { return list(bitNames(uint32(r.Flags), routeFlags)) },
	},
	{
		Name: "nexthop", Type: table.Uint, Extra: true, Doc: "Identifier of its nexthop object; missing without one.",
		Get: func(r *network.Route) table.Value { return positive(r.Nexthop) },
	},
	{
		Name: "weight", Type: table.Uint, Extra: true, Doc: "Share of this next hop among several; missing for a single one.",
		Get: func(r *network.Route) table.Value { return positive(r.Weight) },
	},
	{
		Name: "encap", Type: table.Text, Extra: true, Doc: "Encapsulation: mpls, ip, ip6, seg6, bpf …; missing without.",
		Get: func(r *network.Route) table.Value { return text(listed(routeEncaps, uint64(r.Encap))) },
	},
	{
		Name: "preference", Type: table.Text, Extra: true, Doc: "Preference of the router that announced an IPv6 route: low, medium, high.",
		Get: func(r *network.Route) table.Value {
			return when(!r.Dst.Addr().Is4(), table.TextValue(listed(routePreferences, uint64(r.Preference))))
		},
	},
	{
		Name: "metrics", Type: table.List, Extra: true, Doc: "What else it asks for: mtu, advmss, hoplimit, initcwnd …; missing where nothing.",
		Get: func(r *network.Route) table.Value { return list(routeMetricList(r)) },
	},
	{
		Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace.",
		Get: func(r *network.Route) table.Value { return unsigned(r.Net.Inode) },
	},
	{
		Name: "route", Type: table.Addr, Extra: true, Doc: "Address of the fib_alias (IPv4) or fib6_info.",
		Get: func(r *network.Route) table.Value { return address(r.Addr) },
	},
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

var routePreferences = []string{"medium", "high", "invalid", "low"}

// routeMetricList are the metrics of a route that are set, by name.
func routeMetricList(r *network.Route) (metrics []string) {
	for i, v := range r.Metrics {
		if name := listed(routeMetrics, uint64(i)); v != 0 && name != "" {
			metrics = append(metrics, fmt.Sprintf("%s %d", name, v))
		}
	}
	return metrics
}
