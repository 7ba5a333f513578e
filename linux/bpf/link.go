package bpf

import (
	"cmp"
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/perf"
	"github.com/outsight-vmi/outsight/virt"
)

// Link ties a program to what runs it.
type Link struct {
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

// linkLayout is struct bpf_link and the structures that begin with one.
type linkLayout struct {
	id, typ, prog, attach                                      kobj.Field
	progAux, auxID, auxTarget                                  kobj.Field
	rawTP, rawMap, tpName                                      kobj.Field
	tracingType, cgroup, cgroupType, iter, iterReg, iterTarget kobj.Field
	net, netType, netInum                                      kobj.Field
	xdpDev, tcxDev, netkitDev, devName, tcxType, netkitType    kobj.Field
	perfFile, filePrivate, tpEvent                             kobj.Field
	multiCount, multiAddrs                                     kobj.Field
	structMap, sockMap, mapName                                kobj.Field
	uprobeSelf, uprobePath, pathMount, pathDentry              kobj.Field
	nfNet, nfHook, nfFamily                                    kobj.Field
}

func linkLayoutOf(s *linux.System) (*linkLayout, error) {
	return kobj.LayoutOf(s.Walker, "BPF links", func(r *kobj.Resolver, o *linkLayout) {
		const l = "bpf_link"
		r.Prefetch("link_idr")
		o.id, o.typ, o.prog = r.Field(l, "id"), r.Field(l, "type"), r.Field(l, "prog")
		o.attach = r.Optional(l, "attach_type") // 6.17; before, some types of link have their own
		o.progAux, o.auxID = r.Field("bpf_prog", "aux"), r.Field("bpf_prog_aux", "id")
		o.auxTarget = r.Optional("bpf_prog_aux", "attach_func_name")
		o.rawTP = r.Optional("bpf_raw_tp_link", "btp")
		o.rawMap, o.tpName = r.Optional("bpf_raw_event_map", "tp"), r.Optional("tracepoint", "name")
		o.tracingType = r.Optional("bpf_tracing_link", "attach_type")
		o.cgroup, o.cgroupType = r.Optional("bpf_cgroup_link", "cgroup"), r.Optional("bpf_cgroup_link", "type")
		o.iter, o.iterReg = r.Optional("bpf_iter_link", "tinfo"), r.Optional("bpf_iter_target_info", "reg_info")
		o.iterTarget = r.Optional("bpf_iter_reg", "target")
		o.net, o.netType = r.Optional("bpf_netns_link", "net"), r.Optional("bpf_netns_link", "type")
		o.netInum = r.Optional("net", "ns.inum")
		o.xdpDev, o.tcxDev = r.Optional("bpf_xdp_link", "dev"), r.Optional("tcx_link", "dev")
		o.tcxType, o.netkitType = r.Optional("tcx_link", "location"), r.Optional("netkit_link", "location") // up to 6.16
		o.netkitDev, o.devName = r.Optional("netkit_link", "dev"), r.Optional("net_device", "name")
		o.perfFile, o.filePrivate = r.Optional("bpf_perf_link", "perf_file"), r.Optional("file", "private_data")
		o.tpEvent = r.Optional("perf_event", "tp_event")
		o.multiCount, o.multiAddrs = r.Optional("bpf_kprobe_multi_link", "cnt"), r.Optional("bpf_kprobe_multi_link", "addrs")
		o.structMap, o.sockMap = r.Optional("bpf_struct_ops_link", "map"), r.Optional("sockmap_link", "map")
		o.mapName = r.Optional("bpf_map", "name")
		o.uprobeSelf, o.uprobePath = r.Optional("bpf_uprobe_multi_link", "link"), r.Optional("bpf_uprobe_multi_link", "path")
		o.pathMount, o.pathDentry = r.Field("path", "mnt"), r.Field("path", "dentry")
		o.nfNet, o.nfHook = r.Optional("bpf_nf_link", "net"), r.Optional("bpf_nf_link", "hook_ops.hooknum")
		o.nfFamily = r.Optional("bpf_nf_link", "hook_ops.pf")
	})
}

// Links yields the BPF links in order of identifier: those that bpf(2) lists.
// Programs are also attached without one, as [Attachments] lists.
func Links(ctx context.Context, s *linux.System) iter.Seq2[*Link, error] {
	return func(yield func(*Link, error) bool) {
		o, err := linkLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		l := &linkReader{s: s, o: o, r: s.Reader(), names: s.NewProcessReader()}
		for e, err := range objects(ctx, s, "link_idr") {
			var k *Link
			if err == nil {
				k, err = l.read(e.Value)
			}
			if !yield(k, err) {
				return
			}
		}
	}
}

// linkReader reads links and the names of what they are attached to.
type linkReader struct {
	s     *linux.System
	o     *linkLayout
	r     kobj.Reader
	names *linux.ProcessReader
}

func (l *linkReader) read(a virt.Addr) (_ *Link, err error) {
	o, r := l.o, &l.r
	r.Err = nil
	k := &Link{Addr: a, ID: uint32(r.Uint(a, o.id)), Program: r.Pointer(a, o.prog)}
	k.Type = kobj.EnumName(linkTypes[:], r.Uint(a, o.typ))
	if k.Program != 0 {
		k.ProgramID = uint32(r.Uint(r.Pointer(k.Program, o.progAux), o.auxID))
	}
	if r.Err != nil {
		return nil, fmt.Errorf("BPF link at %#x: %w", uint64(a), r.Err)
	}
	l.target(a, k)
	if r.Err != nil {
		return k, fmt.Errorf("BPF link %d at %#x: %w", k.ID, uint64(a), r.Err)
	}
	return k, nil
}

// target finds what k is attached to, as its type has it.
func (l *linkReader) target(a virt.Addr, k *Link) {
	o, r := l.o, &l.r
	attach := o.attach
	var err error
	switch k.Type {
	case "raw_tracepoint":
		k.Target = r.NameAt(r.Pointer(r.Pointer(r.Pointer(a, o.rawTP), o.rawMap), o.tpName))
	case "tracing":
		attach = either(attach, o.tracingType)
		k.Target = r.NameAt(r.Pointer(r.Pointer(k.Program, o.progAux), o.auxTarget))
	case "cgroup":
		attach = either(attach, o.cgroupType)
		k.Target, err = l.names.CgroupPathOf(r.Pointer(a, o.cgroup))
	case "iter":
		k.Target = r.NameAt(r.Pointer(r.Pointer(r.Pointer(a, o.iter), o.iterReg), o.iterTarget))
	case "netns":
		attach = either(attach, o.netType)
		if net := r.Pointer(a, o.net); net != 0 {
			k.Target = fmt.Sprintf("net:[%d]", r.Uint(net, o.netInum))
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
		if f := r.Pointer(a, o.perfFile); f != 0 {
			k.Target = perf.TraceEventName(l.s, r, r.Pointer(r.Pointer(f, o.filePrivate), o.tpEvent))
		}
	case "kprobe_multi":
		k.Target = fmt.Sprintf("%d functions", r.Uint(a, o.multiCount))
	case "uprobe_multi":
		if o.uprobePath.Present() {
			p := a - virt.Addr(o.uprobeSelf.Offset) + virt.Addr(o.uprobePath.Offset)
			k.Target, _, err = l.names.PathOf(r.Pointer(p, o.pathMount), r.Pointer(p, o.pathDentry))
		}
	case "struct_ops":
		k.Target = o.mapOf(r, r.Pointer(a, o.structMap))
	case "sockmap":
		k.Target = o.mapOf(r, r.Pointer(a, o.sockMap))
	case "netfilter":
		k.Target = fmt.Sprintf("family %d hook %d", r.Uint(a, o.nfFamily), r.Uint(a, o.nfHook))
	}
	r.Err = cmp.Or(r.Err, err)
	// These two have one way only, which older kernels do not note down.
	if attach.Present() && k.Type != "perf_event" && k.Type != "raw_tracepoint" {
		k.AttachType = kobj.EnumName(attachTypes[:], r.Uint(a, attach))
	}
}

// either is the first member that the kernel has.
func either(f, or kobj.Field) kobj.Field {
	if f.Present() {
		return f
	}
	return or
}

// device is the name of the network interface that member f points to.
func (o *linkLayout) device(r *kobj.Reader, a virt.Addr, f kobj.Field) string {
	dev := r.Pointer(a, f)
	if dev == 0 || !o.devName.Present() {
		return "" // the interface is gone
	}
	return kobj.CString(r.Bytes(o.devName.At(dev), int(min(o.devName.Size, 16))))
}

func (o *linkLayout) mapOf(r *kobj.Reader, m virt.Addr) string {
	if m == 0 || !o.mapName.Present() {
		return ""
	}
	return "map " + kobj.CString(r.Bytes(o.mapName.At(m), int(min(o.mapName.Size, 64))))
}
