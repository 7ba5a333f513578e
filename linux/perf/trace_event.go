package perf

import (
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// traceEventLayout is struct trace_event_call: a static tracepoint, kprobe, uprobe
// or syscall that can be traced.
type traceEventLayout struct {
	class, name, tp, flags, tpName, system kobj.Field
}

// TraceEventName is the name of the struct trace_event_call at a, "system:name"; empty
// for 0. An error stays in r.
func TraceEventName(s *linux.System, r *kobj.Reader, a virt.Addr) string {
	o, err := kobj.LayoutOf(s.Walker, "trace events", func(r *kobj.Resolver, o *traceEventLayout) {
		const c = "trace_event_call"
		o.class, o.name, o.tp = r.Field(c, "class"), r.Field(c, "name"), r.Field(c, "tp")
		o.flags, o.tpName, o.system = r.Field(c, "flags"), r.Field("tracepoint", "name"), r.Field("trace_event_class", "system")
	})
	if a == 0 || err != nil {
		return ""
	}
	const isTracepoint = 1 << 4 // TRACE_EVENT_FL_TRACEPOINT, since 4.16
	name := r.Pointer(a, o.name)
	if r.Uint(a, o.flags)&isTracepoint != 0 {
		name = r.Pointer(r.Pointer(a, o.tp), o.tpName)
	}
	system := r.NameAt(r.Pointer(r.Pointer(a, o.class), o.system))
	return system + ":" + r.NameAt(name)
}
