package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

func init() { views["ip_rules"] = viewRules }

var (
	ruleFamilies = map[byte]string{unix.AF_INET: "inet", unix.AF_INET6: "inet6", 128: "ipmr", 129: "ip6mr"}
	ruleActions  = map[uint64]string{1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
	ruleFlags    = map[int]string{0: "permanent", 1: "not", 2: "unresolved", 3: "iif_detached", 4: "oif_detached", 16: "find_saddr"}
)

// viewRules reports the rules that choose a routing table; offsets are of struct
// fib_rule_hdr.
func viewRules(emit func(any) error) error {
	return eachNetNS(func(net uint64) error {
		for family, name := range ruleFamilies {
			ask := make([]byte, 12)
			ask[0] = family
			err := rtnlDump(unix.RTM_GETRULE, ask, func(m []byte) error {
				row := ruleRow(m)
				row["net_ns"], row["family"] = net, name
				return emit(row)
			})
			if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
				return err
			}
		}
		return nil
	})
}

func ruleRow(m []byte) map[string]any {
	const (
		iif, goTo, priority, mark, tunnel, suppressGroup, suppressLen, table, mask, oif, l3 = 3, 4, 6, 10, 12, 13, 14, 15, 16, 17, 19
		uids, protocol, ipProto, sports, dports, dscp                                       = 20, 21, 22, 23, 24, 25
	)
	a := rtAttributes(m[12:])
	prefix := func(kind uint16, bits byte) any {
		ip, ok := netip.AddrFromSlice(a[kind])
		if !ok {
			return nil
		}
		return netip.PrefixFrom(ip, int(bits)).String()
	}
	words := func(kind uint16, size int) any {
		b := a[kind]
		switch {
		case len(b) < 2*size:
			return nil
		case size == 2:
			return rangeText(uint64(binary.NativeEndian.Uint16(b)), uint64(binary.NativeEndian.Uint16(b[2:])))
		}
		return rangeText(uint64(binary.NativeEndian.Uint32(b)), uint64(binary.NativeEndian.Uint32(b[4:])))
	}
	row := map[string]any{
		"priority": a.number(priority), "from": prefix(unix.FRA_SRC, m[2]), "to": prefix(unix.FRA_DST, m[1]),
		"fwmark": nil, "iif": a.text(iif), "oif": a.text(oif), "tos": orNil(m[3]), "ip_protocol": orNil(a.number(ipProto)),
		"sport": words(sports, 2), "dport": words(dports, 2), "uids": words(uids, 4), "tunnel": nil, "l3mdev": a.number(l3) != 0,
		"action": rtNamed(uint64(m[7]), ruleActions), "table": orNil(a.number(table)), "goto": a.numberOrNil(goTo),
		"suppress_prefix": nil, "suppress_group": nil, "protocol": rtNamed(a.number(protocol), rtProtocols),
		"flags": rtBits(uint64(binary.NativeEndian.Uint32(m[8:])), ruleFlags),
	}
	if a.has(dscp) {
		row["tos"] = a.number(dscp) << 2
	}
	if a.has(mark) || a.has(mask) {
		row["fwmark"] = fmt.Sprintf("%#x/%#x", a.number(mark), a.number(mask))
	}
	if a.has(tunnel) {
		row["tunnel"] = orNil(binary.BigEndian.Uint64(a[tunnel]))
	}
	for column, kind := range map[string]uint16{"suppress_prefix": suppressLen, "suppress_group": suppressGroup} {
		if v := a.number(kind); a.has(kind) && v != 0xffff_ffff {
			row[column] = v
		}
	}
	return row
}

func rangeText(from, to uint64) string {
	if from == to {
		return fmt.Sprint(from)
	}
	return fmt.Sprintf("%d-%d", from, to)
}
