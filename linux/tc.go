package linux

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/virt"
)

type tcLayout struct {
	mini                                       [2]Field // struct net_device: until 6.5
	tcx                                        [2]Field // since 6.6
	items, itemProg, parent                    Field    // struct bpf_mprog_entry, bpf_mprog_fp
	itemSize                                   uint32
	bundle, entryMini                          Field // struct tcx_entry
	block, filters, chain, chainBlock          Field // struct mini_Qdisc, tcf_proto, tcf_chain
	chains, chainList, chainFilters            Field // struct tcf_block, tcf_chain
	next, root, ops, kind                      Field // struct tcf_proto, tcf_proto_ops
	exts, extActions, actionOps, actionKind    Field // struct tcf_exts, tc_action, tc_action_ops
	qdisc, qdiscHash, qNode, handle, qOps, qID Field // struct net_device, Qdisc, Qdisc_ops
	qClass, qBlock, private                    Field // struct Qdisc_ops, Qdisc_class_ops, Qdisc
}

func (s *System) tcLayout() (*tcLayout, error) {
	return layoutOf(s.Walker, "programs of tc", func(r *resolver, o *tcLayout) {
		f, m := r.field, r.optional
		o.mini = [2]Field{m("net_device", "miniq_ingress"), m("net_device", "miniq_egress")}
		o.tcx = [2]Field{m("net_device", "tcx_ingress"), m("net_device", "tcx_egress")}
		o.items, o.itemProg, o.parent = m("bpf_mprog_entry", "fp_items"), m("bpf_mprog_fp", "prog"), m("bpf_mprog_entry", "parent")
		o.itemSize, _ = r.types.StructSize("bpf_mprog_fp")
		o.bundle, o.entryMini = m("tcx_entry", "bundle"), m("tcx_entry", "miniq")
		o.block, o.filters = m("mini_Qdisc", "block"), f("mini_Qdisc", "filter_list")
		o.chain, o.chainBlock = f("tcf_proto", "chain"), f("tcf_chain", "block")
		o.chains, o.chainList, o.chainFilters = f("tcf_block", "chain_list"), f("tcf_chain", "list"), f("tcf_chain", "filter_chain")
		o.next, o.root, o.ops, o.kind = f("tcf_proto", "next"), f("tcf_proto", "root"), f("tcf_proto", "ops"), f("tcf_proto_ops", "kind")
		o.exts, o.extActions = f("tcf_exts", "nr_actions"), f("tcf_exts", "actions")
		o.actionOps, o.actionKind = f("tc_action", "ops"), f("tc_action_ops", "kind")
		o.qdisc, o.qdiscHash, o.qNode = f("net_device", "qdisc"), m("net_device", "qdisc_hash"), m("Qdisc", "hash")
		o.handle, o.qOps, o.qID = f("Qdisc", "handle"), f("Qdisc", "ops"), f("Qdisc_ops", "id")
		o.qClass, o.qBlock = f("Qdisc_ops", "cl_ops"), f("Qdisc_class_ops", "tcf_block")
		o.private = m("Qdisc", "privdata") // 5.0
	})
}

// Bounds of what is looked at on one device.
const (
	maxTCChains  = 4096
	maxTCFilters = 1 << 16
	maxTCActions = 32 // TCA_ACT_MAX_PRIO
	maxQdiscs    = 1 << 16
)

// tcWalk collects the programs of one device.
type tcWalk struct {
	*netDevReader
	ctx  context.Context
	d    *NetDevice
	mode string
	left int // filters that may still be looked at
}

// tcPrograms finds what tc runs on d: first what tcx holds, then what the filters of
// clsact or ingress do, then those of the device's queueing disciplines.
func (w *netDevReader) tcPrograms(ctx context.Context, d *NetDevice) {
	if d.TCErr = w.tcErr; w.tcErr != nil || !has(w.o.aux) || !has(w.o.auxID) || !has(w.o.auxName) {
		return
	}
	o, r := w.tc, &w.r
	t := &tcWalk{netDevReader: w, ctx: ctx, d: d, left: maxTCFilters}
	for i, mode := range []string{"ingress", "egress"} {
		t.mode = mode
		mini := r.pointer(d.Addr, o.mini[i])
		if e := r.pointer(d.Addr, o.tcx[i]); e != 0 && has(o.items) && o.itemSize >= 8 {
			for slot := uint32(0); slot < o.items.Size/o.itemSize; slot++ {
				prog := r.pointer(at(e, o.items)+virt.Addr(slot*o.itemSize), o.itemProg)
				if prog == 0 {
					break
				}
				d.TC = append(d.TC, w.program(mode, prog, "tcx"))
			}
			if bundle := r.pointer(e, o.parent); bundle != 0 && has(o.bundle) {
				mini = r.pointer(bundle-virt.Addr(o.bundle.Offset), o.entryMini)
			}
		}
		if mini == 0 {
			continue
		}
		block := r.pointer(mini, o.block)
		if block == 0 { // clsact sets it for ingress only
			block = r.pointer(r.pointer(r.pointer(mini, o.filters), o.chain), o.chainBlock)
		}
		t.block(block)
	}
	t.qdiscs()
}

// block looks at all chains of filters of a tcf_block.
func (t *tcWalk) block(a virt.Addr) {
	if a == 0 || t.r.err != nil {
		return
	}
	for node, err := range t.s.list(t.ctx, at(a, t.tc.chains), maxTCChains) {
		if err != nil {
			t.fail(err)
			return
		}
		chain := node - virt.Addr(t.tc.chainList.Offset)
		seen := map[virt.Addr]struct{}{}
		for f := t.r.pointer(chain, t.tc.chainFilters); f != 0 && t.r.err == nil; f = t.r.pointer(f, t.tc.next) {
			if _, twice := seen[f]; twice || !t.visit() {
				t.fail(fmt.Errorf("filter at %#x: %w: there is no end to them", uint64(f), ErrBroken))
				return
			}
			seen[f] = struct{}{}
			t.filter(f)
		}
	}
}

func (t *tcWalk) visit() bool { t.left--; return t.left >= 0 }

func (t *tcWalk) fail(err error) {
	t.d.Errs = append(t.d.Errs, fmt.Errorf("programs of tc of network device %q: %w", t.d.Name, err))
}

// unknown notes that there may be programs which nothing here describes.
func (t *tcWalk) unknown(err error) {
	if t.d.TCErr == nil {
		t.d.TCErr = err
	}
}

type clsBPFLayout struct {
	programs, link, prog, direct, exts Field // struct cls_bpf_head, cls_bpf_prog
}

type clsMatchallLayout struct{ exts Field } // struct cls_mall_head

type actBPFLayout struct{ filter Field } // struct tcf_bpf

// filter looks at a tcf_proto. Filters of other kinds hold programs in their actions
// only.
func (t *tcWalk) filter(a virt.Addr) {
	o, r := t.tc, &t.r
	kind := r.cString(at(r.pointer(a, o.ops), o.kind), int(min(o.kind.Size, 16)))
	root := r.pointer(a, o.root)
	switch {
	case root == 0 || r.err != nil:
	case kind == "bpf":
		c, err := layoutIn(t.s, "cls_bpf", "filters of BPF", func(r *resolver, c *clsBPFLayout) {
			c.programs, c.link, c.prog = r.field("cls_bpf_head", "plist"), r.field("cls_bpf_prog", "link"), r.field("cls_bpf_prog", "filter")
			c.direct, c.exts = r.field("cls_bpf_prog", "exts_integrated"), r.field("cls_bpf_prog", "exts")
		})
		if err != nil {
			t.unknown(err)
			return
		}
		for node, err := range t.s.list(t.ctx, at(root, c.programs), maxTCFilters) {
			if err != nil || !t.visit() {
				t.fail(eitherErr(err, errBudget))
				return
			}
			p := node - virt.Addr(c.link.Offset)
			how := "cls_bpf"
			if r.num(p, c.direct) != 0 {
				how += " direct-action"
			}
			if prog := r.pointer(p, c.prog); prog != 0 {
				t.d.TC = append(t.d.TC, t.program(t.mode, prog, how))
			}
			t.actions(at(p, c.exts))
		}
	case kind == "matchall":
		c, err := layoutIn(t.s, "cls_matchall", "filters of all packets", func(r *resolver, c *clsMatchallLayout) {
			c.exts = r.field("cls_mall_head", "exts")
		})
		if err != nil {
			t.unknown(err)
			return
		}
		t.actions(at(root, c.exts))
	}
}

// actions looks for programs among the actions of a tcf_exts.
func (t *tcWalk) actions(exts virt.Addr) {
	o, r := t.tc, &t.r
	list := r.pointer(exts, o.extActions)
	for i := range min(r.num(exts, o.exts), maxTCActions) {
		if list == 0 || r.err != nil {
			return
		}
		a := r.ptr(list + virt.Addr(8*i))
		if a == 0 || r.cString(at(r.pointer(a, o.actionOps), o.actionKind), int(min(o.actionKind.Size, 16))) != "bpf" {
			continue
		}
		b, err := layoutIn(t.s, "act_bpf", "actions of BPF", func(r *resolver, b *actBPFLayout) { b.filter = r.field("tcf_bpf", "filter") })
		if err != nil {
			t.unknown(err)
			return
		}
		if prog := r.pointer(a, b.filter); prog != 0 {
			t.d.TC = append(t.d.TC, t.program(t.mode, prog, "act_bpf"))
		}
	}
}

// qdiscs looks at the filters of the device's queueing disciplines.
func (t *tcWalk) qdiscs() {
	o, r := t.tc, &t.r
	root := r.pointer(t.d.Addr, o.qdisc)
	if root != 0 {
		t.queue(root)
	}
	if !has(o.qdiscHash) || !has(o.qNode) {
		return
	}
	const buckets = 16
	for i := range min(o.qdiscHash.Size/8, buckets) {
		for node, err := range t.s.hlist(t.ctx, at(t.d.Addr, o.qdiscHash)+virt.Addr(8*i), maxQdiscs) {
			if err != nil || !t.visit() {
				t.fail(eitherErr(err, errBudget))
				break
			}
			if q := node - virt.Addr(o.qNode.Offset); q != root {
				t.queue(q)
			}
		}
	}
}

// Queueing disciplines whose filters are known, one type each: layoutIn tells its groups
// apart by them.
type (
	prioLayout    struct{ block Field }
	htbLayout     struct{ block Field }
	fqCodelLayout struct{ block Field }
)

// queue looks at the filters of a Qdisc.
func (t *tcWalk) queue(a virt.Addr) {
	o, r := t.tc, &t.r
	ops := r.pointer(a, o.qOps)
	if ops == 0 {
		return
	}
	class := r.pointer(ops, o.qClass)
	if class == 0 || r.pointer(class, o.qBlock) == 0 {
		return // one that has no filters
	}
	id := r.cString(at(ops, o.qID), int(min(o.qID.Size, 16)))
	if id == "clsact" || id == "ingress" || r.err != nil {
		return // seen by where they run
	}
	var block Field
	var err error
	switch id {
	case "prio":
		p, e := layoutIn(t.s, "sch_prio", "filters of prio", func(r *resolver, o *prioLayout) { o.block = r.field("prio_sched_data", "block") })
		if err = e; e == nil {
			block = p.block
		}
	case "htb":
		p, e := layoutIn(t.s, "sch_htb", "filters of htb", func(r *resolver, o *htbLayout) { o.block = r.field("htb_sched", "block") })
		if err = e; e == nil {
			block = p.block
		}
	case "fq_codel":
		p, e := layoutIn(t.s, "sch_fq_codel", "filters of fq_codel", func(r *resolver, o *fqCodelLayout) { o.block = r.field("fq_codel_sched_data", "block") })
		if err = e; e == nil {
			block = p.block
		}
	default:
		err = fmt.Errorf("filters of %s: %w", id, ErrUnsupported)
	}
	if err == nil && !has(o.private) {
		err = fmt.Errorf("filters of %s: %w", id, ErrUnsupported)
	}
	if err != nil {
		t.unknown(err)
		return
	}
	t.mode = fmt.Sprintf("%x:", r.num(a, o.handle)>>16)
	t.block(r.pointer(at(a, o.private), block))
}
