package main

import (
	"os"
	"strings"
)

func init() { views["sysctl"] = tellSettings }

// settings are some whose files show a variable as it is, of each kind.
var settings = []string{
	"kernel.kptr_restrict", "kernel.dmesg_restrict", "kernel.randomize_va_space", "kernel.modules_disabled", "kernel.unprivileged_bpf_disabled",
	"kernel.yama.ptrace_scope", "kernel.core_pattern", "kernel.modprobe", "kernel.kexec_load_disabled", "kernel.perf_event_paranoid",
	"kernel.tainted", "kernel.panic", "kernel.panic_on_oops", "kernel.printk", "kernel.msgmax", "kernel.hostname",
	"kernel.osrelease", "net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.accept_redirects",
	"net.ipv4.tcp_syncookies", "net.ipv6.conf.all.forwarding", "net.core.bpf_jit_harden", "net.core.somaxconn",
	"fs.suid_dumpable", "fs.protected_symlinks", "fs.protected_hardlinks", "fs.file-max", "user.max_user_namespaces", "vm.mmap_min_addr", "vm.swappiness",
	// Of handlers of their own, and in jiffies.
	"kernel.sysrq", "kernel.seccomp.actions_logged", "kernel.printk_devkmsg", "net.ipv4.ping_group_range",
	"net.ipv4.ip_forward_update_priority", "vm.memfd_noexec", "kernel.printk_ratelimit", "net.ipv4.route.gc_timeout",
	"net.ipv4.neigh.default.gc_stale_time", "net.ipv4.neigh.default.retrans_time",
}

// tellSettings reads them below /proc/sys.
func tellSettings(emit func(any) error) error {
	for _, name := range settings {
		b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
		if err != nil {
			continue // this kernel does not have it
		}
		if err := emit(map[string]any{"name": name, "value": strings.TrimSuffix(string(b), "\n")}); err != nil {
			return err
		}
	}
	return nil
}
