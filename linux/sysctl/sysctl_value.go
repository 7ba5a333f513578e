package sysctl

import (
	"math/bits"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// sysctlKind is how a handler shows the variable at data, of maxlen bytes.
type sysctlKind struct {
	read func(r *kobj.Reader, data virt.Addr, maxlen, hz uint64) (string, bool)
	// variable is the one that the handler reads; empty: the one of the entry.
	variable string
	// always is one that makes it 1, if it is true; empty: none does.
	always string
}

var (
	sysctlInt    = sysctlKind{read: sysctlNumbers(4, true, nil)}
	sysctlUint   = sysctlKind{read: sysctlNumbers(4, false, nil)}
	sysctlUlong  = sysctlKind{read: sysctlNumbers(8, false, nil)}
	sysctlLong   = sysctlKind{read: sysctlNumbers(8, true, nil)}
	sysctlU8     = sysctlKind{read: sysctlNumbers(1, false, nil)}
	sysctlText   = sysctlKind{read: sysctlString}
	sysctlFlag   = sysctlKind{read: sysctlBool}
	sysctlSecond = sysctlKind{read: sysctlNumbers(4, true, func(v, hz int64) int64 { return v / hz })}
	sysctlMilli  = sysctlKind{read: sysctlNumbers(4, true, func(v, hz int64) int64 { return jiffies(v, hz, 1000) })}
	sysctlTick   = sysctlKind{read: sysctlNumbers(4, true, func(v, hz int64) int64 { return jiffies(v, hz, 100) })}
	sysctlTaint  = sysctlKind{read: sysctlNumbers(8, false, nil), variable: "tainted_mask"}
)

// sysctlKinds are the handlers that show a variable as it is: the general ones
// (kernel/sysctl.c), and those that check only what is written before they call them.
// proc_dobool kept an int before 5.15; nothing used it then.
var sysctlKinds = map[string]sysctlKind{
	"proc_dointvec": sysctlInt, "proc_dointvec_minmax": sysctlInt, "proc_dointvec_minmax_sysadmin": sysctlInt,
	"proc_dointvec_minmax_coredump": sysctlInt, "proc_dointvec_minmax_warn_RT_change": sysctlInt,
	"proc_dointvec_minmax_bpf_restricted": sysctlInt, "proc_dointvec_minmax_bpf_stats": sysctlInt,
	"proc_do_rointvec": sysctlInt, "proc_dointvec_unpriv_bpf": sysctlInt, "bpf_unpriv_handler": sysctlInt,
	"proc_dointvec_minmax_bpf_enable": sysctlInt, "yama_dointvec_minmax": sysctlInt, "ipv4_privileged_ports": sysctlInt,
	"devinet_sysctl_forward": sysctlInt, "devinet_conf_proc": sysctlInt, "ipv4_doint_and_flush": sysctlInt,
	"addrconf_sysctl_forward": sysctlInt, "addrconf_sysctl_disable": sysctlInt, "addrconf_sysctl_proxy_ndp": sysctlInt,
	"addrconf_sysctl_ignore_routes_with_linkdown": sysctlInt, "addrconf_sysctl_addr_gen_mode": sysctlInt,
	"neigh_proc_dointvec": sysctlInt, "neigh_proc_dointvec_zero_intmax": sysctlInt, "perf_event_max_stack_handler": sysctlInt,
	"perf_proc_update_handler": sysctlInt, "perf_cpu_time_max_percent_handler": sysctlInt,
	"overcommit_policy_handler": sysctlInt, "overcommit_ratio_handler": sysctlInt,
	"proc_ipc_dointvec": sysctlInt, "proc_ipc_dointvec_minmax": sysctlInt, "proc_mq_dointvec": sysctlInt, "proc_mq_dointvec_minmax": sysctlInt,
	"ftrace_enable_sysctl": sysctlInt, "stack_trace_sysctl": sysctlInt, "dirty_ratio_handler": sysctlInt,
	"dirty_background_ratio_handler": sysctlInt, "rds_tcp_skbuf_handler": sysctlInt,
	"proc_douintvec": sysctlUint, "proc_douintvec_minmax": sysctlUint, "proc_dopipe_max_size": sysctlUint,
	"pipe_proc_fn": sysctlUint, "proc_dou8vec_minmax": sysctlU8, "proc_dobool": sysctlFlag,
	"proc_doulongvec_minmax": sysctlUlong, "proc_dolongvec_minmax_bpf_restricted": sysctlLong, "mmap_min_addr_handler": {read: sysctlNumbers(8, false, nil), variable: "dac_mmap_min_addr"},
	"proc_dostring": sysctlText, "proc_dostring_coredump": sysctlText, "proc_do_uts_string": sysctlText,
	"proc_dointvec_jiffies": sysctlSecond, "neigh_proc_dointvec_jiffies": sysctlSecond,
	"proc_dointvec_ms_jiffies": sysctlMilli, "proc_dointvec_ms_jiffies_minmax": sysctlMilli, "neigh_proc_dointvec_ms_jiffies": sysctlMilli,
	"proc_dointvec_userhz_jiffies": sysctlTick, "neigh_proc_dointvec_userhz_jiffies": sysctlTick,
	"proc_taint": sysctlTaint, "proc_do_static_key": {read: sysctlStaticKey},
	"sysrq_sysctl_handler":           {read: sysctlOne, variable: "sysrq_enabled", always: "sysrq_always_enabled"},
	"seccomp_actions_logged_handler": {read: sysctlSeccomp, variable: "seccomp_actions_logged"},
	"devkmsg_sysctl_set_loglvl":      sysctlText,
	"proc_cap_handler":               {read: sysctlCapabilities},
	"ipv4_ping_group_range":          {read: sysctlTwo},
	"ipv4_fwd_update_priority":       {read: sysctlBySize},
	"pid_mfd_noexec_dointvec_minmax": sysctlInt,
	"apparmor_dointvec":              sysctlInt,
}

// sysctlBySize shows one number, which became smaller in time.
func sysctlBySize(r *kobj.Reader, data virt.Addr, maxlen, hz uint64) (string, bool) {
	if maxlen == 1 {
		return sysctlU8.read(r, data, 1, hz)
	}
	return sysctlInt.read(r, data, maxlen, hz)
}

// sysctlOne shows an int, and sysctlTwo two numbers, of which the entry does not give the size.
func sysctlOne(r *kobj.Reader, data virt.Addr, _, hz uint64) (string, bool) {
	return sysctlInt.read(r, data, 4, hz)
}

func sysctlTwo(r *kobj.Reader, data virt.Addr, _, hz uint64) (string, bool) {
	return sysctlUint.read(r, data, 8, hz)
}

// sysctlCapabilities shows a set of capabilities. Up to 6.2 the entry has a number where its
// address should be (CAP_BSET, CAP_PI).
func sysctlCapabilities(r *kobj.Reader, data virt.Addr, maxlen, hz uint64) (string, bool) {
	const numbers = 4096
	if data < numbers {
		return "", false
	}
	return sysctlTwo(r, data, maxlen, hz)
}

// seccompActions are the bits of seccomp_actions_logged, in the order in which they are shown.
var seccompActions = []struct {
	bit  uint
	name string
}{{0, "kill_process"}, {1, "kill_thread"}, {2, "trap"}, {3, "errno"}, {7, "user_notif"}, {4, "trace"}, {5, "log"}, {6, "allow"}}

func sysctlSeccomp(r *kobj.Reader, data virt.Addr, _, _ uint64) (string, bool) {
	logged := r.U32(data)
	var names []string
	for _, a := range seccompActions {
		if logged>>a.bit&1 != 0 {
			names = append(names, a.name)
		}
	}
	return strings.Join(names, " "), r.Err == nil
}

// jiffies converts ticks of which a second has hz to those of which it has to.
func jiffies(v, hz, to int64) int64 {
	hi, lo := bits.Mul64(uint64(max(v, -v)), uint64(to))
	if hi != 0 {
		return 0
	}
	n := int64(lo / uint64(hz))
	if v < 0 {
		return -n
	}
	return n
}

// sysctlNumbers shows the numbers of an array, with tabs between them. convert, where
// there is one, needs to know how long a jiffy is.
func sysctlNumbers(size uint32, signed bool, convert func(v, hz int64) int64) func(*kobj.Reader, virt.Addr, uint64, uint64) (string, bool) {
	return func(r *kobj.Reader, data virt.Addr, maxlen, hz uint64) (string, bool) {
		if convert != nil && hz == 0 {
			return "", false
		}
		var b strings.Builder
		for i := range min(maxlen, 1024) / uint64(size) {
			if i > 0 {
				b.WriteByte('\t')
			}
			a, f := data+virt.Addr(i*uint64(size)), kobj.FieldAt(0, size)
			switch {
			case convert != nil:
				b.WriteString(strconv.FormatInt(convert(r.Int(a, f), int64(hz)), 10))
			case signed:
				b.WriteString(strconv.FormatInt(r.Int(a, f), 10))
			default:
				b.WriteString(strconv.FormatUint(r.Uint(a, f), 10))
			}
		}
		return b.String(), r.Err == nil
	}
}

func sysctlString(r *kobj.Reader, data virt.Addr, maxlen, _ uint64) (string, bool) {
	return r.CString(data, int(min(maxlen, linux.MaxPath))), r.Err == nil
}

func sysctlBool(r *kobj.Reader, data virt.Addr, _, _ uint64) (string, bool) {
	return strconv.FormatUint(min(1, r.Uint(data, kobj.FieldAt(0, 1))), 10), r.Err == nil
}

// sysctlStaticKey shows whether the count, with which a struct static_key begins, is
// above zero.
func sysctlStaticKey(r *kobj.Reader, data virt.Addr, _, _ uint64) (string, bool) {
	if int32(r.U32(data)) > 0 {
		return "1", r.Err == nil
	}
	return "0", r.Err == nil
}
