package bpf

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/perf"
	"github.com/outsight-vmi/outsight/virt"
)

// Attachment is one place that runs a program, found at that place: also
// without a link, or with one that was taken off the kernel's table.
type Attachment struct {
	Program virt.Addr // of the struct bpf_prog
	Kind    string    // attach type: "cgroup_inet_egress", "xdp", "tcx_ingress", "perf_event"
	Target  string    // path of the control group, name of the interface, name of the event
}

// String is both parts in one.
func (a Attachment) String() string { return a.Kind + ":" + a.Target }

type attachLayout struct {
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

func attachLayoutOf(s *linux.System) (*attachLayout, error) {
	return kobj.LayoutOf(s.Walker, "places of BPF programs", func(r *kobj.Resolver, o *attachLayout) {
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
		for i, name := range attachTypes {
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

// Attachments yields where BPF programs run: control groups of the unified
// hierarchy, XDP and tcx of network interfaces, perf events and what they trace.
// Tracepoints, functions and LSM hooks are listed by the links ([Links]);
// traffic control filters of the older kind and sockets are not looked at.
func Attachments(ctx context.Context, s *linux.System) iter.Seq2[Attachment, error] {
	return func(yield func(Attachment, error) bool) {
		o, err := attachLayoutOf(s)
		if err != nil {
			yield(Attachment{}, err)
			return
		}
		w := attachWalk{s: s, o: o, r: s.Reader(), names: s.NewProcessReader(), ctx: ctx, yield: yield, left: maxObjects}
		_ = w.groups() && w.devices() && w.events()
	}
}

// maxGroupDepth bounds how deep control groups nest.
const maxGroupDepth = 128

type attachWalk struct {
	s     *linux.System
	o     *attachLayout
	r     kobj.Reader
	names *linux.ProcessReader
	ctx   context.Context
	yield func(Attachment, error) bool
	left  int // of the places that may still be looked at
}

// look runs f over the guest's memory and yields what it found, then its error.
func (w *attachWalk) look(what string, f func() []Attachment) bool {
	found, err := kobj.Read(&w.r, f)
	for _, a := range found {
		if a.Program != 0 && !w.yield(a, nil) {
			return false
		}
	}
	return err == nil || w.fail(what, err)
}

func (w *attachWalk) fail(what string, err error) bool {
	return w.yield(Attachment{}, fmt.Errorf("BPF programs of %s: %w", what, err))
}

// spend counts one place and says whether there may be more.
func (w *attachWalk) spend() bool { w.left--; return w.left >= 0 }

func (w *attachWalk) groups() bool {
	o := w.o
	root, ok := w.s.Address("cgrp_dfl_root")
	if !ok || !o.root.Present() || !o.progs.Present() || !o.listProg.Present() {
		return true // built without CONFIG_CGROUP_BPF
	}
	return w.group(o.root.At(root), maxGroupDepth)
}

// group looks at the control group at a and those below it.
func (w *attachWalk) group(a virt.Addr, depth int) bool {
	o, s := w.o, w.s
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
			if !w.look("control groups", func() []Attachment {
				p := w.r.Pointer(node, o.listProg) // node is the first member
				if p == 0 {
					if link := w.r.Pointer(node, o.listLink); link != 0 {
						p = w.r.Pointer(link, o.linkProg)
					}
				}
				kind := o.kinds[i]
				if kind == "" {
					kind = "lsm_cgroup"
				}
				path, err := w.names.CgroupPathOf(a)
				w.r.Err = cmp.Or(w.r.Err, err)
				return []Attachment{{p, kind, path}}
			}) {
				return false
			}
		}
	}
	for node, err := range s.List(w.ctx, o.children.At(o.self.At(a)), maxObjects) {
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

func (w *attachWalk) devices() bool {
	o, s := w.o, w.s
	nets, err := s.ListHead("net_namespace_list")
	if err != nil || !o.devices.Present() || !o.devList.Present() {
		return true
	}
	for node, err := range s.List(w.ctx, nets, maxObjects) {
		if err != nil {
			if !w.fail("network namespaces", err) {
				return false
			}
			continue
		}
		for node, err := range s.List(w.ctx, o.devices.At(node-virt.Addr(o.netList.Offset)), maxObjects) {
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
			if !w.look("network interfaces", func() []Attachment { return w.device(dev) }) {
				return false
			}
		}
	}
	return true
}

func (w *attachWalk) device(dev virt.Addr) (found []Attachment) {
	o, r := w.o, &w.r
	name := kobj.CString(r.Bytes(o.devName.At(dev), int(min(o.devName.Size, 16))))
	if o.xdpState.Present() && o.xdpSize != 0 {
		for i := range min(o.xdpState.Size/o.xdpSize, 8) {
			e := o.xdpState.At(dev) + virt.Addr(i*o.xdpSize)
			p := r.Pointer(e, o.xdpProg)
			if link := r.Pointer(e, o.xdpLink); p == 0 && link != 0 {
				p = r.Pointer(link, o.linkProg) // struct bpf_xdp_link begins with it
			}
			found = append(found, Attachment{p, "xdp", name})
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
			found = append(found, Attachment{p, [...]string{"tcx_ingress", "tcx_egress"}[kind], name})
		}
	}
	return found
}

// events looks at the perf events that processes hold.
func (w *attachWalk) events() bool {
	o, s := w.o, w.s
	if !o.perfProg.Present() {
		return true
	}
	var events []virt.Addr
	seen := map[virt.Addr]bool{}
	var errs []error
	err := s.HeldObjects(w.ctx, []string{"perf_fops"}, func(h linux.HeldObject) {
		if !seen[h.Object] {
			seen[h.Object] = true
			events = append(events, h.Object)
		}
	}, func(err error) {
		if len(errs) < maxErrs {
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
		if !w.look("perf events", func() []Attachment {
			return []Attachment{{w.r.Pointer(e, o.perfProg), "perf_event", perf.TraceEventName(s, &w.r, w.r.Pointer(e, o.tpEvent))}}
		}) {
			return false
		}
	}
	return true
}
