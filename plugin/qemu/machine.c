/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The machine that runs a probe's program: what to fetch, and whether to keep it. */
#include <string.h>

#include "plugin.h"

/* What is long and rare stays out of machine_run: it would take the registers that the machine's own state is to be in. */
#define APART __attribute__((noinline))

/* The array is QEMU's caller's, and so is its length: to set it here spares a call. */
uint64_t register_read(struct vcpu *v, struct qemu_plugin_register *r, bool *fault)
{
	uint64_t value = 0;
	if (!qemu_plugin_read_register || !v->bytes) {
		*fault = true;
		return 0;
	}
	v->bytes->len = 0;
	qemu_plugin_read_register(r, v->bytes);
	if (v->bytes->len >= 8)
		memcpy(&value, v->bytes->data, 8);
	else if (v->bytes->len > 0)
		memcpy(&value, v->bytes->data, v->bytes->len);
	else
		*fault = true;
	return value;
}

static bool is_set(const struct program *p, uint64_t imm, uint64_t bit)
{
	return bit / 32 < imm >> 32 && p->words[(uint32_t)imm + bit / 32] >> (bit % 32) & 1;
}

/* read_pages reads page by page, so that what is readable is kept, and returns how much that is. */
static uint32_t read_pages(struct program *p, struct vcpu *v, uint64_t address, uint8_t *into, uint32_t want)
{
	uint32_t used = 0;
	while (used < want) {
		uint32_t n = OS_PAGE - (uint32_t)((address + used) & (OS_PAGE - 1));
		if (n > want - used)
			n = want - used;
		if (!memory_read(p, v, address + used, into + used, n))
			break;
		used += n;
	}
	return used;
}

static APART void copy(struct writer *w, struct vcpu *v, uint64_t address, uint64_t length, uint32_t limit, uint8_t tag, bool *fault)
{
	uint32_t room;
	uint8_t status = length > limit ? OS_CUT : OS_WHOLE;
	uint32_t want = length > limit ? limit : (uint32_t)length;
	struct os_item *item = writer_item(w, tag, want, &room);
	if (!item)
		return;
	if (room < want) {
		want = room;
		status = OS_CUT;
	}
	uint32_t used = read_pages(w->p, v, address, (uint8_t *)(item + 1), want);
	if (used < want) {
		status = OS_UNREADABLE;
		*fault = true;
	}
	writer_item_end(w, item, used, status);
}

static APART void string(struct writer *w, struct vcpu *v, uint64_t address, uint32_t limit, uint8_t tag, bool *fault)
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

static APART void mark(struct writer *w, uint8_t tag, uint8_t status)
{
	uint32_t room;
	struct os_item *item = writer_item(w, tag, 0, &room);
	if (item)
		writer_item_end(w, item, 0, status);
}

static APART void strings(struct writer *w, struct vcpu *v, uint64_t vector, uint32_t width, uint64_t most, uint32_t limit, uint8_t tag, bool *fault)
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

static APART void gather(struct writer *w, struct vcpu *v, uint64_t vector, uint64_t count, uint32_t width, uint32_t limit, uint8_t tag, bool *fault)
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
		uint32_t got = read_pages(w->p, v, pair[0], (uint8_t *)(item + 1) + used, n);
		used += got;
		if (got < n) {
			status = OS_UNREADABLE;
			break;
		}
		if (n < pair[1]) {
			status = OS_CUT;
			break;
		}
	}
	*fault |= status == OS_UNREADABLE;
	writer_item_end(w, item, used, status);
}

/* last finds the last word that is not zero. Tables of pages are most often full at the end: it looks from there. */
static APART uint64_t last(struct program *p, struct vcpu *v, uint64_t address, uint32_t words, bool *fault)
{
	uint64_t buffer[32];
	while (words > 0) {
		uint32_t n = words < 32 ? words : 32;
		words -= n;
		if (!memory_read(p, v, address + words * 8ull, buffer, n * 8ull)) {
			*fault = true;
			return 0;
		}
		while (n-- > 0)
			if (buffer[n])
				return address + (words + n) * 8ull;
	}
	return 0;
}

/*
 * forget takes a word away from other vCPUs' threads, which may write it at the same moment: then they write something new,
 * and what was to be forgotten is gone as well.
 */
static APART void forget(uint32_t word, uint64_t value)
{
	for (unsigned int i = 0; i < n_vcpus; i++) {
		uint64_t old = value, marked = value + 1;
		if (!__atomic_compare_exchange_n(&vcpus[i].scratch[word], &old, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			__atomic_compare_exchange_n(&vcpus[i].scratch[word], &marked, 0, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	}
}

/* begin starts the record with the first thing that goes into it; false: this vCPU has no ring. */
static inline bool begin(struct writer *w, struct program *p, struct vcpu *v, const struct context *c)
{
	return w->ring || writer_begin(w, p, v, (unsigned int)c->words[OS_CTX_VCPU]);
}

/*
 * Each operation ends with a jump of its own to the next one, which a processor foresees: that halves what a program costs. Compilers
 * join these jumps again unless they are told not to (-fno-gcse -fno-crossjumping).
 * Every jump of a program goes forward and stays within the code: program_load has seen to it.
 */
#define NEXT do { i = pc++; goto *operations[i->op]; } while (0)
#define JUMP_IF(condition) do { if (condition) pc = code + i->arg; NEXT; } while (0)
#define BEGIN do { if (!begin(&w, p, v, c)) return; } while (0)
#define DST s[i->dst]
#define SRC s[i->src]

void machine_run(struct program *p, struct vcpu *v, const struct os_probe *probe, const struct context *c)
{
	static const void *const operations[OS_OPS] = {
		[OS_END] = &&end, [OS_DROP] = &&drop, [OS_IMM] = &&imm, [OS_REG] = &&reg, [OS_CTX] = &&ctx, [OS_ADD] = &&add,
		[OS_ADDS] = &&adds, [OS_AND] = &&and, [OS_SHL] = &&shl, [OS_SHR] = &&shr, [OS_MUL] = &&mul, [OS_FAULTED] = &&faulted,
		[OS_LOAD] = &&load, [OS_PUT] = &&put, [OS_PUTN] = &&putn, [OS_COPY] = &&copy, [OS_STR] = &&str, [OS_STRV] = &&strv,
		[OS_VEC] = &&vec, [OS_JMP] = &&jmp, [OS_JEQ] = &&jeq, [OS_JNE] = &&jne, [OS_JLT] = &&jlt, [OS_JGT] = &&jgt,
		[OS_JSET] = &&jset, [OS_JSAME] = &&jsame, [OS_JBIT] = &&jbit, [OS_TABLE] = &&table, [OS_VGET] = &&vget,
		[OS_VSET] = &&vset, [OS_VGETN] = &&vgetn, [OS_VSETN] = &&vsetn, [OS_VFORGET] = &&vforget, [OS_HOLD] = &&hold,
		[OS_GATE] = &&gate, [OS_LAST] = &&last, [OS_ASIDE] = &&aside,
	};
	const struct os_insn *const code = p->code, *pc = code + probe->entry, *i;
	/* A string instruction, which compilers take to clear this, has a start that costs as much as all the rest. */
	typedef uint64_t pair __attribute__((vector_size(16)));
	union {
		pair pairs[OS_SLOTS / 2];
		uint64_t words[OS_SLOTS];
	} slots;
#pragma GCC unroll 16
	for (uint32_t k = 0; k < OS_SLOTS / 2; k++)
		slots.pairs[k] = (pair){0, 0};
	uint64_t *const s = slots.words;
	struct writer w = {.ring = NULL};
	uint32_t words = 0;
	const struct os_insn *holds = NULL;
	bool fault = false;

	NEXT;
end:
	BEGIN;
	if (writer_commit(&w, (uint16_t)probe->id, (uint16_t)((fault ? OS_FAULT : 0) | (holds ? OS_WAITS : 0)), words) && holds)
		ring_hold(w.ring, holds->arg, holds->imm);
	return;
drop:
	return;
imm:
	DST = i->imm;
	NEXT;
reg:
	DST = register_read(v, p->registers[i->arg], &fault);
	NEXT;
ctx:
	DST = c->words[i->arg];
	NEXT;
add:
	DST = SRC + i->imm;
	NEXT;
adds:
	DST += SRC;
	NEXT;
and:
	DST = SRC & i->imm;
	NEXT;
shl:
	DST = SRC << i->arg;
	NEXT;
shr:
	DST = SRC >> i->arg;
	NEXT;
mul:
	DST = SRC * i->imm;
	NEXT;
faulted:
	DST = fault;
	NEXT;
load: {
	uint64_t at = SRC + i->imm, value = 0;
	const uint8_t *direct = i->size == 8 ? direct_memory(p, at, 8) : NULL;
	if (__builtin_expect(direct != NULL, 1)) {
		memcpy(&DST, direct, 8);
		NEXT;
	}
	if (memory_read(p, v, at, &value, i->size)) {
		DST = value;
		NEXT;
	}
	DST = 0;
	fault = true;
	JUMP_IF(i->arg != 0);
}
put:
	BEGIN;
	words += writer_words(&w, &SRC, 1);
	NEXT;
putn:
	BEGIN;
	words += writer_words(&w, &SRC, i->arg);
	NEXT;
copy:
	BEGIN;
	copy(&w, v, SRC, DST, i->arg, i->size, &fault);
	NEXT;
str:
	BEGIN;
	string(&w, v, SRC, i->arg, i->size, &fault);
	NEXT;
strv:
	BEGIN;
	strings(&w, v, SRC, i->dst, i->imm, i->arg, i->size, &fault);
	NEXT;
vec:
	BEGIN;
	gather(&w, v, SRC, DST, (uint32_t)i->imm, i->arg, i->size, &fault);
	NEXT;
jmp:
	JUMP_IF(true);
jeq:
	JUMP_IF(SRC == i->imm);
jne:
	JUMP_IF(SRC != i->imm);
jlt:
	JUMP_IF(SRC < i->imm);
jgt:
	JUMP_IF(SRC > i->imm);
jset:
	JUMP_IF((SRC & i->imm) != 0);
jsame:
	JUMP_IF(SRC == DST);
jbit:
	JUMP_IF(is_set(p, i->imm, SRC));
table:
	if (SRC < i->imm >> 32 && p->words[(uint32_t)i->imm + SRC])
		pc = code + p->words[(uint32_t)i->imm + SRC];
	NEXT;
vget:
	DST = v->scratch[i->arg];
	NEXT;
vset:
	v->scratch[i->arg] = SRC;
	NEXT;
vgetn:
	for (uint64_t k = 0; k < i->imm; k++)
		s[i->dst + k] = v->scratch[i->arg + k];
	NEXT;
vsetn:
	for (uint64_t k = 0; k < i->imm; k++)
		v->scratch[i->arg + k] = s[i->src + k];
	NEXT;
vforget:
	forget(i->arg, SRC);
	NEXT;
hold:
	holds = c->asleep ? NULL : i;
	NEXT;
gate:
	gate_set((unsigned int)c->words[OS_CTX_VCPU], i->arg != 0);
	NEXT;
last:
	DST = last(p, v, SRC, i->arg, &fault);
	NEXT;
aside:
	w.aside = true;
	NEXT;
}
