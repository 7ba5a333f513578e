package network

import (
	"context"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Rule chooses the routing table by which a packet goes.
type Rule struct {
	Addr           virt.Addr // of the struct fib_rule
	Net            Namespace
	Family         uint16 // AF_INET, AF_INET6; RTNL_FAMILY_IPMR, IP6MR for multicast
	Priority       uint32 // the lowest is asked first
	From, To       netip.Prefix
	Mark, Mask     uint32
	In, Out        string // names of interfaces
	TOS            uint8
	IPProtocol     uint8
	Sport, Dport   [2]uint16 // first and last; 0 for any
	UIDs           [2]uint32 // first and last; the last is -1 for any
	Tunnel         uint64
	L3Master       bool // the table is that of the interface's VRF
	Action         uint8
	Table          uint32
	Goto           uint32 // priority to go on at, with that action
	SuppressPrefix int32  // routes of so short a prefix do not count; -1: all do
	SuppressGroup  int32  // nor do those through interfaces of that group; -1: all do
	Protocol       uint8  // RTPROT_ of who made it
	Flags          uint32 // FIB_RULE_
}

// Families of rules besides those of sockets.
const (
	FamilyIPMR  = 128
	FamilyIP6MR = 129
)

type ruleLayout struct {
	ops                                                    kobj.Field // struct net
	family, opsList, rules                                 kobj.Field // struct fib_rules_ops
	list, iifIndex, oifIndex, mark, mask, flags, table     kobj.Field
	action, l3, proto, ipProto, target, tunnel, goTo, pref kobj.Field
	group, prefix, iif, oif, uidStart, uidEnd              kobj.Field
	sportStart, sportEnd, dportStart, dportEnd             kobj.Field
	common4, dstLen, srcLen, tos4, src, dst                kobj.Field // struct fib4_rule
	common6, src6, dst6, tos6                              kobj.Field // struct fib6_rule
	keyAddr, keyLen                                        kobj.Field
}

func ruleLayoutOf(s *linux.System) (*ruleLayout, error) {
	return kobj.LayoutOf(s.Walker, "rules", func(r *kobj.Resolver, o *ruleLayout) {
		f := func(path string) kobj.Field { return r.Field("fib_rule", path) }
		m := func(path string) kobj.Field { return r.Optional("fib_rule", path) }
		o.ops = r.Field("net", "rules_ops")
		o.family, o.opsList, o.rules = r.Field("fib_rules_ops", "family"), r.Field("fib_rules_ops", "list"), r.Field("fib_rules_ops", "rules_list")
		o.list, o.iifIndex, o.oifIndex, o.mark, o.mask = f("list"), f("iifindex"), f("oifindex"), f("mark"), f("mark_mask")
		o.flags, o.table, o.action, o.target, o.pref = f("flags"), f("table"), f("action"), f("target"), f("pref")
		o.goTo, o.group, o.prefix, o.iif, o.oif = f("ctarget"), f("suppress_ifgroup"), f("suppress_prefixlen"), f("iifname"), f("oifname")
		o.l3, o.proto, o.ipProto, o.tunnel = m("l3mdev"), m("proto"), m("ip_proto"), m("tun_id") // 4.8, 4.17
		o.uidStart, o.uidEnd = m("uid_range.start.val"), m("uid_range.end.val")
		o.sportStart, o.sportEnd, o.dportStart, o.dportEnd = m("sport_range.start"), m("sport_range.end"), m("dport_range.start"), m("dport_range.end")
		four := func(paths ...string) kobj.Field { return r.Optional("fib4_rule", paths...) }
		six := func(paths ...string) kobj.Field { return r.Optional("fib6_rule", paths...) }
		o.common4, o.dstLen, o.srcLen, o.src, o.dst = four("common"), four("dst_len"), four("src_len"), four("src"), four("dst")
		o.common6, o.src6, o.dst6 = six("common"), six("src"), six("dst")
		o.tos4, o.tos6 = four("dscp", "tos"), six("dscp", "tclass") // 5.18
		o.keyAddr, o.keyLen = r.Optional("rt6key", "addr"), r.Optional("rt6key", "plen")
	})
}

const (
	maxRuleFamilies = 64
	// maxRules bounds the rules of all namespaces: each has forty members, which cost a walk through the page tables each
	// in a guest that broke its direct map.
	maxRules = 1 << 13
)

// Rules yields the rules of all network namespaces, family by family, in the order in
// which they are asked.
func Rules(ctx context.Context, s *linux.System) iter.Seq2[*Rule, error] {
	return func(yield func(*Rule, error) bool) {
		o, err := ruleLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		r := s.Reader()
		stopped, left := false, maxRules
		emit := func(rule *Rule, err error) bool {
			if err != nil {
				rule, err = nil, fmt.Errorf("rules: %w", err)
			}
			stopped = !yield(rule, err)
			return !stopped
		}
		for n, err := range Namespaces(ctx, s) {
			if err != nil {
				if !emit(nil, err) {
					return
				}
				continue
			}
			for ops, err := range s.List(ctx, o.ops.At(n.Addr), maxRuleFamilies) {
				var family uint16
				if ops -= virt.Addr(o.opsList.Offset); err == nil {
					family, err = kobj.Read(&r, func() uint16 { return uint16(r.Uint(ops, o.family)) })
				}
				if err != nil {
					if !emit(nil, err) {
						return
					}
					continue
				}
				for node, err := range s.List(ctx, o.rules.At(ops), max(left, 1)) {
					left--
					rule := &Rule{Addr: node - virt.Addr(o.list.Offset), Net: n, Family: family}
					if err == nil {
						_, err = kobj.Read(&r, func() int { o.read(&r, rule); return 0 })
					}
					if !emit(rule, err) {
						break
					}
				}
				if stopped {
					return
				}
			}
		}
	}
}

func (o *ruleLayout) read(r *kobj.Reader, rule *Rule) {
	const goTo, unresolved, iifDetached, oifDetached = 2, 0x4, 0x8, 0x10 // FR_ACT_GOTO, FIB_RULE_
	a := rule.Addr
	u32 := func(f kobj.Field) uint32 { return uint32(r.Uint(a, f)) }
	u8 := func(f kobj.Field) uint8 { return uint8(r.Uint(a, f)) }
	rule.Priority, rule.Mark, rule.Mask, rule.Table, rule.Flags = u32(o.pref), u32(o.mark), u32(o.mask), u32(o.table), u32(o.flags)
	rule.In, rule.Out = r.CString(o.iif.At(a), int(min(o.iif.Size, 16))), r.CString(o.oif.At(a), int(min(o.oif.Size, 16)))
	rule.IPProtocol, rule.L3Master, rule.Protocol = u8(o.ipProto), r.Uint(a, o.l3) != 0, u8(o.proto)
	rule.Sport = [2]uint16{uint16(r.Uint(a, o.sportStart)), uint16(r.Uint(a, o.sportEnd))}
	rule.Dport = [2]uint16{uint16(r.Uint(a, o.dportStart)), uint16(r.Uint(a, o.dportEnd))}
	if rule.UIDs = [2]uint32{0, ^uint32(0)}; o.uidStart.Present() {
		rule.UIDs = [2]uint32{u32(o.uidStart), u32(o.uidEnd)}
	}
	rule.Tunnel = bits.ReverseBytes64(r.Uint(a, o.tunnel)) // __be64
	rule.SuppressPrefix, rule.SuppressGroup = int32(u32(o.prefix)), int32(u32(o.group))
	// What ip gets to know of a rule that leads nowhere, the kernel works out as it reports it.
	if rule.Action = u8(o.action); rule.Action == goTo {
		if rule.Goto = u32(o.target); r.Pointer(a, o.goTo) == 0 {
			rule.Flags |= unresolved
		}
	}
	const detached = ^uint32(0)
	if rule.In != "" && u32(o.iifIndex) == detached {
		rule.Flags |= iifDetached
	}
	if rule.Out != "" && u32(o.oifIndex) == detached {
		rule.Flags |= oifDetached
	}
	switch {
	case rule.Family == FamilyInet && o.common4.Present():
		a -= virt.Addr(o.common4.Offset)
		if n := u8(o.srcLen); n != 0 {
			rule.From = netip.PrefixFrom(netIPv4(u32(o.src)), int(min(n, 32)))
		}
		if n := u8(o.dstLen); n != 0 {
			rule.To = netip.PrefixFrom(netIPv4(u32(o.dst)), int(min(n, 32)))
		}
		rule.TOS = u8(o.tos4)
	case rule.Family == FamilyInet6 && o.common6.Present() && o.keyAddr.Present():
		a -= virt.Addr(o.common6.Offset)
		key := func(f kobj.Field) netip.Prefix {
			n := r.Uint(f.At(a), o.keyLen)
			if n == 0 {
				return netip.Prefix{}
			}
			var ip [16]byte
			copy(ip[:], r.Bytes(o.keyAddr.At(f.At(a)), 16))
			return netip.PrefixFrom(netip.AddrFrom16(ip), int(min(n, 128)))
		}
		rule.From, rule.To, rule.TOS = key(o.src6), key(o.dst6), u8(o.tos6)
	}
}
