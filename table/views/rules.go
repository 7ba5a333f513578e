package views

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "rules", Group: table.Network,
		Doc: `Show the rules by which a guest chooses routing tables (ip rule).

Those of all network namespaces are shown, of IPv4, IPv6 and multicast, in the order in
which they are asked. What is not seen: realms, and the label of an IPv6 flow or the mask
of a type of service that a rule can ask for (since 6.14).`,
		Columns: ruleColumns,
		Rows:    ruleRows,
		Of:      inNetwork,
		Example: "lab:demo",
	}))
}

var ruleColumns = []table.Column{
	{Name: "family", Type: table.Text, Doc: "inet, inet6; ipmr and ip6mr for multicast."},
	{Name: "priority", Type: table.Uint, Doc: "Priority: the lowest is asked first."},
	{Name: "from", Type: table.Text, Doc: "Sources that it is for; missing for all."},
	{Name: "to", Type: table.Text, Doc: "Destinations that it is for; missing for all."},
	{Name: "fwmark", Type: table.Text, Doc: "Mark of the packet, with the mask; missing for all."},
	{Name: "iif", Type: table.Text, Doc: "Interface through which the packet came; missing for all."},
	{Name: "oif", Type: table.Text, Doc: "Interface to which its socket is bound; missing for all."},
	{Name: "action", Type: table.Text, Doc: "What happens: lookup, goto, nop, blackhole, unreachable, prohibit."},
	{Name: "table", Type: table.Uint, Doc: "Routing table that is asked: 254 is main, 255 local, 253 default."},
	{Name: "goto", Type: table.Uint, Extra: true, Doc: "Priority at which to go on."},
	{Name: "tos", Type: table.Uint, Extra: true, Doc: "Type of service; missing for all."},
	{Name: "ip_protocol", Type: table.Uint, Extra: true, Doc: "Protocol by number: 6 is TCP, 17 UDP; missing for all."},
	{Name: "sport", Type: table.Text, Extra: true, Doc: "Source port or ports; missing for all."},
	{Name: "dport", Type: table.Text, Extra: true, Doc: "Destination port or ports; missing for all."},
	{Name: "uids", Type: table.Text, Extra: true, Doc: "Users whose sockets it is for; missing for all."},
	{Name: "tunnel", Type: table.Uint, Extra: true, Doc: "Identifier of the tunnel; missing for all."},
	{Name: "l3mdev", Type: table.Bool, Extra: true, Doc: "Whether the table is that of the interface's VRF."},
	{Name: "suppress_prefix", Type: table.Uint, Extra: true, Doc: "Longest prefix of routes that are passed over; missing for none."},
	{Name: "suppress_group", Type: table.Uint, Extra: true, Doc: "Group of interfaces, routes through which are passed over; missing for none."},
	{Name: "protocol", Type: table.Text, Extra: true, Doc: "Who made it: kernel, boot, static, dhcp …"},
	{Name: "flags", Type: table.List, Extra: true, Doc: "Flags: permanent, not (all packets but those), unresolved, iif_detached, oif_detached."},
	{Name: "net_ns", Type: table.Uint, Extra: true, Doc: "Inode of the network namespace."},
	{Name: "rule", Type: table.Addr, Extra: true, Doc: "Address of the struct fib_rule."},
}

var (
	ruleFamilies = map[uint8]string{linux.FamilyInet: "inet", linux.FamilyInet6: "inet6", linux.FamilyIPMR: "ipmr", linux.FamilyIP6MR: "ip6mr"}
	ruleActions  = map[uint8]string{1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
	ruleFlags    = []string{"permanent", "not", "unresolved", "iif_detached", "oif_detached"}
)

func ruleRows(ctx context.Context, g *guest.Look, _ table.Request) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for r, err := range g.Linux.Rules(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if !yield(ruleRow(r), nil) {
				return
			}
		}
	}
}

func ruleRow(r *linux.Rule) table.Row {
	span := func(ok bool, from, to uint32) table.Value {
		switch {
		case !ok:
			return table.Missing(table.None)
		case from == to:
			return table.TextValue(fmt.Sprint(from))
		}
		return table.TextValue(fmt.Sprintf("%d-%d", from, to))
	}
	ports := func(p [2]uint16) table.Value { return span(p[0] != 0 && p[1] != 0, uint32(p[0]), uint32(p[1])) }
	mark := table.Missing(table.None)
	if r.Mark != 0 || r.Mask != 0 {
		mark = table.TextValue(fmt.Sprintf("%#x/%#x", r.Mark, r.Mask))
	}
	unset := ^uint32(0) // INVALID_UID
	isGoto := r.Action == 2
	return table.Row{
		routeNamed(ruleFamilies, uint8(r.Family)), table.UintValue(uint64(r.Priority)), prefixCell(r.From), prefixCell(r.To), mark,
		text(r.In), text(r.Out), routeNamed(ruleActions, r.Action), numberIf(r.Table != 0, uint64(r.Table)), numberIf(isGoto, uint64(r.Goto)),
		numberIf(r.TOS != 0, uint64(r.TOS)), numberIf(r.IPProtocol != 0, uint64(r.IPProtocol)), ports(r.Sport), ports(r.Dport),
		span(r.UIDs[0] != unset && r.UIDs[1] != unset, r.UIDs[0], r.UIDs[1]), numberIf(r.Tunnel != 0, r.Tunnel), table.BoolValue(r.L3Master),
		numberIf(r.SuppressPrefix != -1, uint64(r.SuppressPrefix)), numberIf(r.SuppressGroup != -1, uint64(r.SuppressGroup)),
		routeNamed(routeProtos, r.Protocol), someList(bitNames(r.Flags, ruleFlags)), table.UintValue(r.Net.Inode), address(r.Addr),
	}
}
