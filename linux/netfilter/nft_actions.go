package netfilter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/virt"
)

func nftCounter(x nftExpr) bool {
	const s = "nft_counter_percpu_priv"
	counter := virt.Addr(x.num(s, "counter"))
	f, g := x.field("nft_counter", "packets"), x.field("nft_counter", "bytes")
	if counter == 0 || !f.Present() || !g.Present() {
		return false
	}
	x.d.packets, x.d.bytes, x.d.counted = 0, 0, true
	for _, area := range x.d.w.s.CPUAreas {
		x.d.packets += x.d.w.r.Uint(area+counter, f)
		x.d.bytes += x.d.w.r.Uint(area+counter, g)
	}
	x.d.say("counter")
	return true
}

var nftLogLevels = []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}

func nftLog(x nftExpr) bool {
	const s = "nft_log"
	var b strings.Builder
	b.WriteString("log")
	if p := virt.Addr(x.num(s, "prefix")); p != 0 {
		if prefix := x.d.w.r.CString(p, 128); prefix != "" {
			b.WriteString(" prefix " + strconv.Quote(prefix))
		}
	}
	if x.num(s, "loginfo.type") == 1 { // NF_LOG_TYPE_ULOG
		for _, f := range [][2]string{{"group", "group"}, {"snaplen", "copy_len"}, {"queue-threshold", "qthreshold"}} {
			n := x.num(s, "loginfo.u.ulog."+f[1])
			if f[0] == "group" || n != 0 {
				fmt.Fprintf(&b, " %s %d", f[0], n)
			}
		}
	} else {
		if level := x.num(s, "loginfo.u.log.level"); level != 4 {
			b.WriteString(" level " + nfName(nftLogLevels, int(level)))
		}
		if flags := x.num(s, "loginfo.u.log.logflags"); flags&0x1f == 0x1f {
			b.WriteString(" flags all")
		} else {
			var tcp []string
			for i, name := range []string{"tcp sequence", "tcp options", "ip options", "skuid", "", "ether"} {
				if flags&(1<<i) != 0 && name != "" {
					tcp = append(tcp, name)
				}
			}
			if len(tcp) > 0 {
				b.WriteString(" flags " + strings.Replace(strings.Join(tcp, " flags "), "tcp sequence flags tcp options", "tcp sequence,options", 1))
			}
		}
	}
	x.d.say("%s", b.String())
	return true
}

func nftReject(x nftExpr) bool {
	const s = "nft_reject"
	code := x.num(s, "icmp_code")
	switch x.num(s, "type") {
	case 0: // NFT_REJECT_ICMP_UNREACH
		if x.d.l3 == "ip6" {
			if code == 4 {
				x.d.say("reject")
				break
			}
			x.d.say("reject with icmpv6 %s", nfName([]string{"no-route", "admin-prohibited", "", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route"}, int(code)))
			break
		}
		if code == 3 {
			x.d.say("reject")
			break
		}
		names := map[uint64]string{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"}
		x.d.say("reject with icmp %s", names[code])
	case 1: // NFT_REJECT_TCP_RST
		x.d.use(&nftValue{payload: true, layer: 2})
		x.d.say("reject with tcp reset")
	case 2: // NFT_REJECT_ICMPX_UNREACH
		if code == 1 {
			x.d.say("reject")
			break
		}
		x.d.say("reject with icmpx %s", nfName([]string{"no-route", "port-unreachable", "host-unreachable", "admin-prohibited"}, int(code)))
	default:
		return false
	}
	return true
}

var nftUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

func (x nftExpr) limit(path string, bytes bool) bool {
	const ns = 1_000_000_000
	m := func(name string) uint64 { return x.num(path, name) }
	unit, ok := nftUnits[m("nsecs")/ns]
	if !ok {
		return false
	}
	over := ""
	if m("invert") != 0 {
		over = "over "
	}
	rate, burst := m("rate"), m("burst")
	if !bytes {
		x.d.say("limit rate %s%d/%s burst %d packets", over, rate, unit, burst)
		return true
	}
	text := fmt.Sprintf("limit rate %s%s/%s", over, nftBytes(rate), unit)
	if burst != 0 {
		text += " burst " + nftBytes(burst)
	}
	x.d.say("%s", text)
	return true
}

// nftBytes writes a number of bytes in the largest unit that divides it.
func nftBytes(n uint64) string {
	for i, unit := range []string{"mbytes", "kbytes"} {
		if d := uint64(1) << (20 - 10*i); n != 0 && n%d == 0 {
			return fmt.Sprintf("%d %s", n/d, unit)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

func nftLimit(x nftExpr) bool {
	y := x
	y.priv = x.field("nft_limit_priv_pkts", "limit").At(x.priv)
	return x.has("nft_limit_priv_pkts", "limit") && y.limit("nft_limit_priv", false)
}

func nftLimitBytes(x nftExpr) bool { return x.limit("nft_limit_priv", true) }

func nftNATFlags(flags uint64) string {
	var all []string
	for bit, name := range map[uint64]string{1 << 2: "random", 1 << 4: "fully-random", 1 << 3: "persistent"} {
		if flags&bit != 0 {
			all = append(all, name)
		}
	}
	if all == nil {
		return ""
	}
	slices.Sort(all)
	return " " + strings.Join(all, ",")
}

// span is what two registers hold, the ends of a range.
func (d *nftDecoder) span(low, high uint64, typ string) (string, bool) {
	a, ok := d.value(low, &nftValue{typ: typ})
	if !ok || high == 0 || high == low {
		return a, ok
	}
	b, ok := d.value(high, &nftValue{typ: typ})
	if a == b {
		return a, ok
	}
	return a + "-" + b, ok
}

func nftNAT(x nftExpr) bool {
	const s = "nft_nat"
	verb := nfName([]string{"snat", "dnat"}, int(x.num(s, "type")))
	typ, family := "ipv4_addr", " ip"
	if x.num(s, "family") == 10 {
		typ, family = "ipv6_addr", " ip6"
	}
	if x.d.chain.Table.Family != "inet" {
		family = ""
	}
	text := verb + family + " to"
	var addr string
	var ok bool
	if reg := x.num(s, "sreg_addr_min"); reg != 0 {
		if addr, ok = x.d.span(reg, x.num(s, "sreg_addr_max"), typ); !ok {
			return false
		}
	}
	port := ""
	if reg := x.num(s, "sreg_proto_min"); reg != 0 {
		if port, ok = x.d.span(reg, x.num(s, "sreg_proto_max"), "inet_service"); !ok {
			return false
		}
		if typ == "ipv6_addr" && addr != "" {
			addr = "[" + addr + "]"
		}
		port = ":" + port
	} else if addr == "" {
		return false
	}
	if addr == "" {
		text = strings.Replace(text, family, "", 1)
	}
	x.d.say("%s %s%s%s", text, addr, port, nftNATFlags(x.num(s, "flags")))
	return true
}

func nftMasq(x nftExpr) bool { return x.ports("masquerade", "nft_masq") }

func nftRedir(x nftExpr) bool { return x.ports("redirect", "nft_redir") }

func (x nftExpr) ports(verb, s string) bool {
	if reg := x.num(s, "sreg_proto_min"); reg != 0 {
		port, ok := x.d.span(reg, x.num(s, "sreg_proto_max"), "inet_service")
		if !ok {
			return false
		}
		verb += " to :" + port
	}
	x.d.say("%s%s", verb, nftNATFlags(x.num(s, "flags")))
	return true
}

func nftObjref(x nftExpr) bool {
	d := x.d
	r := &d.w.r
	core := x
	core.kind.module = nftModule
	obj := r.Ptr(x.priv) // nft_objref_priv: the only thing in it
	name := r.CString(r.Pointer(obj, core.field("nft_object", "key.name")), maxNFTName)
	typ := r.Uint(r.Pointer(r.Pointer(obj, core.field("nft_object", "ops")), core.field("nft_object_ops", "type")), core.field("nft_object_type", "type"))
	words := map[uint64]string{
		1: "counter name %s", 2: "quota name %s", 3: "ct helper set %s", 4: "limit name %s", 5: "ct count name %s", 7: "ct timeout set %s",
		8: "meta secmark set %s", 9: "ct expectation set %s", 10: "synproxy name %s",
	}
	format, ok := words[typ]
	if ok && name != "" {
		d.say(format, strconv.Quote(name))
	}
	return ok && name != ""
}

func nftFib(x nftExpr) bool {
	const s = "nft_fib"
	flags, result := x.num(s, "flags"), x.num(s, "result")
	if result < 1 || result > 3 {
		return false
	}
	var parts []string
	for i, name := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			parts = append(parts, name)
		}
	}
	v := &nftValue{
		text: "fib " + strings.Join(parts, " . ") + " " + []string{"oif", "oifname", "type"}[result-1], size: 4, loaded: 4, host: true,
		typ: []string{"ifindex", "ifname", "fib_addrtype"}[result-1],
	}
	if flags&32 != 0 {
		v.typ = "boolean"
	} else if result == 2 {
		v.size, v.loaded = 16, 16
	}
	x.d.set(x.num(s, "dreg"), v)
	return true
}

func nftQuota(x nftExpr) bool {
	const s = "nft_quota"
	over := ""
	if x.num(s, "flags")&1 != 0 {
		over = "over "
	}
	x.d.say("quota %s%s", over, nftBytes(x.num(s, "quota")))
	return x.has(s, "quota")
}

func nftRT(x nftExpr) bool {
	const s = "nft_rt"
	keys := []nftKey{{"rt classid", "integer", false}, {"rt ip nexthop", "ipv4_addr", true}, {"rt ip6 nexthop", "ipv6_addr", true}, {"rt mtu", "integer", false}, {"rt ipsec", "boolean", false}}
	key := x.num(s, "key")
	if key >= uint64(len(keys)) {
		return false
	}
	k := keys[key]
	x.d.set(x.num(s, "dreg"), &nftValue{text: k.text, typ: k.typ, host: !k.network, size: []int{4, 4, 16, 2, 1}[key], loaded: []int{4, 4, 16, 2, 1}[key]})
	return true
}

func nftNumgen(x nftExpr) bool {
	s, how := "nft_ng_inc", "inc"
	if strings.Contains(x.kind.ops, "random") {
		s, how = "nft_ng_random", "random"
	}
	text := fmt.Sprintf("numgen %s mod %d", how, x.num(s, "modulus"))
	if off := x.num(s, "offset"); off != 0 {
		text += fmt.Sprintf(" offset %d", off)
	}
	x.d.set(x.num(s, "dreg"), &nftValue{text: text, typ: "integer", host: true, size: 4, loaded: 4})
	return x.has(s, "modulus")
}

func nftConnlimit(x nftExpr) bool {
	const s = "nft_connlimit"
	over := ""
	if x.num(s, "invert") != 0 {
		over = "over "
	}
	x.d.say("ct count %s%d", over, x.num(s, "limit"))
	return x.has(s, "limit")
}

func nftFlow(x nftExpr) bool {
	table := virt.Addr(x.num("nft_flow_offload", "flowtable"))
	core := x
	core.kind.module = nftModule
	name := x.d.w.r.CString(x.d.w.r.Pointer(table, core.field("nft_flowtable", "name")), maxNFTName)
	x.d.say("flow add @%s", name)
	return name != ""
}

func nftQueue(x nftExpr) bool {
	const s = "nft_queue"
	if !x.has(s, "queuenum") {
		return false
	}
	text := "queue"
	flags := x.num(s, "flags")
	if flags&1 != 0 {
		text += " flags bypass"
	}
	if flags&2 != 0 {
		text += strings.Replace(" flags fanout", " flags", map[bool]string{true: ",", false: " flags"}[flags&1 != 0], 1)
		text = strings.Replace(text, ", fanout", ",fanout", 1)
	}
	first, total := x.num(s, "queuenum"), x.num(s, "queues_total")
	text += fmt.Sprintf(" to %d", first)
	if total > 1 {
		text += fmt.Sprintf("-%d", first+total-1)
	}
	x.d.say("%s", text)
	return true
}
