package plant

// Load is what is planted: one map, which is the ring, and the programs that write into it.
type Load struct {
	Ring     Ring
	Programs []Program
}

// Ring is an array map (BPF_F_MMAPABLE, a key of 4 bytes) of Elements values of Size bytes each.
type Ring struct {
	Name           string
	Elements, Size uint32
}

// Program is a BPF program of type TRACING with expected_attach_type BPF_TRACE_RAW_TP, attached to the tracepoint whose BTF
// typedef is btf_trace_TRACEPOINT. Its code refers to the ring as index 0 of fd_array.
type Program struct {
	Name, Tracepoint string
	Code             []byte
}
