package main

import (
	"encoding/binary"
	"fmt"
	"maps"

	"golang.org/x/sys/unix"
)

func init() { views["routes"] = viewRoutes }

const rtaNexthop = 30 // RTA_NH_ID

var (
	rtTypes = map[uint64]string{
		0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable",
		8: "prohibit", 9: "throw",
	}
	rtProtocols = map[uint64]string{
		0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 11: "zebra", 12: "bird", 16: "dhcp",
	}
	rtScopes = map[uint64]string{0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
	rtFlags  = map[int]string{0: "dead", 1: "pervasive", 2: "onlink", 3: "offload", 4: "linkdown", 5: "unresolved", 6: "trap"}
	// rtMetrics are RTAX_ numbers.
	rtMetrics = map[uint16]string{
		1: "lock", 2: "mtu", 3: "window", 4: "rtt", 5: "rttvar", 6: "ssthresh", 7: "cwnd", 8: "advmss", 9: "reordering",
		10: "hoplimit", 11: "initcwnd", 12: "features", 13: "rto_min", 14: "initrwnd", 15: "quickack", 17: "fastopen_no_cookie",
	}
	rtPreferences = map[uint64]string{0: "medium", 1: "high", 3: "low"}
	rtEncaps      = map[uint64]string{1: "mpls", 2: "ip", 3: "ila", 4: "ip6", 5: "seg6", 6: "bpf", 7: "seg6local", 8: "rpl", 9: "ioam6", 10: "xfrm"}
)

// viewRoutes reports the routes of all tables, a line for each next hop.
func viewRoutes(emit func(any) error) error {
	return eachNetNS(func(net uint64) error {
		links, err := rtLinks()
		if err != nil {
			return err
		}
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			ask := make([]byte, unix.SizeofRtMsg)
			ask[0] = family
			err := rtnlDump(unix.RTM_GETROUTE, ask, func(m []byte) error {
				if binary.NativeEndian.Uint32(m[8:])&unix.RTM_F_CLONED != 0 {
					return nil // learnt for one destination
				}
				if m[0] != family {
					return nil // of all families, where the kernel does not know this one
				}
				row := routeRow(m)
				row["net_ns"] = net
				for _, hop := range routeHops(m, links) {
					maps.Copy(hop, row)
					if err := emit(hop); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// routeRow is what all next hops of a route share. m is a struct rtmsg with attributes.
func routeRow(m []byte) map[string]any {
	a, family := rtAttributes(m[unix.SizeofRtMsg:]), m[0]
	row := map[string]any{
		"table": a.number(unix.RTA_TABLE), "destination": a.prefix(unix.RTA_DST, family, int(m[1])), "from": nil,
		"source": a.ip(unix.RTA_PREFSRC), "metric": a.number(unix.RTA_PRIORITY), "type": rtNamed(uint64(m[7]), rtTypes),
		"protocol": rtNamed(uint64(m[5]), rtProtocols), "scope": nil, "tos": orNil(m[3]),
		"nexthop": a.numberOrNil(rtaNexthop), "preference": nil, "metrics": nil,
	}
	if m[2] != 0 {
		row["from"] = a.prefix(unix.RTA_SRC, family, int(m[2]))
	}
	if family == unix.AF_INET {
		row["scope"] = rtNamed(uint64(m[6]), rtScopes)
	} else {
		row["preference"] = rtNamed(a.number(unix.RTA_PREF), rtPreferences)
	}
	var metrics []string
	inner := a.nest(unix.RTA_METRICS)
	for i := uint16(1); i <= 17; i++ {
		if inner.has(i) && i != 16 { // the algorithm against congestion, by name here, by a hash of it in memory
			metrics = append(metrics, fmt.Sprintf("%s %d", rtMetrics[i], inner.number(i)))
		}
	}
	if metrics != nil {
		row["metrics"] = metrics
	}
	return row
}

// routeHops are the next hops of a route.
func routeHops(m []byte, links map[uint64]any) []map[string]any {
	a := rtAttributes(m[unix.SizeofRtMsg:])
	hop := func(a rtAttrs, device uint64, flags byte, weight any) map[string]any {
		gateway := a.ip(unix.RTA_GATEWAY)
		if via := a[unix.RTA_VIA]; len(via) > 2 {
			gateway = rtAttrs{0: via[2:]}.ip(0) // struct rtvia
		}
		encap := any(nil)
		if a.has(unix.RTA_ENCAP_TYPE) {
			encap = rtNamed(a.number(unix.RTA_ENCAP_TYPE), rtEncaps)
		}
		return map[string]any{
			"gateway": gateway, "interface": links[device], "flags": rtBits(uint64(flags), rtFlags), "weight": weight, "encap": encap,
		}
	}
	if !a.has(unix.RTA_MULTIPATH) {
		return []map[string]any{hop(a, a.number(unix.RTA_OIF), m[8], nil)}
	}
	var hops []map[string]any
	for b := a[unix.RTA_MULTIPATH]; len(b) >= unix.SizeofRtNexthop; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		hops = append(hops, hop(rtAttributes(b[unix.SizeofRtNexthop:n]), uint64(binary.NativeEndian.Uint32(b[4:])), b[2], int(b[3])+1))
		b = b[min(len(b), (n+3)&^3):]
	}
	return hops
}
