/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine that runs a probe's program: what to fetch, and whether to keep it. */
#include <string.h>

#include "plugin.h"

static uint64_t read_register(struct program *p, struct vcpu *v, uint32_t n, bool *fault)
{
	uint64_t value = 0;
	if (!qemu_plugin_read_register || !v->bytes) {
		*fault = true;
		return 0;
	}
	g_byte_array_set_size(v->bytes, 0);
	qemu_plugin_read_register(p->registers[n], v->bytes);
	if (v->bytes->len == 0)
		*fault = true;
	memcpy(&value, v->bytes->data, v->bytes->len < 8 ? v->bytes->len : 8);
	return value;
}

static bool is_set(const struct program *p, uint64_t imm, uint64_t bit)
{
	return bit / 32 < imm >> 32 && p->words[(uint32_t)imm + bit / 32] >> (bit % 32) & 1;
}

static void copy(struct writer *w, struct vcpu *v, uint64_t address, uint64_t length, uint32_t limit, uint8_t tag, bool *fault)
{
	uint32_t room, used = 0;
	uint8_t status = length > limit ? OS_CUT : OS_WHOLE;
	uint32_t want = length > limit ? limit : (uint32_t)length;
	struct os_item *item = writer_item(w, tag, want, &room);
	if (!item)
		return;
	if (room < want) {
		want = room;
		status = OS_CUT;
	}
	while (used < want) { /* page by page, so that what is readable is kept */
		uint32_t n = OS_PAGE - (uint32_t)((address + used) & (OS_PAGE - 1));
		if (n > want - used)
			n = want - used;
		if (!memory_read(w->p, v, address + used, (uint8_t *)(item + 1) + used, n)) {
			status = OS_UNREADABLE;
			*fault = true;
			break;
		}
		used += n;
	}
	writer_item_end(w, item, used, status);
}

static void string(struct writer *w, struct vcpu *v, uint64_t address, uint32_t limit, uint8_t tag, bool *fault)
{
	/*
	 * How long it is shows only when it is there. A ring that has no room for the
	 * longest string loses the record: better than to find out later.
	 */
	uint32_t room;
	bool unreadable, cut;
	struct os_item *item = writer_item(w, tag, limit, &room);
	if (!item)
		return;
	size_t n = memory_string(w->p, v, address, (char *)(item + 1), room, &unreadable, &cut);
	*fault |= unreadable;
	writer_item_end(w, item, (uint32_t)n, unreadable ? OS_UNREADABLE : cut ? OS_CUT : OS_WHOLE);
}

static void mark(struct writer *w, uint8_t tag, uint8_t status)
{
	uint32_t room;
	struct os_item *item = writer_item(w, tag, 0, &room);
	if (item)
		writer_item_end(w, item, 0, status);
}

static void strings(struct writer *w, struct vcpu *v, uint64_t vector, uint32_t width, uint64_t most, uint32_t limit, uint8_t tag, bool *fault)
{
	for (uint64_t i = 0;; i++) {
		uint64_t at = 0;
		if (i == most) {
			mark(w, tag, OS_CUT); /* an item without bytes: there are more strings */
			return;
		}
		if (!memory_read(w->p, v, vector + i * width, &at, width)) {
			*fault = true;
			mark(w, tag, OS_UNREADABLE);
			return;
		}
		if (at == 0)
			return;
		string(w, v, at, limit, tag, fault);
		if (w->full || w->truncated)
			return;
	}
}

static void gather(struct writer *w, struct vcpu *v, uint64_t vector, uint64_t count, uint32_t width, uint32_t limit, uint8_t tag, bool *fault)
{
	uint32_t room, used = 0;
	uint8_t status = OS_WHOLE;
	struct os_item *item = writer_item(w, tag, limit, &room);
	if (!item)
		return;
	if (count > 1024)
		count = 1024; /* UIO_MAXIOV: more is an error in any kernel */
	for (uint64_t i = 0; i < count; i++) {
		uint64_t pair[2] = {0, 0};
		if (!memory_read(w->p, v, vector + 2 * i * width, &pair[0], width) || !memory_read(w->p, v, vector + (2 * i + 1) * width, &pair[1], width)) {
			status = OS_UNREADABLE;
			break;
		}
		uint32_t n = pair[1] > room - used ? room - used : (uint32_t)pair[1];
		if (n > 0 && !memory_read(w->p, v, pair[0], (uint8_t *)(item + 1) + used, n)) {
			status = OS_UNREADABLE;
			break;
		}
		used += n;
		if (n < pair[1]) {
			status = OS_CUT;
			break;
		}
	}
	*fault |= status == OS_UNREADABLE;
	writer_item_end(w, item, used, status);
}

/*
 * forget takes a word away from other vCPUs' threads, which may write it at the same moment: then they write something new,
 * and what was to be forgotten is gone as well.
 */
static void forget(uint32_t word, uint64_t value)
{
	for (unsigned int i = 0; i < n_vcpus; i++) {
		uint64_t old = value, marked = value + 1;
		if (!__atomic_compare_exchange_n(&vcpus[i].scratch[word], &old, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			__atomic_compare_exchange_n(&vcpus[i].scratch[word], &marked, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
}

void machine_run(struct program *p, struct vcpu *v, const struct os_probe *probe, const struct context *c)
{
	uint64_t s[OS_SLOTS];
	struct writer w;
	uint32_t words = 0, hold = 0;
	uint64_t otherwise = 0;
	bool fault = false, begun = false, holds = false;

	memset(s, 0, sizeof s);
	w.ring = NULL;
	/* Every jump goes forward and stays within the code: program_load has seen to it. */
	for (uint32_t pc = probe->entry;; ) {
		const struct os_insn *i = &p->code[pc++];
		uint64_t *dst = &s[i->dst];
		const uint64_t src = s[i->src];
		bool jump = false;
		if (i->op >= OS_PUT && i->op <= OS_VEC && !begun) {
			if (!writer_begin(&w, p, (unsigned int)c->words[OS_CTX_VCPU]))
				return;
			begun = true;
		}
		switch (i->op) {
		case OS_END:
			if (!begun && !writer_begin(&w, p, (unsigned int)c->words[OS_CTX_VCPU]))
				return;
			if (writer_commit(&w, (uint16_t)probe->id, (uint16_t)((fault ? OS_FAULT : 0) | (holds ? OS_WAITS : 0)), words) && holds)
				ring_hold(w.ring, hold, otherwise);
			return;
		case OS_DROP:
			return;
		case OS_IMM:
			*dst = i->imm;
			break;
		case OS_REG:
			*dst = read_register(p, v, i->arg, &fault);
			break;
		case OS_CTX:
			*dst = c->words[i->arg];
			break;
		case OS_ADD:
			*dst = src + i->imm;
			break;
		case OS_ADDS:
			*dst += src;
			break;
		case OS_AND:
			*dst = src & i->imm;
			break;
		case OS_SHL:
			*dst = src << i->arg;
			break;
		case OS_SHR:
			*dst = src >> i->arg;
			break;
		case OS_MUL:
			*dst = src * i->imm;
			break;
		case OS_FAULTED:
			*dst = fault;
			break;
		case OS_LOAD: {
			uint64_t value = 0;
			if (memory_read(p, v, src + i->imm, &value, i->size)) {
				*dst = value;
				break;
			}
			*dst = 0;
			fault = true;
			jump = i->arg != 0;
			break;
		}
		case OS_PUT:
			words += writer_word(&w, src);
			break;
		case OS_COPY:
			copy(&w, v, src, *dst, i->arg, i->size, &fault);
			break;
		case OS_STR:
			string(&w, v, src, i->arg, i->size, &fault);
			break;
		case OS_STRV:
			strings(&w, v, src, i->dst, i->imm, i->arg, i->size, &fault);
			break;
		case OS_VEC:
			gather(&w, v, src, *dst, (uint32_t)i->imm, i->arg, i->size, &fault);
			break;
		case OS_JMP:
			jump = true;
			break;
		case OS_JEQ:
			jump = src == i->imm;
			break;
		case OS_JNE:
			jump = src != i->imm;
			break;
		case OS_JLT:
			jump = src < i->imm;
			break;
		case OS_JGT:
			jump = src > i->imm;
			break;
		case OS_JSET:
			jump = (src & i->imm) != 0;
			break;
		case OS_JSAME:
			jump = src == *dst;
			break;
		case OS_JBIT:
			jump = is_set(p, i->imm, src);
			break;
		case OS_TABLE:
			if (src < i->imm >> 32 && p->words[(uint32_t)i->imm + src])
				pc = p->words[(uint32_t)i->imm + src];
			break;
		case OS_VGET:
			*dst = v->scratch[i->arg];
			break;
		case OS_VSET:
			v->scratch[i->arg] = src;
			break;
		case OS_VFORGET:
			forget(i->arg, src);
			break;
		case OS_HOLD:
			holds = true;
			hold = i->arg;
			otherwise = i->imm;
			break;
		}
		if (jump)
			pc = i->arg;
	}
}
