package check_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/sysctl"
	"github.com/outsight-vmi/outsight/virt"
)

// TestGuestKernelZoo does what rootkits do to the kernel's own structures, in a guest in
// which legal tools are at work.
func TestGuestKernelZoo(t *testing.T) {
	labtest.NeedQEMU(t)
	for _, kernel := range zooKernels("6.12") {
		t.Run(kernel, func(t *testing.T) {
			g, s := upWithTools(t, kernel)
			defer s.Close()
			for _, k := range slices.Concat(kernelTricks(), descriptorTricks(), dataTricks()) {
				t.Run(k.name, func(t *testing.T) { perform(t, g, s, k) })
			}
			silent(t, s)
		})
	}
}

// upWithTools boots a guest in which legal tools are at work, none of which may be found. Under
// emulation about one guest in ten does not survive that every function is patched while two
// processors run: then another is booted, twice at most.
func upWithTools(t *testing.T, kernel string) (*lab.Guest, *guest.Guest) {
	for try := 0; ; try++ {
		g := labtest.Up(t, lab.Options{Kernel: kernel, Memory: 512 << 20, SMP: 2, Modules: zooModules})
		labtest.Output(t, g, `sleep 100000 </dev/null >/dev/null 2>&1 & su -s /bin/sh daemon -c "sleep 100003; :" </dev/null >/dev/null 2>&1 & sleep 1; echo ok`)
		s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		silent(t, s)
		for _, tool := range legalTools {
			var out []byte
			if out, err = g.Output(t.Context(), tool.shell); err != nil {
				break
			}
			t.Logf("%s: %s", tool.name, out)
			silent(t, s)
		}
		if err == nil {
			return g, s
		}
		s.Close()
		if try == 2 || !errors.Is(err, lab.ErrRestarted) {
			t.Fatal(err)
		}
		t.Log(err)
	}
}

// legalTools are what administrators do, and no check may find.
var legalTools = []struct{ name, shell string }{
	{"every function traced", `mount -t tracefs t /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing && echo function > current_tracer && cat current_tracer`},
	{"graph tracer", `cd /sys/kernel/tracing && echo vfs_unlink > set_ftrace_filter && echo function_graph > current_tracer && cat current_tracer`},
	{"function tracer", `mount -t tracefs t /sys/kernel/tracing 2>/dev/null; cd /sys/kernel/tracing && echo kfree_skb_partial > set_ftrace_filter && echo function > current_tracer && cat current_tracer`},
	{"function tracer with stacks", `cd /sys/kernel/tracing && echo 1 > options/func_stack_trace && cat options/func_stack_trace`},
	{"probes", `cd /sys/kernel/tracing && echo 'p:one vfs_unlink' > kprobe_events && echo 'r:two vfs_rmdir' >> kprobe_events && echo 'p:three vfs_unlink+8' >> kprobe_events; echo 1 > events/kprobes/enable; cat kprobe_events`},
	{"settings", `echo '|/usr/share/apport/apport -p%p' > /proc/sys/kernel/core_pattern; echo /usr/sbin/modprobe > /proc/sys/kernel/modprobe; echo 2 > /proc/sys/kernel/kptr_restrict; cat /proc/sys/kernel/core_pattern`},
	{"modules", `for i in 1 2 3; do rmmod tun && insmod /lib/modules/tun.ko; done; lsmod`},
	{"users and namespaces", `(unshare -U sleep 100001 || echo no namespaces) </dev/null >/dev/null 2>&1 & (setuidgid nobody sleep 100002 || su nobody -s /bin/sh -c 'sleep 100002') </dev/null >/dev/null 2>&1 & sleep 1; ps | grep sleep`},
}

// kernelTricks are changes of what the kernel relies on.
func kernelTricks() []trick {
	credentials, calls, helpers := []string{"stolen-credentials"}, []string{"system-call-function", "kernel-rodata"}, []string{"helper-path"}
	state, taint, tracing := []string{"security-state"}, []string{"taint"}, []string{"ftrace-triple", "?kernel-text"}
	text := []string{"system-call-function", "?kernel-text", "?kernel-rodata"}
	tables := []string{"operations-table"}
	constant := []string{"operations-table", "kernel-rodata"} // of the kernel's image
	branches := []string{"text-branch", "?kernel-text"}
	return []trick{
		{"kernel thread without its function", func(z *zoo) { z.put(z.kthread("kswapd0")+z.offset("kthread", "threadfn"), 0) }, []string{"masquerade"}},
		{"kernel thread that is named as a worker", func(z *zoo) {
			z.write(z.kernelThread("kswapd0")+z.offset("task_struct", "comm"), []byte("kworker/0:9\x00"))
		}, []string{"masquerade"}},
		{"credentials of the kernel", func(z *zoo) { z.become(z.symbol("init_cred")) }, credentials},
		{"credentials of the kernel, for a moment", func(z *zoo) {
			z.put(z.victim()+z.offset("task_struct", "cred"), uint64(z.symbol("init_cred")))
		}, credentials},
		{"credentials of process 1", func(z *zoo) { z.become(z.ptr(z.process(1) + z.offset("task_struct", "real_cred"))) }, credentials},
		{"credentials of process 1, for a moment", func(z *zoo) {
			z.put(z.victim()+z.offset("task_struct", "cred"), uint64(z.ptr(z.process(1)+z.offset("task_struct", "real_cred"))))
		}, credentials},
		{"credentials that were not allocated, for a moment", func(z *zoo) {
			at := z.scratch()
			z.write(at, z.read(z.cred(), 176))
			z.put(z.victim()+z.offset("task_struct", "cred"), uint64(at))
		}, credentials},
		{"credentials that the kernel made", func(z *zoo) {
			child := z.processWith("sleep", "100003")
			above := z.ptr(z.ptr(child+z.offset("task_struct", "real_parent")) + z.offset("task_struct", "real_cred"))
			z.put(above+z.offset("cred", "session_keyring"), uint64(z.heap()))
			z.put(z.ptr(child+z.offset("task_struct", "real_cred"))+z.offset("cred", "group_info"), uint64(z.symbol("init_groups")))
		}, credentials},
		{"user overwritten", func(z *zoo) {
			z.write(z.cred()+z.offset("cred", "uid"), bytes.Repeat([]byte{0xe8, 3, 0, 0}, 8))
		}, credentials},
		{"capabilities beyond the permitted", func(z *zoo) { z.put(z.cred()+z.offset("cred", "cap_permitted"), 1) }, credentials},
		{"every bit a capability", func(z *zoo) {
			z.put(z.cred()+z.offset("cred", "cap_permitted"), ^uint64(0))
			z.put(z.cred()+z.offset("cred", "cap_effective"), ^uint64(0))
		}, credentials},
		{"ambient out of nothing", func(z *zoo) { z.put(z.cred()+z.offset("cred", "cap_ambient"), 1<<21) }, credentials},
		{"credentials that were not allocated", func(z *zoo) {
			at := z.scratch()
			z.write(at, z.read(z.cred(), 176))
			z.become(at)
		}, credentials},
		{"user namespace exchanged", func(z *zoo) {
			if _, err := z.look.Linux.Member("cred", "ucounts"); err != nil {
				z.Skip("this kernel counts users by no namespace")
			}
			z.put(z.cred()+z.offset("cred", "user_ns"), uint64(z.heap()))
		}, credentials},

		{"system call by another's function", func(z *zoo) {
			table := z.symbol("sys_call_table")
			z.put(table+8*17, uint64(z.ptr(table+8*39)))
		}, calls},
		{"system call of 32 bits by another's function", func(z *zoo) {
			z.redirect(z.systemCall("ia32", 180, ""), z.symbol("vprintk"))
		}, text},
		{"system call in a module", func(z *zoo) { z.put(z.symbol("sys_call_table")+8*17, uint64(z.moduleText())) }, append(calls, "module-hook")},
		{"dispatcher to another's function", func(z *zoo) {
			z.redirect(z.systemCall("64", 17, "dispatcher"), z.ptr(z.symbol("sys_call_table")+8*39))
		}, text},

		{"jump in a function to a module", func(z *zoo) { z.branch(0xe9, z.inFunction(), z.moduleText()) }, branches},
		{"jump in a function to code of an unknown owner", func(z *zoo) {
			z.entry(z.heap(), func(e uint64) uint64 { return e &^ (1 << 63) })
			z.write(z.inFunction(), binary.LittleEndian.AppendUint64([]byte{0xff, 0x25, 0, 0, 0, 0}, uint64(z.heap())))
		}, append(branches, "hidden-code")},
		{"address in a register, to a module", func(z *zoo) {
			z.write(z.inFunction(), append(binary.LittleEndian.AppendUint64([]byte{0x48, 0xb8}, uint64(z.moduleText())), 0xff, 0xe0))
		}, branches},
		{"pushed address, to a module", func(z *zoo) {
			z.write(z.inFunction(), append(binary.LittleEndian.AppendUint32([]byte{0x68}, uint32(z.moduleText())), 0xc3))
		}, branches},

		{"modprobe in /tmp", func(z *zoo) { z.write(z.symbol("modprobe_path"), []byte("/tmp/x\x00")) }, helpers},
		{"modprobe by a relative path", func(z *zoo) { z.write(z.symbol("modprobe_path"), []byte("../x\x00")) }, helpers},
		{"crashes into a hidden program", func(z *zoo) { z.write(z.symbol("core_pattern"), []byte("|/usr/lib/.x %p\x00")) }, helpers},
		{"power off by /var/tmp", func(z *zoo) { z.write(z.symbol("poweroff_cmd"), []byte("/var/tmp/x\x00")) }, helpers},

		{"AppArmor switched off", func(z *zoo) { z.write(z.symbol("apparmor_enabled"), make([]byte, 4)) }, state},
		{"security hook taken off", func(z *zoo) { z.unhook("apparmor", "file_open") }, state},
		{"lockdown lowered", func(z *zoo) { z.boot("lockdown=integrity") }, state},
		{"auditing switched off", func(z *zoo) { z.write(z.symbol("audit_ever_enabled"), []byte{1, 0, 0, 0}) }, state},
		{"enforcement of signatures lowered", func(z *zoo) { z.boot("module.sig_enforce=1") }, taint},
		{"unsigned module where signatures are compulsory", func(z *zoo) {
			z.write(z.ptr(z.symbol("__param_sig_enforce")+z.offset("kernel_param", "arg")), []byte{1})
			z.write(z.module()+z.offset("module", "sig_ok"), []byte{0})
		}, taint},
		{"taint that a module cleared of itself", func(z *zoo) { z.write(z.module()+z.offset("module", "sig_ok"), []byte{0}) }, taint},
		{"taint cleared", func(z *zoo) { z.put(z.module()+z.offset("module", "taints"), 1<<12) }, taint},

		{"tracer off the list", func(z *zoo) { z.put(z.symbol("ftrace_ops_list"), uint64(z.symbol("ftrace_list_end"))) }, tracing},
		{"record of tracing cleared", func(z *zoo) { z.put(z.traced("kfree_skb_partial").Record+z.offset("dyn_ftrace", "flags"), 0) }, tracing},
		{"record of tracing of nothing", func(z *zoo) {
			z.put(z.traced("kernel_power_off").Record+z.offset("dyn_ftrace", "flags"), 1<<31|5)
		}, tracing},
		{"call of tracing taken out", func(z *zoo) { z.write(z.traced("kfree_skb_partial").Site, []byte{0x0f, 0x1f, 0x44, 0, 0}) }, tracing},
		{"jump in the place for tracing", func(z *zoo) { z.branch(0xe9, z.traced("kernel_power_off").Site, z.symbol("commit_creds")) }, tracing},
		{"call of a module in the place for tracing", func(z *zoo) { z.branch(0xe8, z.traced("kernel_power_off").Site, z.moduleText()) }, append([]string{"text-branch"}, tracing...)},
		{"traced function calls a module", func(z *zoo) { z.branch(0xe8, z.traced("kfree_skb_partial").Site, z.moduleText()) }, append([]string{"text-branch"}, tracing...)},
		{"call of a module where nothing can be traced", func(z *zoo) {
			const disabled = 1 << 25 // FTRACE_FL_DISABLED
			site := z.traced("kernel_power_off")
			z.put(site.Record+z.offset("dyn_ftrace", "flags"), disabled)
			z.branch(0xe8, site.Site, z.moduleText())
		}, append([]string{"text-branch"}, tracing...)},
		{"module watches a function", func(z *zoo) {
			z.put(z.tracer("kfree_skb_partial").Addr+z.offset("ftrace_ops", "func"), uint64(z.moduleText()))
		}, []string{"module-hook", "?kernel-text", "?ftrace-triple", "?trampoline-code"}},
		{"module replaces a function", func(z *zoo) {
			ops := z.tracer("kfree_skb_partial")
			flags := z.read(ops.Addr+z.offset("ftrace_ops", "flags"), 8)
			z.put(ops.Addr+z.offset("ftrace_ops", "flags"), binary.LittleEndian.Uint64(flags)|1<<12)
			z.put(ops.Addr+z.offset("ftrace_ops", "func"), uint64(z.moduleText()))
		}, append(tracing, "module-hook", "?trampoline-code")},
		{"trampoline of a tracer led elsewhere", func(z *zoo) {
			z.branch(0xe8, z.tracer("kfree_skb_partial").Trampoline+(z.symbol("ftrace_call")-z.symbol("ftrace_caller")), z.symbol("__x64_sys_getpid"))
		}, []string{"trampoline-code"}},
		{"trampoline of a tracer jumps elsewhere", func(z *zoo) {
			z.branch(0xe9, z.tracer("kfree_skb_partial").Trampoline, z.symbol("__x64_sys_getpid"))
		}, []string{"trampoline-code"}},
		{"tracing switched off, with the flag of a warning", func(z *zoo) {
			const warned = 1 << 9 // TAINT_WARN
			z.put(z.symbol("tainted_mask"), uint64(z.ptr(z.symbol("tainted_mask")))|warned)
			z.write(z.symbol("ftrace_disabled"), []byte{1, 0, 0, 0})
		}, []string{"ftrace-triple"}},
		{"key switched without its code, in the hand of a task", func(z *zoo) {
			// The owner of the mutex, who has the key on his stack, is a task that sleeps.
			const stack, regs = 16 << 10, 168
			task, key := z.victim(), z.symbol("sched_schedstats")
			z.put(z.ptr(task+z.offset("task_struct", "stack"))+stack-regs, uint64(key))
			z.put(task+z.offset("task_struct", "sched_info.last_arrival"), 1<<62)
			z.put(z.symbol("jump_label_mutex")+z.offset("mutex", "owner"), uint64(task))
			if words, err := z.look.Linux.Fresh().InHand(z.Context(), "jump_label_mutex"); err != nil || !words[uint64(key)] {
				z.Errorf("the key is not in the task's hand: %v", err)
			}
			z.write(key, []byte{1, 0, 0, 0})
		}, []string{"kernel-text"}},

		{"table of a file copied", func(z *zoo) { z.copyTable(z.file()+z.offset("file", "f_op"), "file_operations") }, tables},
		{"table of an inode copied", func(z *zoo) {
			z.copyTable(z.ptr(z.file()+z.offset("file", "f_inode"))+z.offset("inode", "i_op"), "inode_operations")
		}, tables},
		{"table of a file system copied", func(z *zoo) {
			super := z.ptr(z.ptr(z.file()+z.offset("file", "f_inode")) + z.offset("inode", "i_sb"))
			z.copyTable(super+z.offset("super_block", "s_op"), "super_operations")
		}, tables},
		{"function of /proc elsewhere", func(z *zoo) {
			z.put(z.symbol("proc_root_operations")+z.offset("file_operations", "iterate_shared"), uint64(z.heap()))
		}, constant},
		{"function of /proc in a module", func(z *zoo) {
			z.put(z.symbol("proc_root_operations")+z.offset("file_operations", "iterate_shared"), uint64(z.moduleText()))
		}, constant},
		{"function of a sysctl in a module", func(z *zoo) {
			z.put(z.sysctl("kernel.hostname").Addr+z.offset("ctl_table", "proc_handler"), uint64(z.moduleText()))
		}, []string{"operations-table", "?kernel-rodata"}}, // its table is constant since 7.3
		{"table of an entry of /proc copied", func(z *zoo) {
			z.copyTable(z.symbol("proc_root")+z.offset("proc_dir_entry", "proc_iops"), "inode_operations")
		}, tables},
		{"list of connections elsewhere", func(z *zoo) {
			z.put(z.symbol("tcp4_seq_ops")+z.offset("seq_operations", "show"), uint64(z.heap()))
		}, constant},
		{"protocol elsewhere", func(z *zoo) {
			const icmp = 1
			z.put(z.ptr(z.symbol("inet_protos")+8*icmp)+z.offset("net_protocol", "handler"), uint64(z.heap()))
		}, append(tables, "?kernel-rodata")},
		{"protocol in a module", func(z *zoo) {
			const icmp = 1
			z.put(z.ptr(z.symbol("inet_protos")+8*icmp)+z.offset("net_protocol", "handler"), uint64(z.moduleText()))
		}, append(tables, "?kernel-rodata")},
		{"packets of a kind elsewhere", func(z *zoo) {
			z.put(z.symbol("ip_packet_type")+z.offset("packet_type", "func"), uint64(z.heap()))
		}, tables},
		{"socket of its own kind", func(z *zoo) { z.put(z.symbol("tcp_prot")+z.offset("proto", "get_port"), uint64(z.heap())) }, tables},
		{"network device by a copied table", func(z *zoo) {
			z.copyTable(z.ptr(z.symbol("init_net")+z.offset("net", "loopback_dev"))+z.offset("net_device", "netdev_ops"), "net_device_ops")
		}, tables},
		{"table of an entry of /proc copied into a module", func(z *zoo) {
			z.copyTableTo(z.symbol("proc_root")+z.offset("proc_dir_entry", "proc_iops"), "inode_operations", z.moduleData())
		}, tables},
		{"socket of its own kind in a module", func(z *zoo) {
			z.put(z.symbol("tcp_prot")+z.offset("proto", "get_port"), uint64(z.moduleText()))
		}, tables},
		{"keys of terminals to a module", func(z *zoo) {
			z.put(z.symbol("n_tty_ops")+z.offset("tty_ldisc_ops", "receive_buf"), uint64(z.moduleText()))
		}, tables},
		{"terminals by another's function", func(z *zoo) {
			z.put(z.symbol("n_tty_ops")+z.offset("tty_ldisc_ops", "poll"), uint64(z.heap()))
		}, tables},
		{"device file elsewhere", func(z *zoo) {
			z.put(z.symbol("null_fops")+z.offset("file_operations", "splice_write"), uint64(z.heap()))
		}, constant},
		{"network device intercepted", func(z *zoo) {
			z.put(z.ptr(z.symbol("init_net")+z.offset("net", "loopback_dev"))+z.offset("net_device", "rx_handler"), uint64(z.heap()))
		}, tables},
	}
}

// cred is the struct cred of the victim.
func (z *zoo) cred() virt.Addr { return z.ptr(z.victim() + z.offset("task_struct", "real_cred")) }

// become gives the victim other credentials.
func (z *zoo) become(cred virt.Addr) {
	z.Helper()
	v := z.victim()
	z.put(v+z.offset("task_struct", "real_cred"), uint64(cred))
	z.put(v+z.offset("task_struct", "cred"), uint64(cred))
}

// process is the task_struct of a process.
func (z *zoo) process(pid int32) virt.Addr {
	z.Helper()
	for p, err := range z.look.Processes(z.Context()) {
		if err == nil && p.PID == pid {
			return p.Task.Addr
		}
	}
	z.Fatalf("no process %d", pid)
	return 0
}

// file is the struct file of the victim's standard input.
func (z *zoo) file() virt.Addr {
	z.Helper()
	table := z.ptr(z.ptr(z.victim()+z.offset("task_struct", "files")) + z.offset("files_struct", "fdt"))
	return z.ptr(z.ptr(table + z.offset("fdtable", "fd")))
}

// copyTable has the pointer at a lead to a copy of the table that it leads to: in a page of
// the victim's stack of the kernel, of which the lower end is not used.
func (z *zoo) copyTable(a virt.Addr, structure string) {
	z.Helper()
	z.copyTableTo(a, structure, z.ptr(z.victim()+z.offset("task_struct", "stack"))+256) // above what guards its end
}

// copyTableTo is copyTable, to memory at at.
func (z *zoo) copyTableTo(a virt.Addr, structure string, at virt.Addr) {
	z.Helper()
	size, err := z.look.Linux.StructSize(structure)
	if err != nil {
		z.Fatal(err)
	}
	z.write(at, z.read(z.ptr(a), int(size)))
	z.put(a, uint64(at))
}

// moduleData is data of a module on the list that nothing uses meanwhile: the end of what it
// has for itself, behind its own struct module and variables.
func (z *zoo) moduleData() virt.Addr {
	z.Helper()
	m, err := z.look.Linux.ModuleNamed("loop")
	if err != nil || m == nil {
		z.Fatalf("module loop is not loaded: %v", err)
	}
	for _, r := range m.Memory {
		if r.Kind == linux.ModuleData {
			return (r.Start + virt.Addr(r.Size) - 512) &^ 0xf
		}
	}
	z.Fatal("the module has no data")
	return 0
}

// sysctl is a setting.
func (z *zoo) sysctl(name string) *sysctl.Sysctl {
	for c, err := range sysctl.Sysctls(z.Context(), z.look.Linux) {
		if err == nil && c.Name == name {
			return c
		}
	}
	z.Fatalf("no sysctl %s", name)
	return nil
}

// inFunction is a place in a function that nothing runs meanwhile, behind its place for
// tracing, where an instruction begins.
func (z *zoo) inFunction() virt.Addr { return z.traced("kernel_power_off").Site + 5 }

// scratch is memory of the kernel's image that nothing uses, of 224 bytes: behind the path
// of the program that is started when no other way to power off is left.
func (z *zoo) scratch() virt.Addr { return z.symbol("poweroff_cmd") + 32 }

// moduleText is the address of code of a module on the list.
func (z *zoo) moduleText() virt.Addr {
	z.Helper()
	m, err := z.look.Linux.ModuleNamed("loop")
	if err != nil || m == nil {
		z.Fatalf("module loop is not loaded: %v", err)
	}
	for _, r := range m.Memory {
		if r.Kind == linux.ModuleText {
			return r.Start + 0x40
		}
	}
	z.Fatal("the module has no text")
	return 0
}

// systemCall is one way to a system call: the given one, or the one that is used.
func (z *zoo) systemCall(abi string, number int, via string) *hooks.Syscall {
	z.Helper()
	owners, err := z.look.Linux.Owners()
	if err != nil {
		z.Fatal(err)
	}
	for c, err := range hooks.Syscalls(z.Context(), z.look.Linux, owners) {
		if err != nil {
			z.Fatal(err)
		}
		if c.ABI == abi && c.Number == number && (c.Via == via || via == "" && c.Used) {
			return c
		}
	}
	z.Skipf("this kernel has no %s", via)
	return nil
}

// redirect leads a system call to another function.
func (z *zoo) redirect(c *hooks.Syscall, to virt.Addr) {
	z.Helper()
	if c.Via == "table" {
		z.put(c.Site, uint64(to))
		return
	}
	// call or jmp, with a distance of four bytes, behind a condition perhaps.
	n := virt.Addr(5)
	if z.read(c.Site, 1)[0] == 0x0f {
		n = 6
	}
	z.write(c.Site+n-4, binary.LittleEndian.AppendUint32(nil, uint32(to-c.Site-n)))
}

// boot puts a parameter into the text of those that the kernel was booted with.
func (z *zoo) boot(parameter string) {
	z.Helper()
	at := z.ptr(z.symbol("saved_command_line"))
	if text, err := z.look.Linux.CommandLine(); err != nil || len(text) < len(parameter)+1 {
		z.Fatalf("the command line %q is too short for %s: %v", text, parameter, err)
	}
	z.write(at, []byte(parameter+" "))
}

// unhook takes a function of a security module off its hook.
func (z *zoo) unhook(lsm, hook string) {
	z.Helper()
	for h, err := range hooks.SecurityHooks(z.Context(), z.look.Linux) {
		if err != nil {
			z.Fatal(err)
		}
		if h.LSM != lsm || h.Hook != hook {
			continue
		}
		if f, err := z.look.Linux.Member("security_hook_list", "list"); err == nil { // up to 6.11
			next, link := z.ptr(f.At(h.Addr)), z.ptr(f.At(h.Addr)+8)
			z.put(link, uint64(next))
			if next != 0 {
				z.put(next+8, uint64(link))
			}
			return
		}
		calls := z.ptr(h.Addr + z.offset("security_hook_list", "scalls"))
		for range 16 {
			if z.ptr(calls+z.offset("lsm_static_call", "hl")) == h.Addr {
				z.put(calls+z.offset("lsm_static_call", "hl"), 0)
				return
			}
			size, err := z.look.Linux.StructSize("lsm_static_call")
			if err != nil {
				z.Fatal(err)
			}
			calls += virt.Addr(size)
		}
	}
	z.Fatalf("%s has no hook %s", lsm, hook)
}

// traced is the record of a function that can be traced.
func (z *zoo) traced(function string) *hooks.FtraceSite {
	z.Helper()
	start := z.symbol(function)
	for site, err := range hooks.FtraceRecords(z.Context(), z.look.Linux) {
		if err != nil {
			z.Fatal(err)
		}
		if site.Site >= start && site.Site < start+16 {
			return site
		}
	}
	z.Fatalf("%s cannot be traced", function)
	return nil
}

// tracer is who traces a function.
func (z *zoo) tracer(function string) *hooks.FtraceOp {
	z.Helper()
	site := z.traced(function).Site
	for f, err := range hooks.FtraceOps(z.Context(), z.look.Linux) {
		if err != nil {
			z.Fatal(err)
		}
		for _, ip := range f.Filter {
			if ip == site {
				return f
			}
		}
	}
	z.Fatalf("nobody traces %s", function)
	return nil
}

// branch writes a call or a jump.
func (z *zoo) branch(op byte, at, to virt.Addr) {
	z.Helper()
	z.write(at, binary.LittleEndian.AppendUint32([]byte{op}, uint32(to-at-5)))
}
