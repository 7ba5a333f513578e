package views

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/sysctl"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	table.Register(table.OfGroups(table.Spec{
		Name: "sysctl", Group: table.Kernel,
		Doc: `Show the settings of a guest's kernel.

They are found in the kernel's own tree of settings, in the initial namespaces, and
read from the variables behind them: what a changed handler would answer in the guest
does not count here, and whose handler it is stands beside it. Some handlers compute
their answer; those settings are listed without a value. "security" marks those that
weaken or harden a system.`,
		Source:  "sysctl_table_root: ctl_table_header, ctl_table, and the variables that they lead to",
		Key:     []string{"name"},
		Example: "lab:demo",
	}, sysctlColumns, sysctls))
}

func sysctlColumns() table.Columns[owned[sysctl.Sysctl]] {
	return slices.Concat(
		plain(table.Columns[sysctl.Sysctl]{
			{
				Name: "name", Type: table.Text, Doc: "Name, as sysctl has it: with dots, and a slash where a part has a dot.",
				Get: func(c *sysctl.Sysctl) table.Value { return table.TextValue(c.Name) },
			},
			{
				Name: "value", Type: table.Text, Doc: "Value, as its file in /proc/sys reads; missing where the handler computes it.",
				Get: func(c *sysctl.Sysctl) table.Value {
					if !c.Known {
						return table.Missing(table.Unsupported)
					}
					return table.TextValue(c.Value)
				},
			},
			{
				Name: "security", Type: table.Bool, Doc: "Whether it is known to weaken or harden the system.",
				Get: func(c *sysctl.Sysctl) table.Value { return table.BoolValue(sysctlMatters(c.Name)) },
			},
			{
				Name: "mode", Type: table.Text, Extra: true, Doc: "Permissions of its file, in octal.",
				Get: func(c *sysctl.Sysctl) table.Value { return table.TextValue(fmt.Sprintf("%04o", c.Mode)) },
			},
			{
				Name: "data", Type: table.Addr, Extra: true, Doc: "Address of the variable; missing where the handler has its own.",
				Get: func(c *sysctl.Sysctl) table.Value { return address(c.Data) },
			},
		}),
		table.Columns[owned[sysctl.Sysctl]]{
			{
				Name: "variable", Type: table.Text, Extra: true, Doc: "Symbol that covers the variable; missing for allocated memory.",
				Get: func(o *owned[sysctl.Sysctl]) table.Value { return text(o.memory(o.it.Data).Function()) },
			},
		},
		code("handler", "the function that reads and sets it", func(c *sysctl.Sysctl) virt.Addr { return c.Handler }),
	)
}

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

func sysctls(ctx context.Context, l *guest.Look, r table.Request) iter.Seq2[*owned[sysctl.Sysctl], error] {
	wanted, some := r.Values("name")
	read := sysctl.Sysctls
	if !r.Wants("value") {
		read = sysctl.Entries
	}
	return ownedOf(ctx, l.Linux, func(ctx context.Context, s *linux.System, _ *owners) iter.Seq2[*sysctl.Sysctl, error] {
		return func(yield func(*sysctl.Sysctl, error) bool) {
			for c, err := range whole(read(ctx, s)) {
				if c != nil && some && !slices.ContainsFunc(wanted, func(v table.Value) bool { return v.Text() == c.Name }) {
					continue
				}
				if !yield(c, err) {
					return
				}
			}
		}
	})
}
