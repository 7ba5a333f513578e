package netfilter

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/network"
	"github.com/outsight-vmi/outsight/virt"
)

// Table is a table of nf_tables.
type Table struct {
	Addr   virt.Addr // of the struct nft_table
	Net    network.Namespace
	Family string // ip, ip6, inet, arp, bridge, netdev
	Name   string
	Handle uint64
	Flags  uint64 // NFT_TABLE_F_…: 1 dormant, 2 owned by a process, 4 persistent
}

// Chain is a chain of nf_tables.
type Chain struct {
	Table  *Table
	Addr   virt.Addr // of the struct nft_chain
	Name   string
	Handle uint64
	Refs   uint64 // rules and elements that lead to it, and rules in it
	// Of a base chain, which packets come to by themselves:
	Base     bool
	Type     string // filter, nat, route
	Hook     string
	Priority int32
	Policy   string   // accept, drop
	Devices  []string // of netdev, and of inet's ingress

	gen     uint // generation of the rules that is in force
	listed  []nftRuleAt
	running []nftRuleAt
	err     error // why one of the two is not whole
}

// Rules is how many rules are listed, and how many run.
func (c *Chain) Rules() (listed, running int) { return len(c.listed), len(c.running) }

const (
	nftModule = "nf_tables"
	// More of these than a healthy guest has.
	maxNFTTables = 1 << 12
	maxNFTChains = 1 << 16
	maxNFTRules  = 1 << 20
	maxNFTName   = 256 // NFT_NAME_MAXLEN
)

var nftFamilies = map[uint64]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

type nftLayout struct {
	netID                                               bool
	gen, tables, gencursor                              kobj.Field // struct net; struct nftables_pernet
	tList, tChains, tSets, tObjects                     kobj.Field // struct nft_table
	tHandle, tFamily, tFlags, tGenmask, tName           kobj.Field
	cList, cRules, cName, cHandle, cUse                 kobj.Field // struct nft_chain
	cFlags, cGenmask                                    kobj.Field
	blobs                                               [2]kobj.Field
	bChain, bType, bPolicy, bHooks                      kobj.Field // struct nft_base_chain
	hook, priority                                      kobj.Field // of its nf_hook_ops
	typeName                                            kobj.Field
	hList, hDev, hName                                  kobj.Field // struct nft_hook
	devName                                             kobj.Field
	rList, rHandle, rGenmask, rLen, rUdata, rData       kobj.Field // struct nft_rule
	uLen, uData                                         kobj.Field // struct nft_userdata
	blobSize, blobData, dpLast, dpLen, dpHandle, dpData kobj.Field
	eData, oSize, oType, xName, xOwner                  kobj.Field // expressions
}

func nftLayoutOf(s *linux.System) (*nftLayout, error) {
	return linux.LayoutIn(s, nftModule, "nf_tables", func(r *kobj.Resolver, o *nftLayout) {
		o.gen, o.gencursor = r.Field("net", "gen"), r.Field("net", "nft.gencursor")
		// Until 5.12 the tables were in struct net itself.
		if o.tables = r.Optional("net", "nft.tables"); !o.tables.Present() {
			o.netID, o.tables = true, r.Field("nftables_pernet", "tables")
		}
		const t, c, b, h, u = "nft_table", "nft_chain", "nft_base_chain", "nft_hook", "nft_rule"
		o.tList, o.tChains, o.tSets, o.tObjects = r.Field(t, "list"), r.Field(t, "chains"), r.Field(t, "sets"), r.Field(t, "objects")
		o.tHandle, o.tFamily, o.tFlags = r.Field(t, "handle"), r.Field(t, "family"), r.Field(t, "flags")
		o.tGenmask, o.tName = r.Field(t, "genmask"), r.Field(t, "name")
		o.cList, o.cRules, o.cName, o.cHandle = r.Field(c, "list"), r.Field(c, "rules"), r.Field(c, "name"), r.Field(c, "handle")
		o.cUse, o.cFlags, o.cGenmask = r.Field(c, "use"), r.Field(c, "flags"), r.Field(c, "genmask")
		// Until 5.17 what runs is an array of pointers to the listed rules.
		o.blobs = [2]kobj.Field{r.Optional(c, "blob_gen_0"), r.Optional(c, "blob_gen_1")}
		o.bChain, o.bType, o.bPolicy, o.bHooks = r.Field(b, "chain"), r.Field(b, "type"), r.Field(b, "policy"), r.Field(b, "hook_list")
		o.hook, o.priority = r.Field(b, "ops.hooknum"), r.Field(b, "ops.priority")
		o.typeName = r.Field("nft_chain_type", "name")
		o.hList, o.hDev, o.hName = r.Field(h, "list"), r.Optional(h, "ops.dev"), r.Optional(h, "ifname") // 6.16
		o.devName = r.Field("net_device", "name")
		o.rList, o.rHandle, o.rGenmask = r.Field(u, "list"), r.Field(u, "handle"), r.Field(u, "genmask")
		o.rLen, o.rUdata, o.rData = r.Field(u, "dlen"), r.Field(u, "udata"), r.Field(u, "data")
		o.uLen, o.uData = r.Field("nft_userdata", "len"), r.Field("nft_userdata", "data")
		if o.blobs[0].Present() {
			o.blobSize, o.blobData = r.Field("nft_rule_blob", "size"), r.Field("nft_rule_blob", "data")
			const d = "nft_rule_dp"
			o.dpLast, o.dpLen, o.dpHandle, o.dpData = r.Field(d, "is_last"), r.Field(d, "dlen"), r.Field(d, "handle"), r.Field(d, "data")
		}
		o.eData, o.oSize, o.oType = r.Field("nft_expr", "data"), r.Field("nft_expr_ops", "size"), r.Field("nft_expr_ops", "type")
		o.xName, o.xOwner = r.Field("nft_expr_type", "name"), r.Field("nft_expr_type", "owner")
	})
}

// nftWalk reads the ruleset for one listing.
type nftWalk struct {
	s     *linux.System
	o     *nftLayout
	r     kobj.Reader
	netID uint64
	err   error // why there is nothing to walk
	none  bool  // the module is not there, so neither are tables
	dec   *nftDecoder
}

func newNFTWalk(s *linux.System) *nftWalk {
	w := &nftWalk{s: s, r: s.Reader()}
	if w.o, w.err = nftLayoutOf(s); w.err != nil {
		w.none = errors.Is(w.err, linux.ErrNotLoaded)
		return w
	}
	if w.o.netID {
		a, ok := s.ModuleSymbol(nftModule, "nf_tables_net_id")
		if !ok {
			a, ok = s.Address("nf_tables_net_id")
		}
		if !ok {
			w.err = fmt.Errorf("nf_tables: symbol nf_tables_net_id: %w", kernel.ErrNoSymbol)
			return w
		}
		w.netID, w.err = kobj.Read(&w.r, func() uint64 { return uint64(w.r.U32(a)) })
	}
	w.dec = newNFTDecoder(w)
	return w
}

// tables yields the tables of all network namespaces, and the generation (0 or 1) that
// is in force in each.
func (w *nftWalk) tables(ctx context.Context, yield func(*Table, uint, error) bool) {
	if w.err != nil {
		if !w.none {
			yield(nil, 0, w.err)
		}
		return
	}
	s, o, r := w.s, w.o, &w.r
	for n, err := range network.Namespaces(ctx, s) {
		var head virt.Addr
		var gen uint64
		if err == nil {
			_, err = kobj.Read(r, func() int {
				gen = r.Uint(n.Addr, o.gencursor)
				if head = o.tables.At(n.Addr); w.o.netID {
					// net_generic: an array of pointers by number, of which the first words are its header.
					private := r.Ptr(r.Pointer(n.Addr, o.gen) + virt.Addr(8*w.netID))
					head = o.tables.At(private)
				}
				return 0
			})
		}
		if err == nil && (gen > 1 || w.netID > 1<<16) {
			err = fmt.Errorf("%w: generation %d, number %d", kobj.ErrBroken, gen, w.netID)
		}
		if err != nil {
			if !yield(nil, 0, fmt.Errorf("nf_tables: %w", err)) {
				return
			}
			continue
		}
		for node, err := range s.List(ctx, head, maxNFTTables) {
			var t *Table
			active := true
			if err == nil {
				t, err = kobj.Read(r, func() *Table {
					a := node - virt.Addr(o.tList.Offset)
					active = r.Uint(a, o.tGenmask)&(1<<gen) == 0
					return &Table{
						Addr: a, Net: n, Family: nftFamilies[r.Uint(a, o.tFamily)], Name: r.CString(r.Pointer(a, o.tName), maxNFTName),
						Handle: r.Uint(a, o.tHandle), Flags: r.Uint(a, o.tFlags),
					}
				})
			}
			if err != nil {
				t, err = nil, fmt.Errorf("nf_tables: tables: %w", err)
			}
			if active && !yield(t, uint(gen), err) {
				return
			}
		}
	}
}

// Chains yields the chains of all tables of nf_tables, in the order in which nft lists
// them. There are none, without an error, where nf_tables is not loaded. Kernels that keep
// no types of modules (before 5.11) cannot be read: the error wraps [ErrNoModuleTypes].
func Chains(ctx context.Context, s *linux.System) iter.Seq2[*Chain, error] {
	return func(yield func(*Chain, error) bool) {
		w := newNFTWalk(s)
		w.chains(ctx, yield)
	}
}

func (w *nftWalk) chains(ctx context.Context, yield func(*Chain, error) bool) {
	w.tables(ctx, func(t *Table, gen uint, err error) bool {
		if err != nil {
			return yield(nil, err)
		}
		for node, err := range w.s.List(ctx, w.o.tChains.At(t.Addr), maxNFTChains) {
			var c *Chain
			active := true
			if err == nil {
				c, err = kobj.Read(&w.r, func() *Chain {
					a := node - virt.Addr(w.o.cList.Offset)
					active = w.r.Uint(a, w.o.cGenmask)&(1<<gen) == 0
					return w.chain(ctx, t, a)
				})
			}
			if err != nil {
				c, err = nil, fmt.Errorf("nf_tables: table %s %s: chains: %w", t.Family, t.Name, err)
			} else if active {
				c.gen = gen
				w.rules(ctx, c, gen)
			}
			if active && !yield(c, err) {
				return false
			}
		}
		return true
	})
}

func (w *nftWalk) chain(ctx context.Context, t *Table, a virt.Addr) *Chain {
	const base = 1 // NFT_CHAIN_BASE
	o, r := w.o, &w.r
	c := &Chain{
		Table: t, Addr: a, Name: r.CString(r.Pointer(a, o.cName), maxNFTName), Handle: r.Uint(a, o.cHandle), Refs: r.Uint(a, o.cUse),
		Base: r.Uint(a, o.cFlags)&base != 0,
	}
	if !c.Base {
		return c
	}
	b := a - virt.Addr(o.bChain.Offset)
	c.Type = r.CString(r.Pointer(r.Pointer(b, o.bType), o.typeName), 16)
	c.Hook = nftHookName(t.Family, int(r.Uint(b, o.hook)))
	c.Priority, c.Policy = int32(r.Int(b, o.priority)), "drop"
	if r.Uint(b, o.bPolicy) == 1 {
		c.Policy = "accept"
	}
	if c.Hook == "ingress" || c.Hook == "egress" {
		c.Devices = w.devices(ctx, o.bHooks.At(b))
	}
	return c
}

// devices are the names of those on a list of struct nft_hook.
func (w *nftWalk) devices(ctx context.Context, head virt.Addr) (names []string) {
	o, r := w.o, &w.r
	const most = 256 // NFT_NETDEVICE_MAX
	for node, err := range w.s.List(ctx, head, most) {
		if err != nil {
			r.Err = err
			break
		}
		h := node - virt.Addr(o.hList.Offset)
		name := o.hName.At(h)
		if !o.hName.Present() {
			name = o.devName.At(r.Pointer(h, o.hDev))
		}
		names = append(names, r.CString(name, 16))
	}
	return names
}

// nftHookName is the hook of a chain, in nft's words.
func nftHookName(family string, n int) string {
	if family == "netdev" {
		return nfName([]string{"ingress", "egress"}, n)
	}
	return nfHookName(family, n)
}

func nfName(names []string, n int) string {
	if n >= 0 && n < len(names) {
		return names[n]
	}
	return fmt.Sprint(n)
}
