package kobj

import (
	"errors"
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/kernel"
)

// options are the configuration options of a kernel without which its types or its symbol
// table lack what errors about them name.
var options = []struct{ sign, option string }{
	{"struct module:", "CONFIG_MODULES"},
	{"symbol modules:", "CONFIG_MODULES"},
	{"member rules_ops of struct net:", "CONFIG_IP_MULTIPLE_TABLES"},
	{"struct fib_rules_ops:", "CONFIG_IP_MULTIPLE_TABLES"},
	{"struct orc_entry:", "CONFIG_UNWINDER_ORC"},
	{"symbol node_data:", "CONFIG_NUMA"},
	{"struct inet6_ifaddr:", "CONFIG_IPV6"},
	{"struct bpf_prog:", "CONFIG_BPF_SYSCALL"},
	{"struct bpf_link:", "CONFIG_BPF_SYSCALL"},
	{"struct bpf_map:", "CONFIG_BPF_SYSCALL"},
	{"struct nf_hook_entries:", "CONFIG_NETFILTER"},
	{"struct security_hook_list:", "CONFIG_SECURITY"},
	{"struct cgroup_root:", "CONFIG_CGROUPS"},
	{"struct ftrace_ops:", "CONFIG_FUNCTION_TRACER"},
	{"struct tracepoint:", "CONFIG_TRACEPOINTS"},
	{"struct kprobe:", "CONFIG_KPROBES"},
	{"struct io_ring_ctx:", "CONFIG_IO_URING"},
	{"struct key:", "CONFIG_KEYS"},
	{"struct pci_bus:", "CONFIG_PCI"},
	{"struct pci_sysdata:", "CONFIG_PCI"},
	{"struct disk_stats:", "CONFIG_BLOCK"},
	{"struct swap_info_struct:", "CONFIG_SWAP"},
	{"struct crypto_alg:", "CONFIG_CRYPTO"},
	{"struct perf_event_context:", "CONFIG_PERF_EVENTS"},
	{"struct vc_data:", "CONFIG_VT"},
	{"member ids of struct ipc_namespace:", "CONFIG_SYSVIPC"},
	{"struct kern_ipc_perm:", "CONFIG_SYSVIPC"},
	{"member nr_actions of struct tcf_exts:", "CONFIG_NET_CLS_ACT"},
	{"struct sock_common:", "CONFIG_NET"},
	{"struct neigh_table:", "CONFIG_INET"},
	{"struct ctl_table_header:", "CONFIG_SYSCTL"},
}

// NamesVariables reports whether the kernel's symbol table names variables too: that of a
// kernel without CONFIG_KALLSYMS_ALL names functions only.
func (s *Walker) NamesVariables() bool {
	_, ok := s.Address("system_state") // every kernel has it (init/main.c)
	return ok
}

// NoSymbol is the error of a symbol that this kernel's table does not name, with the option
// that it was probably built without.
func (s *Walker) NoSymbol(name string) error {
	return s.lacks([]error{fmt.Errorf("symbol %s: %w", name, kernel.ErrNoSymbol)})
}

// lackError is what a kernel lacks, and which options explain it.
type lackError struct {
	err     error
	without []string
}

func (e *lackError) Error() string {
	return fmt.Sprintf("%v (built without %s?)", e.err, strings.Join(e.without, ", "))
}

func (e *lackError) Unwrap() error { return e.err }

// lacks joins what a kernel lacks, each of it once, and says which options explain it.
func (s *Walker) lacks(errs []error) error {
	var once []error
	var without []string
	seen := map[string]bool{}
	need := func(option string) {
		if !seen[option] {
			seen[option] = true
			without = append(without, option)
		}
	}
	variables := true
	for _, err := range errs {
		if e, ok := err.(*lackError); ok { //nolint:errorlint // one that wraps it says more
			for _, option := range e.without {
				need(option)
			}
			err = e.err
		}
		text := err.Error()
		if seen[text] {
			continue
		}
		seen[text] = true
		once = append(once, err)
		for _, o := range options {
			if strings.Contains(text, o.sign) {
				need(o.option)
			}
		}
		variables = variables && !errors.Is(err, kernel.ErrNoSymbol)
	}
	if !variables && !s.NamesVariables() {
		need("CONFIG_KALLSYMS_ALL")
	}
	joined := errors.Join(once...)
	if len(without) == 0 {
		return joined
	}
	return &lackError{joined, without}
}
