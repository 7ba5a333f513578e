package linux

import "github.com/outsight-vmi/outsight/virt"

// traceEventLayout is struct trace_event_call: a static tracepoint, kprobe, uprobe
// or syscall that can be traced.
type traceEventLayout struct {
	class, name, tp, flags, tpName, system Field
}

// traceEvent is the name of the struct trace_event_call at a, "system:name"; empty
// for 0. An error stays in the Lister's reader.
func (l *Lister) traceEvent(a virt.Addr) string {
	o, err := layoutOf(l.s.Walker, "trace events", func(r *resolver, o *traceEventLayout) {
		const c = "trace_event_call"
		o.class, o.name, o.tp = r.field(c, "class"), r.field(c, "name"), r.field(c, "tp")
		o.flags, o.tpName, o.system = r.field(c, "flags"), r.field("tracepoint", "name"), r.field("trace_event_class", "system")
	})
	if a == 0 || err != nil {
		return ""
	}
	const isTracepoint = 1 << 4 // TRACE_EVENT_FL_TRACEPOINT, since 4.16
	name := l.r.pointer(a, o.name)
	if l.r.num(a, o.flags)&isTracepoint != 0 {
		name = l.r.pointer(l.r.pointer(a, o.tp), o.tpName)
	}
	system := l.bpfString(l.r.pointer(l.r.pointer(a, o.class), o.system))
	return system + ":" + l.bpfString(name)
}
