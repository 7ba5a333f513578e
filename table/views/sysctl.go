package views

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/table"
)

func init() {
	table.Register(table.New(table.Spec{
		Name: "sysctl", Group: table.Kernel,
		Doc: `Show the settings of a guest's kernel.

They are found in the kernel's own tree of settings, in the initial namespaces, and
read from the variables behind them: what a changed handler would answer in the guest
does not count here, and whose handler it is stands beside it. Some handlers compute
their answer; those settings are listed without a value. "security" marks those that
weaken or harden a system.`,
		Columns: sysctlColumns,
		Rows:    sysctlRows,
		Example: "lab:demo",
	}))
}

var sysctlColumns = slices.Concat([]table.Column{
	{Name: "name", Type: table.Text, Doc: "Name, as sysctl has it: with dots, and a slash where a part has a dot."},
	{Name: "value", Type: table.Text, Doc: "Value, as its file in /proc/sys reads; missing where the handler computes it."},
	{Name: "security", Type: table.Bool, Doc: "Whether it is known to weaken or harden the system."},
	{Name: "mode", Type: table.Text, Extra: true, Doc: "Permissions of its file, in octal."},
	{Name: "data", Type: table.Addr, Extra: true, Doc: "Address of the variable; missing where the handler has its own."},
	{Name: "variable", Type: table.Text, Extra: true, Doc: "Symbol that covers the variable; missing for allocated memory."},
}, functionColumns("handler", "the function that reads and sets it"))

// sysctlSecurity are settings that weaken or harden a system, by their names or the
// beginnings of them (Documentation/admin-guide/sysctl).
var sysctlSecurity = []string{
	"dev.tty.ldisc_autoload", "dev.tty.legacy_tiocsti",
	"fs.protected_", "fs.suid_dumpable", "fs.binfmt_misc.",
	"kernel.core_pattern", "kernel.core_pipe_limit", "kernel.core_uses_pid", "kernel.dmesg_restrict", "kernel.ftrace_enabled",
	"kernel.hotplug", "kernel.io_uring_", "kernel.kexec_load_", "kernel.kptr_restrict", "kernel.modprobe", "kernel.modules_disabled",
	"kernel.oops_limit", "kernel.warn_limit", "kernel.panic", "kernel.perf_event_paranoid", "kernel.poweroff_cmd", "kernel.printk",
	"kernel.randomize_va_space", "kernel.sysrq", "kernel.tainted", "kernel.unprivileged_", "kernel.usermodehelper.", "kernel.yama.",
	"kernel.seccomp.", "kernel.apparmor_", "kernel.stack_tracer_enabled",
	"net.core.bpf_jit_", "net.ipv4.ip_forward", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_rfc1337", "net.ipv4.ip_unprivileged_port_start",
	"net.ipv4.icmp_echo_ignore_", "net.ipv4.ping_group_range", "user.max_", "vm.mmap_min_addr", "vm.mmap_rnd_", "vm.memfd_noexec", "vm.unprivileged_userfaultfd",
	"vm.overcommit_memory", "vm.legacy_va_layout", "abi.vsyscall32",
}

// sysctlInterface are those of each network interface, by the ends of their names.
var sysctlInterface = []string{
	".rp_filter", ".accept_redirects", ".secure_redirects", ".send_redirects", ".accept_source_route", ".log_martians",
	".forwarding", ".accept_ra", ".proxy_arp", ".arp_ignore", ".arp_announce", ".disable_ipv6", ".bootp_relay",
}

func sysctlMatters(name string) bool {
	if slices.ContainsFunc(sysctlSecurity, func(s string) bool { return strings.HasPrefix(name, s) }) {
		return true
	}
	return strings.Contains(name, ".conf.") && slices.ContainsFunc(sysctlInterface, func(s string) bool { return strings.HasSuffix(name, s) })
}

func sysctlRows(ctx context.Context, g *guest.Look, where table.Request) iter.Seq2[table.Row, error] {
	wanted, some := where.Values("name")
	return func(yield func(table.Row, error) bool) {
		owners, err := g.Linux.Owners()
		if err != nil {
			yield(nil, table.Failure(err))
			return
		}
		for c, err := range g.Linux.Sysctls(ctx) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			if some && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Text() == c.Name }) {
				continue
			}
			if !yield(sysctlRow(owners, c), nil) {
				return
			}
		}
	}
}

func sysctlRow(owners *linux.Owners, c *linux.Sysctl) table.Row {
	value := table.Missing(table.Unsupported)
	if c.Known {
		value = table.TextValue(c.Value)
	}
	handler, symbol, owner := function(owners, c.Handler)
	return table.Row{
		table.TextValue(c.Name), value, table.BoolValue(sysctlMatters(c.Name)), table.TextValue(fmt.Sprintf("%04o", c.Mode)),
		address(c.Data), text(owners.Holder(c.Data).Function()), handler, symbol, owner,
	}
}
