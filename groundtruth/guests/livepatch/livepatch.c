// SPDX-License-Identifier: Apache-2.0
// A live patch that replaces a function of the kernel by one that does the same, as patches of
// distributions do. It is what a busy guest loads and takes away again.
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/utsname.h>

static int patched_show(struct seq_file *m, void *v)
{
	seq_printf(m, "%s version %s (live patch) %s\n", utsname()->sysname,
		   utsname()->release, utsname()->version);
	return 0;
}

static struct klp_func functions[] = {
	{ .old_name = "version_proc_show", .new_func = patched_show },
	{ }
};

static struct klp_object objects[] = { { .funcs = functions }, { } };

static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objects };

static int __init livepatch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit livepatch_exit(void)
{
}

module_init(livepatch_init);
module_exit(livepatch_exit);
MODULE_INFO(livepatch, "Y");
/* What modules of this licence may use, a live patch needs. */
MODULE_LICENSE("Dual MIT/GPL");
