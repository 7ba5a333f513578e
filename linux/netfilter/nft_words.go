package netfilter

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// nftPrefixType reports whether values of a type are matched by prefixes.
func nftPrefixType(typ string) bool { return typ == "ipv4_addr" || typ == "ipv6_addr" }

// nftFlagType reports whether values of a type are sets of flags.
func nftFlagType(typ string) bool { return nftFlags[typ] != nil }

// nftFlags are the names of single bits, by type.
var nftFlags = map[string]map[uint64]string{
	"ct_state":  {1: "invalid", 2: "established", 4: "related", 8: "new", 64: "untracked"},
	"ct_status": {1: "expected", 2: "seen-reply", 4: "assured", 8: "confirmed", 16: "snat", 32: "dnat", 512: "dying"},
	"tcp_flag":  {1: "fin", 2: "syn", 4: "rst", 8: "psh", 16: "ack", 32: "urg", 64: "ecn", 128: "cwr"},
}

// nftNames are the names of values, by type.
var nftNames = map[string]map[uint64]string{
	"nf_proto":   {2: "ipv4", 10: "ipv6"},
	"ether_type": {0x0800: "ip", 0x0806: "arp", 0x86dd: "ip6", 0x8100: "8021q", 0x88a8: "8021ad"},
	"inet_proto": {
		0: "ip", 1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp", 51: "ah",
		58: "ipv6-icmp", 89: "ospf", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp", 136: "udplite",
	},
	"pkt_type":     {0: "host", 1: "broadcast", 2: "multicast", 3: "other"},
	"ct_dir":       {0: "original", 1: "reply"},
	"boolean":      {0: "missing", 1: "exists"},
	"fib_addrtype": {0: "unspec", 1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit"},
	"arp_op":       {1: "request", 2: "reply", 3: "rrequest", 4: "rreply", 8: "inrequest", 9: "inreply", 10: "nak"},
	"icmp_type": {
		0: "echo-reply", 3: "destination-unreachable", 4: "source-quench", 5: "redirect", 8: "echo-request", 9: "router-advertisement",
		10: "router-solicitation", 11: "time-exceeded", 12: "parameter-problem", 13: "timestamp-request", 14: "timestamp-reply",
		15: "info-request", 16: "info-reply", 17: "address-mask-request", 18: "address-mask-reply",
	},
	"icmpv6_type": {
		1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 4: "parameter-problem", 128: "echo-request", 129: "echo-reply",
		130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit", 134: "nd-router-advert",
		135: "nd-neighbor-solicit", 136: "nd-neighbor-advert", 137: "nd-redirect", 138: "router-renumbering",
		141: "ind-neighbor-solicit", 142: "ind-neighbor-advert", 143: "mld2-listener-report",
	},
}

// nftFormat writes bytes of v's type as nft does.
func nftFormat(v *nftValue, b []byte) string {
	switch v.typ {
	case "ipv4_addr", "ipv6_addr":
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case "ether_addr":
		return net.HardwareAddr(b).String()
	case "ifname", "string":
		text, _, ended := strings.Cut(string(b), "\x00")
		if !ended && len(b) < 16 && v.typ == "ifname" {
			text += "*"
		}
		return strconv.Quote(text)
	}
	if len(b) == 0 || len(b) > 8 {
		return fmt.Sprintf("0x%x", b)
	}
	n := nftNumber(b, v.host)
	if flags := nftFlags[v.typ]; flags != nil {
		return nftFlagNames(flags, n)
	}
	if name, ok := nftNames[v.typ][n]; ok {
		return name
	}
	switch v.typ {
	case "mark":
		return fmt.Sprintf("0x%08x", n)
	case "hex":
		return fmt.Sprintf("0x%x", n)
	}
	return strconv.FormatUint(n, 10)
}

func nftNumber(b []byte, host bool) uint64 {
	var w [8]byte
	if host {
		copy(w[:], b)
		return binary.LittleEndian.Uint64(w[:])
	}
	copy(w[8-len(b):], b)
	return binary.BigEndian.Uint64(w[:])
}

func nftFlagNames(names map[uint64]string, n uint64) string {
	var all []string
	for bit := range 64 {
		if f := uint64(1) << bit; n&f != 0 {
			name, ok := names[f]
			if !ok {
				name = fmt.Sprintf("0x%x", f)
			}
			all = append(all, name)
		}
	}
	if all == nil {
		return "0x0"
	}
	return strings.Join(all, ",")
}

// nftField is a field of a header.
type nftField struct {
	offset, size int
	name, typ    string
}

// nftHeaders are the fields of each protocol's header.
var nftHeaders = map[string][]nftField{
	"ether": {{0, 6, "daddr", "ether_addr"}, {6, 6, "saddr", "ether_addr"}, {12, 2, "type", "ether_type"}},
	"ip": {
		{2, 2, "length", "integer"},
		{4, 2, "id", "integer"},
		{6, 2, "frag-off", "hex"},
		{8, 1, "ttl", "integer"},
		{9, 1, "protocol", "inet_proto"},
		{10, 2, "checksum", "integer"},
		{12, 4, "saddr", "ipv4_addr"},
		{16, 4, "daddr", "ipv4_addr"},
	},
	"ip6": {
		{4, 2, "length", "integer"},
		{6, 1, "nexthdr", "inet_proto"},
		{7, 1, "hoplimit", "integer"},
		{8, 16, "saddr", "ipv6_addr"},
		{24, 16, "daddr", "ipv6_addr"},
	},
	"arp": {
		{0, 2, "htype", "integer"},
		{2, 2, "ptype", "ether_type"},
		{4, 1, "hlen", "integer"},
		{5, 1, "plen", "integer"},
		{6, 2, "operation", "arp_op"},
		{8, 6, "saddr ether", "ether_addr"},
		{14, 4, "saddr ip", "ipv4_addr"},
		{18, 6, "daddr ether", "ether_addr"},
		{24, 4, "daddr ip", "ipv4_addr"},
	},
	"tcp": {
		{0, 2, "sport", "inet_service"},
		{2, 2, "dport", "inet_service"},
		{4, 4, "sequence", "integer"},
		{8, 4, "ackseq", "integer"},
		{13, 1, "flags", "tcp_flag"},
		{14, 2, "window", "integer"},
		{16, 2, "checksum", "integer"},
		{18, 2, "urgptr", "integer"},
	},
	"udp":     {{0, 2, "sport", "inet_service"}, {2, 2, "dport", "inet_service"}, {4, 2, "length", "integer"}, {6, 2, "checksum", "integer"}},
	"udplite": {{0, 2, "sport", "inet_service"}, {2, 2, "dport", "inet_service"}, {4, 2, "csumcov", "integer"}, {6, 2, "checksum", "integer"}},
	"sctp":    {{0, 2, "sport", "inet_service"}, {2, 2, "dport", "inet_service"}, {4, 4, "vtag", "integer"}, {8, 4, "checksum", "integer"}},
	"dccp":    {{0, 2, "sport", "inet_service"}, {2, 2, "dport", "inet_service"}},
	"th":      {{0, 2, "sport", "inet_service"}, {2, 2, "dport", "inet_service"}},
	"icmp":    {{0, 1, "type", "icmp_type"}, {1, 1, "code", "integer"}, {2, 2, "checksum", "integer"}, {4, 2, "id", "integer"}, {6, 2, "sequence", "integer"}},
	"icmpv6":  {{0, 1, "type", "icmpv6_type"}, {1, 1, "code", "integer"}, {2, 2, "checksum", "integer"}, {4, 2, "id", "integer"}, {6, 2, "sequence", "integer"}},
}

// nftPayload names the bytes of a packet: base is 0 for the link's header, 1 for the
// network's, 2 for the transport's.
func nftPayload(base uint64, offset, size int, l3, l4 string) *nftValue {
	v := &nftValue{typ: "integer", size: size, loaded: size, layer: int(min(base, 2)), offset: offset}
	header := ""
	switch base {
	case 0:
		header = "ether"
	case 1:
		header = l3
	case 2:
		if header = l4; header == "ipv6-icmp" {
			header = "icmpv6"
		}
		if nftHeaders[header] == nil {
			header = "th"
		}
	}
	for _, f := range nftHeaders[header] {
		// A prefix of whole bytes loads fewer of them.
		if f.offset == offset && (size == f.size || size < f.size && nftPrefixType(f.typ) || size > f.size) {
			v.text, v.typ, v.size, v.payload = header+" "+f.name, f.typ, f.size, true
			return v
		}
	}
	v.text = fmt.Sprintf("@%s,%d,%d", nfName([]string{"ll", "nh", "th", "ih"}, int(base)), 8*offset, 8*size)
	v.typ = "hex"
	return v
}

// nftAdjacent takes a load of several fields that lie side by side apart: nft joins what
// is compared one after the other.
func nftAdjacent(v *nftValue, l3, l4 string) (parts []*nftValue) {
	if v.loaded <= v.size {
		return nil
	}
	for off := 0; off < v.loaded; {
		p := nftPayload(uint64(v.layer), v.offset+off, v.loaded-off, l3, l4)
		if !p.payload {
			return nil
		}
		p.loaded = min(p.size, v.loaded-off)
		parts = append(parts, p)
		off += p.loaded
	}
	return parts
}

type nftKey struct {
	text, typ string
	network   bool // in the network's order of bytes
}

// nftMeta are the keys of meta (enum nft_meta_keys).
var nftMeta = []nftKey{
	{"meta length", "integer", false},
	{"meta protocol", "ether_type", true},
	{"meta priority", "hex", false},
	{"meta mark", "mark", false},
	{"iif", "ifindex", false},
	{"oif", "ifindex", false},
	{"iifname", "ifname", false},
	{"oifname", "ifname", false},
	{"meta iiftype", "integer", false},
	{"meta oiftype", "integer", false},
	{"meta skuid", "integer", false},
	{"meta skgid", "integer", false},
	{"meta nftrace", "integer", false},
	{"meta rtclassid", "integer", false},
	{"meta secmark", "integer", false},
	{"meta nfproto", "nf_proto", false},
	{"meta l4proto", "inet_proto", false},
	{"meta ibrname", "ifname", false},
	{"meta obrname", "ifname", false},
	{"meta pkttype", "pkt_type", false},
	{"meta cpu", "integer", false},
	{"iifgroup", "integer", false},
	{"oifgroup", "integer", false},
	{"meta cgroup", "integer", false},
	{"meta random", "integer", false},
	{"meta ipsec", "boolean", false},
	{"meta iifkind", "ifname", false},
	{"meta oifkind", "ifname", false},
	{"meta ibrpvid", "integer", false},
	{"meta ibrvproto", "ether_type", true},
	{"meta time", "integer", false},
	{"meta day", "integer", false},
	{"meta hour", "integer", false},
	{"meta sdif", "ifindex", false},
	{"meta sdifname", "ifname", false},
	{"meta broute", "integer", false},
}

// nftCT are the keys of ct (enum nft_ct_keys).
var nftCT = []nftKey{
	{"ct state", "ct_state", false},
	{"ct direction", "ct_dir", false},
	{"ct status", "ct_status", false},
	{"ct mark", "mark", false},
	{"ct secmark", "integer", false},
	{"ct expiration", "integer", false},
	{"ct helper", "string", false},
	{"l3proto", "nf_proto", false},
	{"saddr", "hex", true},
	{"daddr", "hex", true},
	{"protocol", "inet_proto", false},
	{"proto-src", "inet_service", true},
	{"proto-dst", "inet_service", true},
	{"ct label", "hex", false},
	{"packets", "integer", false},
	{"bytes", "integer", false},
	{"avgpkt", "integer", false},
	{"zone", "integer", false},
	{"ct event", "hex", false},
	{"ip saddr", "ipv4_addr", true},
	{"ip daddr", "ipv4_addr", true},
	{"ip6 saddr", "ipv6_addr", true},
	{"ip6 daddr", "ipv6_addr", true},
	{"ct id", "integer", false},
}

// nftTypes are the types that nft writes into a set, by their numbers: six bits for each
// part of a key.
var nftTypes = map[uint32]string{
	1: "verdict", 2: "nf_proto", 4: "integer", 5: "string", 7: "ipv4_addr", 8: "ipv6_addr", 9: "ether_addr", 10: "ether_type", 11: "arp_op",
	12: "inet_proto", 13: "inet_service", 14: "icmp_type", 15: "tcp_flag", 18: "time", 19: "mark", 20: "iface_index", 21: "iface_type",
	22: "realm", 23: "classid", 24: "uid", 25: "gid", 26: "ct_state", 27: "ct_dir", 28: "ct_status", 29: "icmpv6_type", 30: "ct_label",
	31: "pkt_type", 32: "icmp_code", 33: "icmpv6_code", 34: "icmpx_code", 35: "devgroup", 36: "dscp", 37: "ecn", 38: "fib_addrtype",
	39: "boolean", 40: "ct_event", 41: "ifname", 42: "igmp_type", 43: "time", 44: "hour", 45: "day", 46: "cgroupsv2",
}

// nftHostTypes are in the processor's order of bytes, in sets too.
var nftHostTypes = map[string]bool{
	"mark": true, "ct_state": true, "ct_status": true, "iface_index": true, "uid": true, "gid": true, "devgroup": true, "realm": true,
	"classid": true, "iface_type": true, "pkt_type": true, "time": true,
}

// nftTypeParts are the types of a key's parts, first part first.
func nftTypeParts(number uint32) (parts []string) {
	for ; number != 0 && len(parts) < 5; number >>= 6 {
		name, ok := nftTypes[number&63]
		if !ok {
			name = fmt.Sprintf("type%d", number&63)
		}
		parts = append(parts, name)
	}
	slices.Reverse(parts)
	return parts
}
