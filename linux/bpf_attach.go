package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
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
	self, children, sibling, cssCgroup, root     Field
	progs, listProg, listLink, linkProg          Field
	netList, devices, devList, devName, xdpState Field
	xdpProg, xdpLink                             Field
	ingress, egress, mprog                       Field
	perfProg, tpEvent                            Field
	xdpSize                                      uint32
	isHlist                                      bool
	kinds                                        map[int]string // by index of progs
}

func (s *System) bpfAttachLayout() (*bpfAttachLayout, error) {
	return layoutOf(s.Walker, "places of BPF programs", func(r *resolver, o *bpfAttachLayout) {
		r.symbols("cgrp_dfl_root", "net_namespace_list", "perf_fops")
		const css, dev = "cgroup_subsys_state", "net_device"
		o.self, o.root = r.optional("cgroup", "self"), r.optional("cgroup_root", "cgrp")
		o.children, o.sibling, o.cssCgroup = r.optional(css, "children"), r.optional(css, "sibling"), r.optional(css, "cgroup")
		o.progs = r.optional("cgroup", "bpf.progs")
		o.listProg, o.listLink = r.optional("bpf_prog_list", "prog"), r.optional("bpf_prog_list", "link")
		o.linkProg = r.optional("bpf_link", "prog")
		node := r.optional("bpf_prog_list", "node")
		o.isHlist = has(node) && has(r.optional("bpf_prog_list", "node.pprev")) // 6.0; a list_head before
		o.netList, o.devices = r.optional("net", "list"), r.optional("net", "dev_base_head")
		o.devList, o.devName = r.optional(dev, "dev_list"), r.optional(dev, "name")
		o.xdpState = r.optional(dev, "xdp_state") // 5.9
		o.xdpProg, o.xdpLink = r.optional("bpf_xdp_entity", "prog"), r.optional("bpf_xdp_entity", "link")
		o.xdpSize, _ = r.types.StructSize("bpf_xdp_entity")
		o.ingress, o.egress = r.optional(dev, "tcx_ingress"), r.optional(dev, "tcx_egress") // 6.6
		o.mprog = r.optional("bpf_mprog_entry", "fp_items")
		o.perfProg, o.tpEvent = r.optional("perf_event", "prog"), r.optional("perf_event", "tp_event")
		o.kinds = map[int]string{}
		for i, name := range bpfAttachTypes {
			if !strings.HasPrefix(name, "cgroup_") {
				continue
			}
			// Since 5.15 the places in a control group are numbered by themselves.
			if n, err := r.types.EnumValue("cgroup_bpf_attach_type", strings.ToUpper(name)); err == nil {
				o.kinds[int(n)] = name
			} else if _, err := r.types.EnumValue("cgroup_bpf_attach_type", "CGROUP_INET_INGRESS"); err != nil {
				o.kinds[i] = name
			}
		}
	})
}

// BPFAttachments yields where BPF programs run: control groups of the unified
// hierarchy, XDP and tcx of network interfaces, perf events and what they trace.
// Tracepoints, functions and LSM hooks are told by the links ([System.BPFLinks]);
// traffic control filters of the older kind and sockets are not looked at.
func (s *System) BPFAttachments(ctx context.Context) iter.Seq2[BPFAttachment, error] {
	return func(yield func(BPFAttachment, error) bool) {
		o, err := s.bpfAttachLayout()
		if err != nil {
			yield(BPFAttachment{}, err)
			return
		}
		w := bpfAttachWalk{o: o, l: s.NewLister(), ctx: ctx, yield: yield, left: maxBPF}
		_ = w.groups() && w.devices() && w.events()
	}
}

type bpfAttachWalk struct {
	o     *bpfAttachLayout
	l     *Lister
	ctx   context.Context
	yield func(BPFAttachment, error) bool
	left  int // of the places that may still be looked at
}

// look runs f over the guest's memory and yields what it found, then its error.
func (w *bpfAttachWalk) look(what string, f func() []BPFAttachment) bool {
	found, err := func() (found []BPFAttachment, err error) {
		defer phys.Recover(debug.SetPanicOnFault(true), &err)
		w.l.r.err = nil
		found = f()
		return found, w.l.r.err
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
	if !ok || !has(o.root) || !has(o.progs) || !has(o.listProg) {
		return true // built without CONFIG_CGROUP_BPF
	}
	return w.group(at(root, o.root), maxDepth)
}

// group looks at the control group at a and those below it.
func (w *bpfAttachWalk) group(a virt.Addr, depth int) bool {
	o, s := w.o, w.l.s
	if !w.spend() || depth == 0 {
		return w.fail("control groups", errBudget)
	}
	step := virt.Addr(16)
	if o.isHlist {
		step = 8
	}
	n := int(min(o.progs.Size, 64*16)) / int(step)
	for i := range n {
		head := at(a, o.progs) + virt.Addr(i)*step
		first, err := s.word(head)
		if err != nil {
			if !w.fail("control groups", err) {
				return false
			}
			break
		}
		if first == 0 || virt.Addr(first) == head {
			continue
		}
		walk := s.list
		if o.isHlist {
			walk = s.hlist
		}
		for node, err := range walk(w.ctx, head, 1024) {
			if err != nil {
				if !w.fail("control groups", err) {
					return false
				}
				continue
			}
			if !w.spend() {
				return w.fail("control groups", errBudget)
			}
			if !w.look("control groups", func() []BPFAttachment {
				p := w.l.r.pointer(node, o.listProg) // node is the first member
				if p == 0 {
					if link := w.l.r.pointer(node, o.listLink); link != 0 {
						p = w.l.r.pointer(link, o.linkProg)
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
	for node, err := range s.list(w.ctx, at(at(a, o.self), o.children), maxBPF) {
		if err != nil {
			if !w.fail("control groups", err) {
				return false
			}
			continue
		}
		child, err := s.word(at(node-virt.Addr(o.sibling.Offset), o.cssCgroup))
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
	nets, err := s.listHead("net_namespace_list")
	if err != nil || !has(o.devices) || !has(o.devList) {
		return true
	}
	for node, err := range s.list(w.ctx, nets, maxBPF) {
		if err != nil {
			if !w.fail("network namespaces", err) {
				return false
			}
			continue
		}
		for node, err := range s.list(w.ctx, at(node-virt.Addr(o.netList.Offset), o.devices), maxBPF) {
			if !w.spend() {
				return w.fail("network interfaces", errBudget)
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
	name := cString(r.bytes(at(dev, o.devName), int(min(o.devName.Size, 16))))
	if has(o.xdpState) && o.xdpSize != 0 {
		for i := range min(o.xdpState.Size/o.xdpSize, 8) {
			e := at(dev, o.xdpState) + virt.Addr(i*o.xdpSize)
			p := r.pointer(e, o.xdpProg)
			if link := r.pointer(e, o.xdpLink); p == 0 && link != 0 {
				p = r.pointer(link, o.linkProg) // struct bpf_xdp_link begins with it
			}
			found = append(found, BPFAttachment{p, "xdp", name})
		}
	}
	for kind, f := range [...]Field{o.ingress, o.egress} {
		entry := r.pointer(dev, f)
		if entry == 0 || !has(o.mprog) {
			continue
		}
		for i := range min(o.mprog.Size/8, 64) {
			p := r.ptr(at(entry, o.mprog) + virt.Addr(8*i))
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
	if !has(o.perfProg) {
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
			return []BPFAttachment{{w.l.r.pointer(e, o.perfProg), "perf_event", w.l.traceEvent(w.l.r.pointer(e, o.tpEvent))}}
		}) {
			return false
		}
	}
	return true
}
