package syscall

import "strconv"

// perfFlags are the bits of struct perf_event_attr behind read_format; precise_ip are two of them.
var perfFlags = [...]string{
	"disabled", "inherit", "pinned", "exclusive", "exclude_user", "exclude_kernel", "exclude_hv", "exclude_idle", "mmap", "comm",
	"freq", "inherit_stat", "enable_on_exec", "task", "watermark", "precise_ip", "", "mmap_data", "sample_id_all", "exclude_host", "exclude_guest",
	"exclude_callchain_kernel", "exclude_callchain_user", "mmap2", "comm_exec", "use_clockid", "context_switch", "write_backward", "namespaces",
	"ksymbol", "bpf_event", "aux_output", "cgroup", "text_poke", "build_id", "inherit_thread", "remove_on_exec", "sigtrap",
}

var preciseIP = [...]string{"arbitrary skid", "constant skid", "requested to have 0 skid", "must have 0 skid"}

func blobPerf(dst []byte, _ ctx, _ *Arg, b []byte) []byte {
	kind, config, flags := le.Uint32(b), le.Uint64(b[8:]), le.Uint64(b[40:])
	dst = setOf("perftype").enum(append(dst, "{type="...), uint64(kind))
	dst = setOf("perfsize").enum(append(dst, ", size="...), uint64(le.Uint32(b[4:])))
	dst = append(dst, ", config="...)
	switch kind {
	case 0: // PERF_TYPE_HARDWARE
		if config>>32 != 0 {
			dst = append(appendHex(dst, config>>32), "<<32|"...)
		}
		dst = setOf("perfhw").enum(dst, config&0xffffffff)
	case 1: // PERF_TYPE_SOFTWARE
		dst = setOf("perfsw").enum(dst, config)
	case 2: // PERF_TYPE_TRACEPOINT
		dst = strconv.AppendUint(dst, config, 10)
	default:
		dst = appendHex(dst, config)
	}
	if flags>>10&1 != 0 { // freq
		dst = append(dst, ", sample_freq="...)
	} else {
		dst = append(dst, ", sample_period="...)
	}
	dst = strconv.AppendUint(dst, le.Uint64(b[16:]), 10)
	dst = setOf("perfsample").flags(append(dst, ", sample_type="...), le.Uint64(b[24:]))
	dst = setOf("perfread").flags(append(dst, ", read_format="...), le.Uint64(b[32:]))
	for bit, name := range perfFlags {
		switch {
		case name == "precise_ip":
			precise := flags >> bit & 3
			dst = strconv.AppendUint(append(dst, ", precise_ip="...), precise, 10)
			dst = append(append(append(dst, " /* "...), preciseIP[precise]...), " */"...)
		case name != "" && flags>>bit&1 != 0:
			dst = append(append(append(dst, ", "...), name...), "=1"...)
		}
	}
	if rest := flags >> len(perfFlags); rest != 0 {
		dst = append(appendHex(append(dst, ", __reserved_1="...), rest), " /* Bits 63..38 */"...)
	}
	return append(dst, ", ...}"...)
}
