package plant

// Load is what is planted: one map, which is the ring, and the programs that write into it.
type Load struct {
	Ring     Ring
	Programs []Program
	// Tables is how many of the programs, the first, nothing runs by itself: each is the only element of a map of its own, by which the
	// others jump to it. So what many functions need is loaded once.
	Tables int
	// Note is what who plants should know of the choice of programs; empty: nothing.
	Note string
}

// Ring is an array map (BPF_F_MMAPABLE, a key of 4 bytes) of Elements values of Size bytes each.
type Ring struct {
	Name           string
	Elements, Size uint32
}

// Program is a BPF program of type TRACING. Its expected_attach_type is BPF_TRACE_RAW_TP, and it is attached to the tracepoint whose BTF
// typedef is btf_trace_TRACEPOINT; or, if it names a function of the kernel, BPF_TRACE_FENTRY or, with Return, BPF_TRACE_FEXIT. Its code
// refers to the ring as index 0 of fd_array, and to the map that leads to program n as index 1 + n.
type Program struct {
	Name, Tracepoint string
	Code             []byte
	Function         string
	Return           bool
}

// target is what runs a program, for messages.
func (p *Program) target() string {
	switch {
	case p.Function == "":
		return "tracepoint " + p.Tracepoint
	case p.Return:
		return "the return of function " + p.Function
	}
	return "function " + p.Function
}

// shape is how many objects of each kind there are. They are in this order wherever they have numbers: the ring and the tables, the
// programs, the links of those that are attached.
type shape struct{ maps, programs, links int }

func (l *Load) shape() shape {
	return shape{1 + l.Tables, len(l.Programs), len(l.Programs) - l.Tables}
}

func (s shape) objects() int { return s.maps + s.programs + s.links }

// kind is what object i is.
func (s shape) kind(i int) string {
	switch {
	case i < s.maps:
		return "map"
	case i < s.maps+s.programs:
		return "program"
	}
	return "link"
}

// valid says whether a planting can have this shape.
func (s shape) valid() bool {
	return s.maps >= 1 && s.programs >= 0 && s.links == s.programs-(s.maps-1) && s.links >= 0 && s.maps <= maxObjects && s.programs <= maxObjects && s.objects() < maxObjects
}
