package linux

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// BPFLink ties a program to what runs it.
type BPFLink struct {
	Addr       virt.Addr // of the struct bpf_link
	ID         uint32
	Type       string    // "xdp", "cgroup", "tracing" …
	Program    virt.Addr // of the struct bpf_prog; 0 where there is none, or no more
	ProgramID  uint32    // 0 where there is none
	AttachType string    // empty where its type has none
	// Target is what runs the program: a tracepoint, a function, a control group's
	// path, a network interface. Empty where it is gone or cannot be named.
	Target string
}

// bpfLinkLayout is struct bpf_link and the structures that begin with one.
type bpfLinkLayout struct {
	id, typ, prog, attach                                      Field
	progAux, auxID, auxTarget                                  Field
	rawTP, rawMap, tpName                                      Field
	tracingType, cgroup, cgroupType, iter, iterReg, iterTarget Field
	net, netType, netInum                                      Field
	xdpDev, tcxDev, netkitDev, devName, tcxType, netkitType    Field
	perfFile, filePrivate, tpEvent                             Field
	multiCount, multiAddrs                                     Field
	structMap, sockMap, mapName                                Field
	uprobeSelf, uprobePath                                     Field
	nfNet, nfHook, nfFamily                                    Field
}

func (s *System) bpfLinkLayout() (*bpfLinkLayout, error) {
	return layoutOf(s.Walker, "BPF links", func(r *resolver, o *bpfLinkLayout) {
		const l = "bpf_link"
		r.symbols("link_idr")
		o.id, o.typ, o.prog = r.field(l, "id"), r.field(l, "type"), r.field(l, "prog")
		o.attach = r.optional(l, "attach_type") // 6.17; before, some types of link have their own
		o.progAux, o.auxID = r.field("bpf_prog", "aux"), r.field("bpf_prog_aux", "id")
		o.auxTarget = r.optional("bpf_prog_aux", "attach_func_name")
		o.rawTP = r.optional("bpf_raw_tp_link", "btp")
		o.rawMap, o.tpName = r.optional("bpf_raw_event_map", "tp"), r.optional("tracepoint", "name")
		o.tracingType = r.optional("bpf_tracing_link", "attach_type")
		o.cgroup, o.cgroupType = r.optional("bpf_cgroup_link", "cgroup"), r.optional("bpf_cgroup_link", "type")
		o.iter, o.iterReg = r.optional("bpf_iter_link", "tinfo"), r.optional("bpf_iter_target_info", "reg_info")
		o.iterTarget = r.optional("bpf_iter_reg", "target")
		o.net, o.netType = r.optional("bpf_netns_link", "net"), r.optional("bpf_netns_link", "type")
		o.netInum = r.optional("net", "ns.inum")
		o.xdpDev, o.tcxDev = r.optional("bpf_xdp_link", "dev"), r.optional("tcx_link", "dev")
		o.tcxType, o.netkitType = r.optional("tcx_link", "location"), r.optional("netkit_link", "location") // up to 6.16
		o.netkitDev, o.devName = r.optional("netkit_link", "dev"), r.optional("net_device", "name")
		o.perfFile, o.filePrivate = r.optional("bpf_perf_link", "perf_file"), r.optional("file", "private_data")
		o.tpEvent = r.optional("perf_event", "tp_event")
		o.multiCount, o.multiAddrs = r.optional("bpf_kprobe_multi_link", "cnt"), r.optional("bpf_kprobe_multi_link", "addrs")
		o.structMap, o.sockMap = r.optional("bpf_struct_ops_link", "map"), r.optional("sockmap_link", "map")
		o.mapName = r.optional("bpf_map", "name")
		o.uprobeSelf, o.uprobePath = r.optional("bpf_uprobe_multi_link", "link"), r.optional("bpf_uprobe_multi_link", "path")
		o.nfNet, o.nfHook = r.optional("bpf_nf_link", "net"), r.optional("bpf_nf_link", "hook_ops.hooknum")
		o.nfFamily = r.optional("bpf_nf_link", "hook_ops.pf")
	})
}

// BPFLinks yields the BPF links in order of identifier: those that bpf(2) lists.
// Programs are also attached without one, as [System.BPFAttachments] tells.
func (s *System) BPFLinks(ctx context.Context) iter.Seq2[*BPFLink, error] {
	return func(yield func(*BPFLink, error) bool) {
		o, err := s.bpfLinkLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		l := s.NewLister()
		for e, err := range s.bpfIDs(ctx, "link_idr") {
			var k *BPFLink
			if err == nil {
				k, err = o.read(l, e.value)
			}
			if !yield(k, err) {
				return
			}
		}
	}
}

func (o *bpfLinkLayout) read(l *Lister, a virt.Addr) (_ *BPFLink, err error) {
	defer phys.Recover(debug.SetPanicOnFault(true), &err)
	r := &l.r
	r.err = nil
	k := &BPFLink{Addr: a, ID: uint32(r.num(a, o.id)), Program: r.pointer(a, o.prog)}
	k.Type = bpfName(bpfLinkTypes[:], r.num(a, o.typ))
	if k.Program != 0 {
		k.ProgramID = uint32(r.num(r.pointer(k.Program, o.progAux), o.auxID))
	}
	if r.err != nil {
		return nil, fmt.Errorf("BPF link at %#x: %w", uint64(a), r.err)
	}
	o.target(l, a, k)
	if r.err != nil {
		return k, fmt.Errorf("BPF link %d at %#x: %w", k.ID, uint64(a), r.err)
	}
	return k, nil
}

// target finds what k is attached to, as its type has it.
func (o *bpfLinkLayout) target(l *Lister, a virt.Addr, k *BPFLink) {
	r := &l.r
	attach := o.attach
	switch k.Type {
	case "raw_tracepoint":
		k.Target = l.bpfString(r.pointer(r.pointer(r.pointer(a, o.rawTP), o.rawMap), o.tpName))
	case "tracing":
		attach = either(attach, o.tracingType)
		k.Target = l.bpfString(r.pointer(r.pointer(k.Program, o.progAux), o.auxTarget))
	case "cgroup":
		attach = either(attach, o.cgroupType)
		k.Target = l.groupPath(r.pointer(a, o.cgroup))
	case "iter":
		k.Target = l.bpfString(r.pointer(r.pointer(r.pointer(a, o.iter), o.iterReg), o.iterTarget))
	case "netns":
		attach = either(attach, o.netType)
		if net := r.pointer(a, o.net); net != 0 {
			k.Target = fmt.Sprintf("net:[%d]", r.num(net, o.netInum))
		}
	case "xdp":
		k.Target = o.device(r, a, o.xdpDev)
	case "tcx":
		attach = either(attach, o.tcxType)
		k.Target = o.device(r, a, o.tcxDev)
	case "netkit":
		attach = either(attach, o.netkitType)
		k.Target = o.device(r, a, o.netkitDev)
	case "perf_event":
		if f := r.pointer(a, o.perfFile); f != 0 {
			k.Target = l.traceEvent(r.pointer(r.pointer(f, o.filePrivate), o.tpEvent))
		}
	case "kprobe_multi":
		k.Target = fmt.Sprintf("%d functions", r.num(a, o.multiCount))
	case "uprobe_multi":
		if has(o.uprobePath) {
			p := a - virt.Addr(o.uprobeSelf.Offset) + virt.Addr(o.uprobePath.Offset)
			k.Target, _ = l.path(r.ptr(p+virt.Addr(l.s.o.pathMnt)), r.ptr(p+virt.Addr(l.s.o.pathDentry)))
		}
	case "struct_ops":
		k.Target = o.mapOf(r, r.pointer(a, o.structMap))
	case "sockmap":
		k.Target = o.mapOf(r, r.pointer(a, o.sockMap))
	case "netfilter":
		k.Target = fmt.Sprintf("family %d hook %d", r.num(a, o.nfFamily), r.num(a, o.nfHook))
	}
	// These two have one way only, which older kernels do not note down.
	if has(attach) && k.Type != "perf_event" && k.Type != "raw_tracepoint" {
		k.AttachType = bpfName(bpfAttachTypes[:], r.num(a, attach))
	}
}

// either is the first member that the kernel has.
func either(f, or Field) Field {
	if has(f) {
		return f
	}
	return or
}

// device is the name of the network interface that member f points to.
func (o *bpfLinkLayout) device(r *reader, a virt.Addr, f Field) string {
	dev := r.pointer(a, f)
	if dev == 0 || !has(o.devName) {
		return "" // the interface is gone
	}
	return cString(r.bytes(at(dev, o.devName), int(min(o.devName.Size, 16))))
}

func (o *bpfLinkLayout) mapOf(r *reader, m virt.Addr) string {
	if m == 0 || !has(o.mapName) {
		return ""
	}
	return "map " + cString(r.bytes(at(m, o.mapName), int(min(o.mapName.Size, 64))))
}

// bpfString is the text at a, a name of the kernel's; empty for no pointer.
func (l *Lister) bpfString(a virt.Addr) string {
	if a == 0 {
		return ""
	}
	return l.r.cString(a, 256)
}
