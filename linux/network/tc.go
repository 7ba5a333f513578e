package network

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

type tcLayout struct {
	mini                                       [2]kobj.Field // struct net_device: until 6.5
	tcx                                        [2]kobj.Field // since 6.6
	items, itemProg, parent                    kobj.Field    // struct bpf_mprog_entry, bpf_mprog_fp
	itemSize                                   uint32
	bundle, entryMini                          kobj.Field // struct tcx_entry
	block, filters, chain, chainBlock          kobj.Field // struct mini_Qdisc, tcf_proto, tcf_chain
	chains, chainList, chainFilters            kobj.Field // struct tcf_block, tcf_chain
	next, root, ops, kind                      kobj.Field // struct tcf_proto, tcf_proto_ops
	exts, extActions, actionOps, actionKind    kobj.Field // struct tcf_exts, tc_action, tc_action_ops
	qdisc, qdiscHash, qNode, handle, qOps, qID kobj.Field // struct net_device, Qdisc, Qdisc_ops
	qClass, qBlock, private                    kobj.Field // struct Qdisc_ops, Qdisc_class_ops, Qdisc
}

func tcLayoutOf(s *linux.System) (*tcLayout, error) {
	return kobj.LayoutOf(s.Walker, "programs of tc", func(r *kobj.Resolver, o *tcLayout) {
		f, m := r.Field, r.Optional
		o.mini = [2]kobj.Field{m("net_device", "miniq_ingress"), m("net_device", "miniq_egress")}
		o.tcx = [2]kobj.Field{m("net_device", "tcx_ingress"), m("net_device", "tcx_egress")}
		o.items, o.itemProg, o.parent = m("bpf_mprog_entry", "fp_items"), m("bpf_mprog_fp", "prog"), m("bpf_mprog_entry", "parent")
		o.itemSize, _ = r.Types.StructSize("bpf_mprog_fp")
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
	d    *Device
	mode string
	left int // filters that may still be looked at
}

// tcPrograms finds what tc runs on d: first what tcx holds, then what the filters of
// clsact or ingress do, then those of the device's queueing disciplines.
func (w *netDevReader) tcPrograms(ctx context.Context, d *Device) {
	if d.TCErr = w.tcErr; w.tcErr != nil || !w.o.aux.Present() || !w.o.auxID.Present() || !w.o.auxName.Present() {
		return
	}
	o, r := w.tc, &w.r
	t := &tcWalk{netDevReader: w, ctx: ctx, d: d, left: maxTCFilters}
	for i, mode := range []string{"ingress", "egress"} {
		t.mode = mode
		mini := r.Pointer(d.Addr, o.mini[i])
		if e := r.Pointer(d.Addr, o.tcx[i]); e != 0 && o.items.Present() && o.itemSize >= 8 {
			for slot := uint32(0); slot < o.items.Size/o.itemSize; slot++ {
				prog := r.Pointer(o.items.At(e)+virt.Addr(slot*o.itemSize), o.itemProg)
				if prog == 0 {
					break
				}
				d.TC = append(d.TC, w.program(mode, prog, "tcx"))
			}
			if bundle := r.Pointer(e, o.parent); bundle != 0 && o.bundle.Present() {
				mini = r.Pointer(bundle-virt.Addr(o.bundle.Offset), o.entryMini)
			}
		}
		if mini == 0 {
			continue
		}
		block := r.Pointer(mini, o.block)
		if block == 0 { // clsact sets it for ingress only
			block = r.Pointer(r.Pointer(r.Pointer(mini, o.filters), o.chain), o.chainBlock)
		}
		t.block(block)
	}
	t.qdiscs()
}

// block looks at all chains of filters of a tcf_block.
func (t *tcWalk) block(a virt.Addr) {
	if a == 0 || t.r.Err != nil {
		return
	}
	for node, err := range t.s.List(t.ctx, t.tc.chains.At(a), maxTCChains) {
		if err != nil {
			t.fail(err)
			return
		}
		chain := node - virt.Addr(t.tc.chainList.Offset)
		seen := map[virt.Addr]struct{}{}
		for f := t.r.Pointer(chain, t.tc.chainFilters); f != 0 && t.r.Err == nil; f = t.r.Pointer(f, t.tc.next) {
			if _, twice := seen[f]; twice || !t.visit() {
				t.fail(fmt.Errorf("filter at %#x: %w: the list does not end", uint64(f), kobj.ErrBroken))
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
	programs, link, prog, direct, exts kobj.Field // struct cls_bpf_head, cls_bpf_prog
}

type clsMatchallLayout struct{ exts kobj.Field } // struct cls_mall_head

type actBPFLayout struct{ filter kobj.Field } // struct tcf_bpf

// filter looks at a tcf_proto. Filters of other kinds hold programs in their actions
// only.
func (t *tcWalk) filter(a virt.Addr) {
	o, r := t.tc, &t.r
	kind := r.CString(o.kind.At(r.Pointer(a, o.ops)), int(min(o.kind.Size, 16)))
	root := r.Pointer(a, o.root)
	switch {
	case root == 0 || r.Err != nil:
	case kind == "bpf":
		c, err := linux.LayoutIn(t.s, "cls_bpf", "filters of BPF", func(r *kobj.Resolver, c *clsBPFLayout) {
			c.programs, c.link, c.prog = r.Field("cls_bpf_head", "plist"), r.Field("cls_bpf_prog", "link"), r.Field("cls_bpf_prog", "filter")
			c.direct, c.exts = r.Field("cls_bpf_prog", "exts_integrated"), r.Field("cls_bpf_prog", "exts")
		})
		if err != nil {
			t.unknown(err)
			return
		}
		for node, err := range t.s.List(t.ctx, c.programs.At(root), maxTCFilters) {
			if err != nil || !t.visit() {
				t.fail(eitherErr(err, kobj.ErrBudget))
				return
			}
			p := node - virt.Addr(c.link.Offset)
			how := "cls_bpf"
			if r.Uint(p, c.direct) != 0 {
				how += " direct-action"
			}
			if prog := r.Pointer(p, c.prog); prog != 0 {
				t.d.TC = append(t.d.TC, t.program(t.mode, prog, how))
			}
			t.actions(c.exts.At(p))
		}
	case kind == "matchall":
		c, err := linux.LayoutIn(t.s, "cls_matchall", "filters of all packets", func(r *kobj.Resolver, c *clsMatchallLayout) {
			c.exts = r.Field("cls_mall_head", "exts")
		})
		if err != nil {
			t.unknown(err)
			return
		}
		t.actions(c.exts.At(root))
	}
}

// actions looks for programs among the actions of a tcf_exts.
func (t *tcWalk) actions(exts virt.Addr) {
	o, r := t.tc, &t.r
	list := r.Pointer(exts, o.extActions)
	for i := range min(r.Uint(exts, o.exts), maxTCActions) {
		if list == 0 || r.Err != nil {
			return
		}
		a := r.Ptr(list + virt.Addr(8*i))
		if a == 0 || r.CString(o.actionKind.At(r.Pointer(a, o.actionOps)), int(min(o.actionKind.Size, 16))) != "bpf" {
			continue
		}
		b, err := linux.LayoutIn(t.s, "act_bpf", "actions of BPF", func(r *kobj.Resolver, b *actBPFLayout) { b.filter = r.Field("tcf_bpf", "filter") })
		if err != nil {
			t.unknown(err)
			return
		}
		if prog := r.Pointer(a, b.filter); prog != 0 {
			t.d.TC = append(t.d.TC, t.program(t.mode, prog, "act_bpf"))
		}
	}
}

// qdiscs looks at the filters of the device's queueing disciplines.
func (t *tcWalk) qdiscs() {
	o, r := t.tc, &t.r
	root := r.Pointer(t.d.Addr, o.qdisc)
	if root != 0 {
		t.queue(root)
	}
	if !o.qdiscHash.Present() || !o.qNode.Present() {
		return
	}
	const buckets = 16
	for i := range min(o.qdiscHash.Size/8, buckets) {
		for node, err := range t.s.HList(t.ctx, o.qdiscHash.At(t.d.Addr)+virt.Addr(8*i), maxQdiscs) {
			if err != nil || !t.visit() {
				t.fail(eitherErr(err, kobj.ErrBudget))
				break
			}
			if q := node - virt.Addr(o.qNode.Offset); q != root {
				t.queue(q)
			}
		}
	}
}

// Queueing disciplines whose filters are known, one type each: layoutIn reads its groups
// apart by them.
type (
	prioLayout    struct{ block kobj.Field }
	htbLayout     struct{ block kobj.Field }
	fqCodelLayout struct{ block kobj.Field }
)

// queue looks at the filters of a Qdisc.
func (t *tcWalk) queue(a virt.Addr) {
	o, r := t.tc, &t.r
	ops := r.Pointer(a, o.qOps)
	if ops == 0 {
		return
	}
	class := r.Pointer(ops, o.qClass)
	if class == 0 || r.Pointer(class, o.qBlock) == 0 {
		return // one that has no filters
	}
	id := r.CString(o.qID.At(ops), int(min(o.qID.Size, 16)))
	if id == "clsact" || id == "ingress" || r.Err != nil {
		return // seen by where they run
	}
	var block kobj.Field
	var err error
	switch id {
	case "prio":
		p, e := linux.LayoutIn(t.s, "sch_prio", "filters of prio", func(r *kobj.Resolver, o *prioLayout) { o.block = r.Field("prio_sched_data", "block") })
		if err = e; e == nil {
			block = p.block
		}
	case "htb":
		p, e := linux.LayoutIn(t.s, "sch_htb", "filters of htb", func(r *kobj.Resolver, o *htbLayout) { o.block = r.Field("htb_sched", "block") })
		if err = e; e == nil {
			block = p.block
		}
	case "fq_codel":
		p, e := linux.LayoutIn(t.s, "sch_fq_codel", "filters of fq_codel", func(r *kobj.Resolver, o *fqCodelLayout) { o.block = r.Field("fq_codel_sched_data", "block") })
		if err = e; e == nil {
			block = p.block
		}
	default:
		err = fmt.Errorf("filters of %s: %w", id, kobj.ErrUnsupported)
	}
	if err == nil && !o.private.Present() {
		err = fmt.Errorf("filters of %s: %w", id, kobj.ErrUnsupported)
	}
	if err != nil {
		t.unknown(err)
		return
	}
	t.mode = fmt.Sprintf("%x:", r.Uint(a, o.handle)>>16)
	t.block(r.Pointer(o.private.At(a), block))
}
