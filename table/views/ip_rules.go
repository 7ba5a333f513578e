package views

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.Of(table.Spec{
		Name: "ip_rules", Group: table.Network,
		Doc: `Show the rules by which a guest chooses routing tables (ip rule).

Those of all network namespaces are shown, of IPv4, IPv6 and multicast, in the order in
which they are asked. What is not seen: realms, and the label of an IPv6 flow or the mask
of a type of service that a rule can ask for (since 6.14).`,
		Source:  "fib_rules_ops of every network namespace: fib_rule, fib4_rule, fib6_rule",
		Key:     []string{"net_ns", "family", "priority", "from", "to", "fwmark", "table"},
		Of:      inNetwork,
		Example: "lab:demo",
	}, ruleColumns, fromEach(of(network.Rules))))
}

var ruleColumns = table.Columns[network.Rule]{
	{
		Name: "family", Type: table.Text, Doc: "inet, inet6; ipmr and ip6mr for multicast.",
		Get: func(r *network.Rule) table.Value { return routeNamed(ruleFamilies, uint8(r.Family)) },
	},
	{Name: "priority", Type: table.Uint, Doc: "Priority: the lowest is asked first.", Get: func(r *network.Rule) table.Value { return unsigned(r.Priority) }},
	{Name: "from", Type: table.Text, Doc: "Sources that it is for; missing for all.", Get: func(r *network.Rule) table.Value { return prefixCell(r.From) }},
	{Name: "to", Type: table.Text, Doc: "Destinations that it is for; missing for all.", Get: func(r *network.Rule) table.Value { return prefixCell(r.To) }},
	{Name: "fwmark", Type: table.Text, Doc: "Mark of the packet, with the mask; missing for all.", Get: func(r *network.Rule) table.Value { return fwmark(r) }},
	{
		Name: "iif", Type: table.Text, Doc: "Interface through which the packet came; missing for all.",
		Get: func(r *network.Rule) table.Value { return text(r.In) },
	},
	{
		Name: "oif", Type: table.Text, Doc: "Interface to which its socket is bound; missing for all.",
		Get: func(r *network.Rule) table.Value { return text(r.Out) },
	},
	{
		Name: "action", Type: table.Text, Doc: "What happens: lookup, goto, nop, blackhole, unreachable, prohibit.",
		Get: func(r *network.Rule) table.Value { return routeNamed(ruleActions, r.Action) },
	},
	{
		Name: "table", Type: table.Uint, Doc: "Routing table that is asked: 254 is main, 255 local, 253 default.",
		Get: func(r *network.Rule) table.Value { return positive(r.Table) },
	},
	{
		Name: "goto", Type: table.Uint, Extra: true, Doc: "Priority at which to go on.",
		Get: func(r *network.Rule) table.Value { return when(r.Action == ruleGoto, unsigned(r.Goto)) },
	},
	{Name: "tos", Type: table.Uint, Extra: true, Doc: "Type of service; missing for all.", Get: func(r *network.Rule) table.Value { return positive(r.TOS) }},
	{
		Name: "ip_protocol", Type: table.Uint, Extra: true, Doc: "Protocol by number: 6 is TCP, 17 UDP; missing for all.",
		Get: func(r *network.Rule) table.Value { return positive(r.IPProtocol) },
	},
	{
		Name: "sport", Type: table.Text, Extra: true, Doc: "Source port or ports; missing for all.",
		Get: func(r *network.Rule) table.Value { return portRange(r.Sport) },
	},
	{
		Name: "dport", Type: table.Text, Extra: true, Doc: "Destination port or ports; missing for all.",
		Get: func(r *network.Rule) table.Value { return portRange(r.Dport) },
	},
	{
		Name: "uids", Type: table.Text, Extra: true, Doc: "Users whose sockets it is for; missing for all.",
		Get: func(r *network.Rule) table.Value {
			return numberRange(r.UIDs[0] != noUser && r.UIDs[1] != noUser, r.UIDs[0], r.UIDs[1])
		},
	},
	{
		Name: "tunnel", Type: table.Uint, Extra: true, Doc: "Identifier of the tunnel; missing for all.",
		Get: func(r *network.Rule) table.Value { return positive(r.Tunnel) },
	},
	{
		Name: "l3mdev", Type: table.Bool, Extra: true, Doc: "Whether the table is that of the interface's VRF.",
		Get: func(r *network.Rule) table.Value { return table.BoolValue(r.L3Master) },
	},
	{
		Name: "suppress_prefix", Type: table.Uint, Extra: true, Doc: "Longest prefix of routes that are passed over; missing for none.",
		Get: func(r *network.Rule) table.Value { return when(r.SuppressPrefix != -1, unsigned(r.SuppressPrefix)) },
	},
	{
		Name: "suppress_group", Type: table.Uint, Extra: true, Doc: "Group of interfaces, routes through which are passed over; missing for none.",
		Get: func(r *network.Rule) table.Value { return when(r.SuppressGroup != -1, unsigned(r.SuppressGroup)) },
	},
	{
		Name: "protocol", Type: table.Text, Extra: true, Doc: "Who made it: kernel, boot, static, dhcp …",
		Get: func(r *network.Rule) table.Value { return routeNamed(routeProtos, r.Protocol) },
	},
	{
		Name: "flags", Type: table.List, Extra: true, Doc: "Flags: permanent, not (all packets but those), unresolved, iif_detached, oif_detached.",
		Get: func(r *network.Rule) table.Value { return list(bitNames(r.Flags, ruleFlags)) },
	},
	{
		Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace.",
		Get: func(r *network.Rule) table.Value { return unsigned(r.Net.Inode) },
	},
	{Name: "rule", Type: table.Addr, Extra: true, Doc: "Address of the struct fib_rule.", Get: func(r *network.Rule) table.Value { return address(r.Addr) }},
}

var (
	ruleFamilies = map[uint8]string{network.FamilyInet: "inet", network.FamilyInet6: "inet6", network.FamilyIPMR: "ipmr", network.FamilyIP6MR: "ip6mr"}
	ruleActions  = map[uint8]string{1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
	ruleFlags    = []string{"permanent", "not", "unresolved", "iif_detached", "oif_detached"}
)

const (
	ruleGoto = 2          // FR_ACT_GOTO
	noUser   = ^uint32(0) // INVALID_UID
)

// numberRange is a cell of a range of numbers, or of one; missing unless ok.
func numberRange(ok bool, from, to uint32) table.Value {
	switch {
	case !ok:
		return none
	case from == to:
		return table.TextValue(fmt.Sprint(from))
	}
	return table.TextValue(fmt.Sprintf("%d-%d", from, to))
}

func portRange(p [2]uint16) table.Value {
	return numberRange(p[0] != 0 && p[1] != 0, uint32(p[0]), uint32(p[1]))
}

func fwmark(r *network.Rule) table.Value {
	if r.Mark == 0 && r.Mask == 0 {
		return none
	}
	return table.TextValue(fmt.Sprintf("%#x/%#x", r.Mark, r.Mask))
}
