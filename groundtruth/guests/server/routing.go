package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// routing adds to the interfaces' routes what few machines have: next hops that are
// objects, several for one destination, rules of every kind.
func (s *server) routing() error {
	var errs []error
	do := func(err ...error) { errs = append(errs, err...) }
	oif := func(m *rtnl, name string) *rtnl { return m.u32(unix.RTA_OIF, uint32(interfaceIndex(name))) }
	hop := func(dev string, weight byte, gateway string) []byte {
		in := &rtnl{}
		in.attr(unix.RTA_GATEWAY, netip.MustParseAddr(gateway).AsSlice())
		b := binary.NativeEndian.AppendUint16(nil, uint16(8+len(in.data())))
		b = append(b, 0, weight-1)
		b = binary.NativeEndian.AppendUint32(b, uint32(interfaceIndex(dev)))
		return append(b, in.data()...)
	}
	do(
		nexthop(11, unix.AF_INET, func(m *rtnl) { nexthopVia(m, "dummy0", "10.99.0.11") }),
		nexthop(12, unix.AF_INET, func(m *rtnl) { nexthopVia(m, "dummy0", "10.99.0.12") }),
		nexthop(13, unix.AF_UNSPEC, func(m *rtnl) { m.attr(nhaGroup, []byte{11, 0, 0, 0, 4, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0}) }),
		nexthop(14, unix.AF_INET, func(m *rtnl) { m.attr(nhaBlackhole, nil) }),
		nexthop(21, unix.AF_INET6, func(m *rtnl) { nexthopVia(m, "dummy0", "fd99::21") }),
		nexthop(22, unix.AF_INET6, func(m *rtnl) { nexthopVia(m, "dummy0", "fd99::22") }),
		nexthop(23, unix.AF_UNSPEC, func(m *rtnl) { m.attr(nhaGroup, []byte{21, 0, 0, 0, 0, 0, 0, 0, 22, 0, 0, 0, 1, 0, 0, 0}) }),
		nexthop(24, unix.AF_INET6, func(m *rtnl) { m.attr(nhaBlackhole, nil) }),
	)
	for _, r := range []struct {
		to     string
		table  byte
		tos    byte
		fill   func(m *rtnl)
		source string
	}{
		{to: "198.19.1.0/24", fill: func(m *rtnl) { m.u32(rtaNexthop, 11) }},
		{to: "198.19.2.0/24", fill: func(m *rtnl) { m.u32(rtaNexthop, 13) }},
		{to: "198.19.3.0/24", fill: func(m *rtnl) { m.u32(rtaNexthop, 14) }},
		{to: "198.19.4.0/24", fill: func(m *rtnl) {
			m.attr(unix.RTA_MULTIPATH, append(hop("dummy0", 1, "10.99.0.41"), hop("veth-a", 200, "10.98.0.2")...))
		}},
		{to: "198.19.5.0/24", tos: 0x10, fill: func(m *rtnl) {
			oif(m, "dummy0").attr(unix.RTA_PREFSRC, []byte{10, 99, 1, 1})
			m.nest(unix.RTA_METRICS, func(in *rtnl) { in.u32(unix.RTAX_MTU, 1280).u32(unix.RTAX_ADVMSS, 1200).u32(unix.RTAX_INITCWND, 20) })
		}},
		// To a gateway of the other family.
		{to: "198.19.6.0/24", fill: func(m *rtnl) {
			oif(m, "dummy0").attr(unix.RTA_VIA, append([]byte{unix.AF_INET6, 0}, netip.MustParseAddr("fd99::66").AsSlice()...))
		}},
		{to: "198.19.7.0/24", table: 77, fill: func(m *rtnl) { oif(m, "veth-b") }},
		{to: "0.0.0.0/0", table: 101, fill: func(m *rtnl) { oif(m, "veth-a").attr(unix.RTA_GATEWAY, []byte{10, 98, 0, 2}) }},
		{to: "2001:db8:21::/48", fill: func(m *rtnl) { m.u32(rtaNexthop, 21) }},
		{to: "2001:db8:23::/48", fill: func(m *rtnl) { m.u32(rtaNexthop, 23) }},
		{to: "2001:db8:24::/48", fill: func(m *rtnl) { m.u32(rtaNexthop, 24) }},
		{to: "2001:db8:40::/48", fill: func(m *rtnl) {
			m.attr(unix.RTA_MULTIPATH, append(hop("dummy0", 3, "fd99::41"), hop("veth-a", 1, "fd98::2")...))
		}},
		{to: "2001:db8:50::/48", source: "fd99::/64", fill: func(m *rtnl) {
			oif(m, "dummy0").nest(unix.RTA_METRICS, func(in *rtnl) { in.u32(unix.RTAX_MTU, 1300).u32(unix.RTAX_HOPLIMIT, 9) })
		}},
		{to: "2001:db8:60::/48", table: 78, fill: func(m *rtnl) { oif(m, "veth-b").attr(unix.RTA_PREF, []byte{3}) }},
	} {
		do(addRoute(r.to, r.source, r.table, r.tos, r.fill))
	}
	do(
		rule("from 10.99.1.1 uid", unix.AF_INET, 101, 1, 0, 32, func(m *rtnl) {
			m.attr(unix.FRA_SRC, []byte{10, 99, 1, 1}).u32(unix.FRA_PRIORITY, 1000)
			m.attr(unix.FRA_UID_RANGE, []byte{0xe8, 3, 0, 0, 0xd0, 7, 0, 0})
		}),
		rule("to, mark, both interfaces", unix.AF_INET, 100, 1, 15, 0, func(m *rtnl) {
			m.attr(unix.FRA_DST, []byte{198, 18, 0, 0}).u32(unix.FRA_PRIORITY, 1001).u32(unix.FRA_FWMARK, 0x100).u32(unix.FRA_FWMASK, 0xf00)
			m.str(unix.FRA_IIFNAME, "dummy0").str(unix.FRA_OIFNAME, "not-there")
		}),
		rule("goto", unix.AF_INET, 0, 2, 0, 0, func(m *rtnl) { m.u32(unix.FRA_GOTO, 1005).u32(unix.FRA_PRIORITY, 1002) }),
		rule("goto nowhere", unix.AF_INET, 0, 2, 0, 0, func(m *rtnl) { m.u32(unix.FRA_GOTO, 30000).u32(unix.FRA_PRIORITY, 1003) }),
		rule("suppress", unix.AF_INET, 254, 1, 0, 0, func(m *rtnl) {
			m.u32(unix.FRA_SUPPRESS_PREFIXLEN, 0).u32(unix.FRA_SUPPRESS_IFGROUP, 7).u32(unix.FRA_PRIORITY, 1004)
		}),
		rule("ports", unix.AF_INET, 100, 1, 0, 0, func(m *rtnl) {
			m.attr(unix.FRA_IP_PROTO, []byte{unix.IPPROTO_TCP}).u32(unix.FRA_PRIORITY, 1005)
			m.attr(unix.FRA_SPORT_RANGE, []byte{0, 4, 0xff, 0xfe}).attr(unix.FRA_DPORT_RANGE, []byte{0xbb, 1, 0xbb, 1})
		}),
		rule("prohibit", unix.AF_INET, 0, 8, 0, 0, func(m *rtnl) { m.u32(unix.FRA_FWMARK, 0x66).u32(unix.FRA_PRIORITY, 1006) }),
		rule("6 from", unix.AF_INET6, 78, 1, 0, 64, func(m *rtnl) {
			m.attr(unix.FRA_SRC, netip.MustParseAddr("fd99::").AsSlice()).u32(unix.FRA_PRIORITY, 2000)
			m.attr(unix.FRA_PROTOCOL, []byte{unix.RTPROT_STATIC})
		}),
		rule("6 blackhole", unix.AF_INET6, 0, 6, 48, 0, func(m *rtnl) {
			m.attr(unix.FRA_DST, netip.MustParseAddr("2001:db8:bad::").AsSlice()).u32(unix.FRA_PRIORITY, 2001)
		}),
		addNeighbour("dummy0", "fd99::99", "", unix.NUD_PERMANENT, unix.NTF_PROXY),
		addNeighbour("dummy0", "fd99::77", "02:99:00:00:00:77", unix.NUD_STALE, unix.NTF_ROUTER),
		addNeighbour("dummy0", "10.99.0.88", "02:99:00:00:00:88", unix.NUD_NOARP, unix.NTF_EXT_LEARNED),
		addPeer("dummy0", "10.94.0.1", "10.94.0.2", "dummy0:peer"),
	)
	return errors.Join(errs...)
}

const (
	rtaNexthop                                   = 30 // RTA_NH_ID
	newNexthop                                   = 104
	nhaID, nhaGroup, nhaBlackhole, nhaOIF, nhaGW = 1, 2, 4, 5, 6
)

// nexthop makes a next hop that is an object (struct nhmsg).
func nexthop(id uint32, family byte, more func(*rtnl)) error {
	m := request(newNexthop, create, family, 0, unix.RTPROT_STATIC, 0, 0, 0, 0, 0).u32(nhaID, id)
	more(m)
	if err := m.do(); err != nil {
		return fmt.Errorf("nexthop %d: %w", id, err)
	}
	return nil
}

func nexthopVia(m *rtnl, dev, gateway string) {
	m.u32(nhaOIF, uint32(interfaceIndex(dev))).attr(nhaGW, netip.MustParseAddr(gateway).AsSlice())
}

// addRoute adds a route with attributes of any kind; table 0 is main.
func addRoute(to, source string, table, tos byte, more func(*rtnl)) error {
	p := netip.MustParsePrefix(to)
	family, sourceLen := byte(unix.AF_INET6), byte(0)
	if p.Addr().Is4() {
		family = unix.AF_INET
	}
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if source != "" {
		sourceLen = byte(netip.MustParsePrefix(source).Bits())
	}
	m := request(unix.RTM_NEWROUTE, create, family, byte(p.Bits()), sourceLen, tos, table, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
	m.attr(unix.RTA_DST, p.Addr().AsSlice())
	if source != "" {
		m.attr(unix.RTA_SRC, netip.MustParsePrefix(source).Addr().AsSlice())
	}
	more(m)
	if err := m.do(); err != nil {
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

// rule adds a rule (struct fib_rule_hdr).
func rule(what string, family, table, action, dstLen, srcLen byte, more func(*rtnl)) error {
	m := request(unix.RTM_NEWRULE, create, family, dstLen, srcLen, 0, table, 0, 0, action, 0, 0, 0, 0)
	more(m)
	if err := m.do(); err != nil {
		return fmt.Errorf("rule %s: %w", what, err)
	}
	return nil
}

// addPeer gives an interface an address that is not of the network behind it, with a
// label.
func addPeer(dev, address, peer, label string) error {
	fixed := binary.NativeEndian.AppendUint32([]byte{unix.AF_INET, 24, 0, 0}, uint32(interfaceIndex(dev)))
	m := request(unix.RTM_NEWADDR, create, fixed...).attr(unix.IFA_LOCAL, netip.MustParseAddr(address).AsSlice())
	m.attr(unix.IFA_ADDRESS, netip.MustParseAddr(peer).AsSlice()).str(unix.IFA_LABEL, label)
	if err := m.do(); err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	return nil
}
