package linux

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// BPFAttachment is one place that runs a program, found at that place: also
// without a link, or with one that was taken off the kernel's table.
type BPFAttachment struct {
	Program virt.Addr // of the struct bpf_prog
	Kind    string    // attach type: "cgroup_inet_egress", "xdp", "tcx_ingress", "perf_event"
	Target  string    // path of the control group, name of the interface, name of the event
}

// String is both parts in one.
func (a BPFAttachment) String() string { return a.Kind + ":" + a.Target }

type bpfAttachLayout struct {
	self, children, sibling, cssCgroup, root     kobj.Field
	progs, listProg, listLink, linkProg          kobj.Field
	netList, devices, devList, devName, xdpState kobj.Field
	xdpProg, xdpLink                             kobj.Field
	ingress, egress, mprog                       kobj.Field
	perfProg, tpEvent                            kobj.Field
	xdpSize                                      uint32
	isHlist                                      bool
	kinds                                        map[int]string // by index of progs
}

func (s *System) bpfAttachLayout() (*bpfAttachLayout, error) {
	return kobj.LayoutOf(s.Walker, "places of BPF programs", func(r *kobj.Resolver, o *bpfAttachLayout) {
		r.Prefetch("cgrp_dfl_root", "net_namespace_list", "perf_fops")
		const css, dev = "cgroup_subsys_state", "net_device"
		o.self, o.root = r.Optional("cgroup", "self"), r.Optional("cgroup_root", "cgrp")
		o.children, o.sibling, o.cssCgroup = r.Optional(css, "children"), r.Optional(css, "sibling"), r.Optional(css, "cgroup")
		o.progs = r.Optional("cgroup", "bpf.progs")
		o.listProg, o.listLink = r.Optional("bpf_prog_list", "prog"), r.Optional("bpf_prog_list", "link")
		o.linkProg = r.Optional("bpf_link", "prog")
		node := r.Optional("bpf_prog_list", "node")
		o.isHlist = node.Present() && r.Optional("bpf_prog_list", "node.pprev").Present() // 6.0; a list_head before
		o.netList, o.devices = r.Optional("net", "list"), r.Optional("net", "dev_base_head")
		o.devList, o.devName = r.Optional(dev, "dev_list"), r.Optional(dev, "name")
		o.xdpState = r.Optional(dev, "xdp_state") // 5.9
		o.xdpProg, o.xdpLink = r.Optional("bpf_xdp_entity", "prog"), r.Optional("bpf_xdp_entity", "link")
		o.xdpSize, _ = r.Types.StructSize("bpf_xdp_entity")
		o.ingress, o.egress = r.Optional(dev, "tcx_ingress"), r.Optional(dev, "tcx_egress") // 6.6
		o.mprog = r.Optional("bpf_mprog_entry", "fp_items")
		o.perfProg, o.tpEvent = r.Optional("perf_event", "prog"), r.Optional("perf_event", "tp_event")
		o.kinds = map[int]string{}
		for i, name := range bpfAttachTypes {
			if !strings.HasPrefix(name, "cgroup_") {
				continue
			}
			// Since 5.15 the places in a control group are numbered by themselves.
			if n, err := r.Types.EnumValue("cgroup_bpf_attach_type", strings.ToUpper(name)); err == nil {
				o.kinds[int(n)] = name
			} else if _, err := r.Types.EnumValue("cgroup_bpf_attach_type", "CGROUP_INET_INGRESS"); err != nil {
				o.kinds[i] = name
			}
		}
	})
}

// BPFAttachments yields where BPF programs run: control groups of the unified
// hierarchy, XDP and tcx of network interfaces, perf events and what they trace.
// Tracepoints, functions and LSM hooks are listed by the links ([System.BPFLinks]);
// traffic control filters of the older kind and sockets are not looked at.
func (s *System) BPFAttachments(ctx context.Context) iter.Seq2[BPFAttachment, error] {
	return func(yield func(BPFAttachment, error) bool) {
		o, err := s.bpfAttachLayout()
		if err != nil {
			yield(BPFAttachment{}, err)
			return
		}
		w := bpfAttachWalk{o: o, l: s.NewProcessReader(), ctx: ctx, yield: yield, left: maxBPF}
		_ = w.groups() && w.devices() && w.events()
	}
}

type bpfAttachWalk struct {
	o     *bpfAttachLayout
	l     *ProcessReader
	ctx   context.Context
	yield func(BPFAttachment, error) bool
	left  int // of the places that may still be looked at
}

// look runs f over the guest's memory and yields what it found, then its error.
func (w *bpfAttachWalk) look(what string, f func() []BPFAttachment) bool {
	found, err := func() (found []BPFAttachment, err error) {
		w.l.r.Err = nil
		found = f()
		return found, w.l.r.Err
	}()
	for _, a := range found {
		if a.Program != 0 && !w.yield(a, nil) {
			return false
		}
	}
	return err == nil || w.fail(what, err)
}

func (w *bpfAttachWalk) fail(what string, err error) bool {
	return w.yield(BPFAttachment{}, fmt.Errorf("BPF programs of %s: %w", what, err))
}

// spend counts one place and says whether there may be more.
func (w *bpfAttachWalk) spend() bool { w.left--; return w.left >= 0 }

func (w *bpfAttachWalk) groups() bool {
	o := w.o
	root, ok := w.l.s.Address("cgrp_dfl_root")
	if !ok || !o.root.Present() || !o.progs.Present() || !o.listProg.Present() {
		return true // built without CONFIG_CGROUP_BPF
	}
	return w.group(o.root.At(root), maxDepth)
}

// group looks at the control group at a and those below it.
func (w *bpfAttachWalk) group(a virt.Addr, depth int) bool {
	o, s := w.o, w.l.s
	if !w.spend() || depth == 0 {
		return w.fail("control groups", kobj.ErrBudget)
	}
	step := virt.Addr(16)
	if o.isHlist {
		step = 8
	}
	n := int(min(o.progs.Size, 64*16)) / int(step)
	for i := range n {
		head := o.progs.At(a) + virt.Addr(i)*step
		first, err := s.Word(head)
		if err != nil {
			if !w.fail("control groups", err) {
				return false
			}
			break
		}
		if first == 0 || virt.Addr(first) == head {
			continue
		}
		walk := s.List
		if o.isHlist {
			walk = s.HList
		}
		for node, err := range walk(w.ctx, head, 1024) {
			if err != nil {
				if !w.fail("control groups", err) {
					return false
				}
				continue
			}
			if !w.spend() {
				return w.fail("control groups", kobj.ErrBudget)
			}
			if !w.look("control groups", func() []BPFAttachment {
				p := w.l.r.Pointer(node, o.listProg) // node is the first member
				if p == 0 {
					if link := w.l.r.Pointer(node, o.listLink); link != 0 {
						p = w.l.r.Pointer(link, o.linkProg)
					}
				}
				kind := o.kinds[i]
				if kind == "" {
					kind = "lsm_cgroup"
				}
				return []BPFAttachment{{p, kind, w.l.groupPath(a)}}
			}) {
				return false
			}
		}
	}
	for node, err := range s.List(w.ctx, o.children.At(o.self.At(a)), maxBPF) {
		if err != nil {
			if !w.fail("control groups", err) {
				return false
			}
			continue
		}
		child, err := s.Word(o.cssCgroup.At(node - virt.Addr(o.sibling.Offset)))
		if err != nil {
			if !w.fail("control groups", err) {
				return false
			}
			continue
		}
		if w.left <= 0 || !w.group(virt.Addr(child), depth-1) {
			return false
		}
	}
	return true
}

func (w *bpfAttachWalk) devices() bool {
	o, s := w.o, w.l.s
	nets, err := s.ListHead("net_namespace_list")
	if err != nil || !o.devices.Present() || !o.devList.Present() {
		return true
	}
	for node, err := range s.List(w.ctx, nets, maxBPF) {
		if err != nil {
			if !w.fail("network namespaces", err) {
				return false
			}
			continue
		}
		for node, err := range s.List(w.ctx, o.devices.At(node-virt.Addr(o.netList.Offset)), maxBPF) {
			if !w.spend() {
				return w.fail("network interfaces", kobj.ErrBudget)
			}
			if err != nil {
				if !w.fail("network interfaces", err) {
					return false
				}
				continue
			}
			dev := node - virt.Addr(o.devList.Offset)
			if !w.look("network interfaces", func() []BPFAttachment { return w.device(dev) }) {
				return false
			}
		}
	}
	return true
}

func (w *bpfAttachWalk) device(dev virt.Addr) (found []BPFAttachment) {
	o, r := w.o, &w.l.r
	name := kobj.CString(r.Bytes(o.devName.At(dev), int(min(o.devName.Size, 16))))
	if o.xdpState.Present() && o.xdpSize != 0 {
		for i := range min(o.xdpState.Size/o.xdpSize, 8) {
			e := o.xdpState.At(dev) + virt.Addr(i*o.xdpSize)
			p := r.Pointer(e, o.xdpProg)
			if link := r.Pointer(e, o.xdpLink); p == 0 && link != 0 {
				p = r.Pointer(link, o.linkProg) // struct bpf_xdp_link begins with it
			}
			found = append(found, BPFAttachment{p, "xdp", name})
		}
	}
	for kind, f := range [...]kobj.Field{o.ingress, o.egress} {
		entry := r.Pointer(dev, f)
		if entry == 0 || !o.mprog.Present() {
			continue
		}
		for i := range min(o.mprog.Size/8, 64) {
			p := r.Ptr(o.mprog.At(entry) + virt.Addr(8*i))
			if p == 0 {
				break
			}
			found = append(found, BPFAttachment{p, [...]string{"tcx_ingress", "tcx_egress"}[kind], name})
		}
	}
	return found
}

// events looks at the perf events that processes hold.
func (w *bpfAttachWalk) events() bool {
	o, s := w.o, w.l.s
	if !o.perfProg.Present() {
		return true
	}
	var events []virt.Addr
	seen := map[virt.Addr]bool{}
	var errs []error
	err := s.heldFiles(w.ctx, []string{"perf_fops"}, func(h heldObject) {
		if !seen[h.object] {
			seen[h.object] = true
			events = append(events, h.object)
		}
	}, func(err error) {
		if len(errs) < maxHeldErrs {
			errs = append(errs, err)
		}
	})
	if err != nil {
		return w.fail("perf events", err)
	}
	for _, err := range errs {
		if !w.fail("perf events", err) {
			return false
		}
	}
	for _, e := range events {
		if !w.look("perf events", func() []BPFAttachment {
			return []BPFAttachment{{w.l.r.Pointer(e, o.perfProg), "perf_event", w.l.traceEvent(w.l.r.Pointer(e, o.tpEvent))}}
		}) {
			return false
		}
	}
	return true
}
