/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Gates: a word for each vCPU that translated code looks at by itself, so that a place that has nothing to do most of the
 * time costs no callback. QEMU has the words, and moves them only while no vCPU runs.
 */
#include "plugin.h"

static struct qemu_plugin_scoreboard *gates; /* uint64_t: 0 is shut */

/* gate_init says whether this QEMU has gates: its conditional callbacks came with 9.1. */
bool gate_init(void)
{
	if (api_version < 3 || !qemu_plugin_scoreboard_new || !qemu_plugin_scoreboard_find || !qemu_plugin_register_vcpu_insn_exec_cond_cb ||
	    !qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu)
		return false;
	gates = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	return gates != NULL;
}

void gate_set(unsigned int vcpu, bool open)
{
	if (gates)
		*(uint64_t *)qemu_plugin_scoreboard_find(gates, vcpu) = open;
}

/* gate_opens has an instruction open the gate of its vCPU. */
void gate_opens(struct qemu_plugin_insn *insn)
{
	if (gates)
		qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, QEMU_PLUGIN_INLINE_STORE_U64, (qemu_plugin_u64){gates, 0}, 1);
}

/* gate_guards calls back before an instruction while the gate is open; false: there are no gates. */
bool gate_guards(struct qemu_plugin_insn *insn, vcpu_udata_cb cb, void *data)
{
	if (!gates)
		return false;
	qemu_plugin_register_vcpu_insn_exec_cond_cb(insn, cb, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_COND_NE, (qemu_plugin_u64){gates, 0}, 0, data);
	return true;
}
