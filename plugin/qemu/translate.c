/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where callbacks go: QEMU shows each block of code before it runs for the first time. A callback's data is packed into its
 * pointer, 16 bits for the probe (or the code segment of a system call) and 48 for the address, so that nothing has to be kept for each place:
 * every process maps its libraries elsewhere.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

#define ADDRESS_BITS 48
#define PAGES_SEEN (1u << 18)

static void *pack(uint32_t probe, uint64_t address)
{
	return (void *)(uintptr_t)((uint64_t)probe << ADDRESS_BITS | (address & ((1ull << ADDRESS_BITS) - 1)));
}

static uint32_t probe_of(void *data) { return (uint32_t)((uint64_t)(uintptr_t)data >> ADDRESS_BITS); }

static uint64_t address_of(void *data) { return (uint64_t)((int64_t)((uint64_t)(uintptr_t)data << (64 - ADDRESS_BITS)) >> (64 - ADDRESS_BITS)); }

static void run(unsigned int vcpu, struct context *c, uint32_t probe)
{
	struct program *p = running;
	if (!p || __atomic_load_n(&muted, __ATOMIC_RELAXED) || vcpu >= n_vcpus || probe >= p->counts.probes)
		return;
	c->words[OS_CTX_VCPU] = vcpu;
	machine_run(p, &vcpus[vcpu], &p->probes[probe], c);
}

static void at_address(unsigned int vcpu, void *data)
{
	struct context c = {0};
	c.words[OS_CTX_PC] = address_of(data);
	run(vcpu, &c, probe_of(data));
}

/* For each system call instruction every probe of its kind runs. */
static inline void at_syscall(unsigned int vcpu, uint32_t bit, void *data)
{
	struct program *p = running;
	if (!p)
		return;
	struct context c = {0};
	c.words[OS_CTX_PC] = address_of(data);
	c.words[OS_CTX_KIND] = 1u << bit;
	c.words[OS_CTX_CODE] = probe_of(data);
	for (uint32_t i = 0; i < p->n_at_syscall[bit]; i++)
		run(vcpu, &c, p->at_syscall[bit][i]);
}

static void at_syscall64(unsigned int vcpu, void *data) { at_syscall(vcpu, 0, data); }
static void at_sysenter(unsigned int vcpu, void *data) { at_syscall(vcpu, 1, data); }
static void at_int80(unsigned int vcpu, void *data) { at_syscall(vcpu, 2, data); }

static void at_return(unsigned int vcpu, void *data)
{
	struct context c = {0};
	run(vcpu, &c, probe_of(data));
}

void translate_sleep(unsigned int vcpu, bool wakes)
{
	struct program *p = running;
	for (uint32_t i = 0; p && p->sleeps && i < p->counts.probes; i++) {
		if (p->probes[i].where != OS_AT_SLEEP)
			continue;
		struct context c = {.asleep = true};
		c.words[OS_CTX_VALUE] = wakes;
		run(vcpu, &c, i);
	}
}

/* GDB's order of registers is the order of their numbers in QEMU's list: rax, rbx, rcx, rdx … */
static const char *const general[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"};
static struct qemu_plugin_register *general_handles[16], *segment_handle;

static void at_control(unsigned int vcpu, void *data)
{
	struct context c = {0};
	bool fault = false;
	uint32_t from = (uint32_t)address_of(data) & 15;
	if (vcpu >= n_vcpus || !general_handles[from])
		return;
	c.words[OS_CTX_VALUE] = register_read(&vcpus[vcpu], general_handles[from], &fault);
	if (fault)
		return;
	struct program *p = running;
	if (p && probe_of(data) < p->counts.probes)
		c.words[OS_CTX_KIND] = p->probes[probe_of(data)].arg;
	run(vcpu, &c, probe_of(data));
}

static void at_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
	struct program *p = running;
	uint64_t size = 1ull << qemu_plugin_mem_size_shift(info);
	if (!p || address > p->write_high || address + size <= p->write_low)
		return;
	for (uint32_t i = 0; i < p->counts.probes; i++) {
		const struct os_probe *probe = &p->probes[i];
		if (probe->where != OS_AT_WRITE || address >= probe->address + probe->length || address + size <= probe->address)
			continue;
		struct context c = {0};
		c.words[OS_CTX_PC] = (uint64_t)(uintptr_t)data;
		c.words[OS_CTX_ADDRESS] = address;
		c.words[OS_CTX_SIZE] = size;
		if (qemu_plugin_mem_get_value) {
			qemu_plugin_mem_value value = qemu_plugin_mem_get_value(info);
			c.words[OS_CTX_VALUE] = size >= 8 ? value.data.u64 : value.data.u64 & ((1ull << size * 8) - 1);
		}
		run(vcpu, &c, i);
	}
}

/* Pages that ran: by where this process has them, with a hash of their bytes. Translation runs in several threads. */
static pthread_mutex_t pages_lock = PTHREAD_MUTEX_INITIALIZER;
static struct page {
	uintptr_t at;
	uint64_t hash; /* with which it was reported last */
} *pages;

static uint64_t hash_page(const uint64_t *words)
{
	uint64_t a = 0x9e3779b97f4a7c15ull, b = a, c = a, d = a;
	for (int i = 0; i < 512; i += 4) {
		a = (a ^ words[i]) * 0xff51afd7ed558ccdull;
		b = (b ^ words[i + 1]) * 0xff51afd7ed558ccdull;
		c = (c ^ words[i + 2]) * 0xff51afd7ed558ccdull;
		d = (d ^ words[i + 3]) * 0xff51afd7ed558ccdull;
		a ^= a >> 29, b ^= b >> 31, c ^= c >> 33, d ^= d >> 35;
	}
	return (a ^ b * 3 ^ c * 5 ^ d * 7) | 1;
}

/* seen says whether this page was reported with these bytes, and remembers that it was. */
static bool seen(uintptr_t page, uint64_t hash)
{
	bool known = false;
	uint64_t slot = page * 0x9e3779b97f4a7c15ull >> 46;
	pthread_mutex_lock(&pages_lock);
	for (int i = 0; i < 32 && pages; i++) {
		struct page *p = &pages[(slot + i) % PAGES_SEEN];
		if (p->at != 0 && p->at != page && i < 31)
			continue;
		/* Free, this page, or the end of the search: then an old page makes room, and may be reported again. */
		known = p->at == page && p->hash == hash;
		p->at = page;
		p->hash = hash;
		break;
	}
	pthread_mutex_unlock(&pages_lock);
	return known;
}

static void at_new_page(unsigned int vcpu, void *data)
{
	struct program *p = running;
	if (!p || vcpu >= n_vcpus)
		return;
	uint64_t pc = address_of(data), bytes[512];
	struct context c = {0};
	c.words[OS_CTX_PC] = pc;
	if (memory_read(p, &vcpus[vcpu], pc & ~(uint64_t)(OS_PAGE - 1), bytes, sizeof bytes)) {
		uint64_t hash = hash_page(bytes);
		if (seen((uintptr_t)(pc >> 12 | 1ull << 60), hash)) /* once for each run of this block */
			return;
		c.words[OS_CTX_HASH] = hash;
	}
	for (uint32_t i = 0; i < p->counts.probes; i++)
		if (p->probes[i].where == OS_AT_NEW_PAGE)
			run(vcpu, &c, i);
}

/* The probes at an address, or at a physical one, by a first look at the page. */
static uint64_t key_of_page(uint64_t address) { return address >> 12 | 1ull << 63; }

static bool page_has_probes(const struct program *p, uint64_t key)
{
	for (uint64_t i = key * 0x9e3779b97f4a7c15ull >> 40;; i++) {
		uint64_t at = p->pages[i & p->pages_mask];
		if (at == key)
			return true;
		if (at == 0)
			return false;
	}
}

static void add_page(struct program *p, uint64_t key)
{
	uint64_t i = key * 0x9e3779b97f4a7c15ull >> 40;
	while (p->pages[i & p->pages_mask] != 0 && p->pages[i & p->pages_mask] != key)
		i++;
	p->pages[i & p->pages_mask] = key;
}

static uint64_t place(const struct program *p, uint32_t probe)
{
	const struct os_probe *at = &p->probes[probe];
	if (at->where == OS_AT_ADDRESS)
		return at->address;
	for (uint32_t k = 0; k < p->counts.windows; k++)
		if (at->address - p->windows[k].physical < p->windows[k].size && p->homes[k] != 0)
			return p->homes[k] + (at->address - p->windows[k].physical);
	return 0;
}

static struct program *sorting; /* only one program is prepared at a time */

static int by_place(const void *a, const void *b)
{
	uint64_t x = place(sorting, *(const uint32_t *)a), y = place(sorting, *(const uint32_t *)b);
	return x < y ? -1 : x > y;
}

bool translate_prepare(struct program *p)
{
	uint32_t size = 64;
	while (size < 4 * p->counts.probes)
		size *= 2;
	p->pages = calloc(size, sizeof *p->pages);
	p->pages_mask = size - 1;
	p->by_address = calloc(p->counts.probes + 1, sizeof *p->by_address);
	if (!p->pages || !p->by_address)
		return false;
	p->write_low = UINT64_MAX;
	for (uint32_t i = 0; i < p->counts.probes; i++) {
		const struct os_probe *probe = &p->probes[i];
		switch (probe->where) {
		case OS_AT_SYSCALL:
			p->syscall_kinds |= probe->arg;
			for (uint32_t bit = 0; bit < 3; bit++)
				if (probe->arg >> bit & 1)
					p->at_syscall[bit][p->n_at_syscall[bit]++] = i;
			break;
		case OS_AT_ADDRESS:
		case OS_AT_PHYSICAL:
			p->by_address[p->n_by_address++] = i;
			add_page(p, key_of_page(place(p, i)));
			break;
		case OS_AT_WRITE:
			p->writes = true;
			if (probe->address < p->write_low)
				p->write_low = probe->address;
			if (probe->address + (probe->length - 1) > p->write_high)
				p->write_high = probe->address + (probe->length - 1);
			break;
		case OS_AT_CONTROL:
			p->control_registers |= 1u << probe->arg;
			break;
		case OS_AT_NEW_PAGE:
			p->new_pages = true;
			break;
		case OS_AT_RETURN:
			p->returns = true;
			break;
		case OS_AT_SLEEP:
			p->sleeps = true;
			break;
		}
	}
	sorting = p;
	qsort(p->by_address, p->n_by_address, sizeof *p->by_address, by_place);
	for (int i = 0; i < 16; i++)
		general_handles[i] = register_by_name(general[i]);
	segment_handle = register_by_name("cs");
	if (p->new_pages && !pages)
		pages = calloc(PAGES_SEEN, sizeof *pages);
	return true;
}

void translate_forget(struct program *p)
{
	free(p->pages);
	free(p->by_address);
}

static void probe_place(struct program *p, struct qemu_plugin_insn *insn, uint64_t at, uint64_t pc, uint32_t where)
{
	uint32_t low = 0, high = p->n_by_address;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (place(p, p->by_address[middle]) < at)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < p->n_by_address && place(p, p->by_address[low]) == at; low++) {
		const struct os_probe *probe = &p->probes[p->by_address[low]];
		void *data = pack(p->by_address[low], pc);
		if (probe->where != where)
			continue;
		if (where == OS_AT_ADDRESS && probe->arg & OS_OPENS)
			gate_opens(insn);
		else if (where != OS_AT_ADDRESS || !(probe->arg & OS_GATED) || !gate_guards(insn, at_address, data))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_address, QEMU_PLUGIN_CB_R_REGS, data);
	}
}

/* bytes_of returns an instruction's first bytes, by the interface of any version. */
static size_t bytes_of(struct qemu_plugin_insn *insn, uint8_t *to, size_t limit)
{
	size_t size = qemu_plugin_insn_size(insn), n = size < limit ? size : limit;
	memset(to, 0, limit);
	size_t got = qemu_plugin_insn_data(insn, to, n);
	if (api_version < 3)
		memcpy(to, (const void *)got, n);
	return size;
}

/*
 * code_segment is the selector of the code segment of what is translated. Code of 32 and of 64 bits is translated apart, so that whether it is
 * the one or the other stays what it is, and need not be asked for at each run: to read a segment register takes long. A QEMU that shows
 * no registers here says 0.
 */
static uint32_t code_segment(void)
{
	static __thread struct vcpu here; /* vCPUs translate in their own threads */
	bool fault = false;
	if (!segment_handle)
		return 0;
	if (!here.bytes)
		here.bytes = g_byte_array_new();
	uint64_t selector = register_read(&here, segment_handle, &fault);
	return fault ? 0 : (uint32_t)selector & 0xffff;
}

static void instruction(struct program *p, struct qemu_plugin_insn *insn)
{
	uint8_t b[16];
	size_t size = bytes_of(insn, b, sizeof b), i = 0;
	uint64_t pc = qemu_plugin_insn_vaddr(insn);
	if (b[0] == 0xcd && b[1] == 0x80 && size == 2) {
		if (p->syscall_kinds & OS_INT80)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_int80, QEMU_PLUGIN_CB_R_REGS, pack(code_segment(), pc));
		return;
	}
	uint8_t rex = 0;
	while (i + 3 < size && (b[i] == 0x66 || b[i] == 0xf2 || b[i] == 0xf3 || b[i] == 0xf0 || (b[i] & 0xf0) == 0x40)) {
		if ((b[i] & 0xf0) == 0x40)
			rex = b[i];
		i++;
	}
	if (size >= 2 && b[size - 2] == 0x0f && (b[size - 1] == 0x05 || b[size - 1] == 0x34) && i + 2 >= size - (size > 2)) {
		bool old = b[size - 1] == 0x34;
		if (p->syscall_kinds & (old ? OS_SYSENTER : OS_SYSCALL))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, old ? at_sysenter : at_syscall64, QEMU_PLUGIN_CB_R_REGS, pack(code_segment(), pc));
		return;
	}
	if (b[i] != 0x0f || b[i + 1] != 0x22 || p->control_registers == 0)
		return;
	uint32_t reg = (b[i + 2] >> 3 & 7) | (rex & 4 ? 8 : 0), from = (b[i + 2] & 7) | (rex & 1 ? 8 : 0);
	for (uint32_t k = 0; k < p->counts.probes; k++)
		if (p->probes[k].where == OS_AT_CONTROL && p->probes[k].arg == reg)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, at_control, QEMU_PLUGIN_CB_R_REGS, pack(k, from));
}

/*
 * A turnstile is an instruction that each vCPU comes by many times a second, and that costs nothing beside what it does itself:
 * the return from an interrupt.
 */
static void at_turnstile(unsigned int vcpu, void *data)
{
	(void)vcpu, (void)data;
	change_if_pending();
}

static void turnstile(struct program *p, struct qemu_plugin_insn *last)
{
	uint8_t b[16];
	size_t size = bytes_of(last, b, sizeof b);
	if (size == 0 || size > 2 || b[size - 1] != 0xcf) /* iret, iretq */
		return;
	qemu_plugin_register_vcpu_insn_exec_cb(last, at_turnstile, QEMU_PLUGIN_CB_NO_REGS, NULL);
	for (uint32_t k = 0; p && p->returns && k < p->counts.probes; k++)
		if (p->probes[k].where == OS_AT_RETURN)
			qemu_plugin_register_vcpu_insn_exec_cb(last, at_return, QEMU_PLUGIN_CB_R_REGS, pack(k, 0));
}

void translate(struct qemu_plugin_tb *tb)
{
	struct program *p = running;
	size_t n = qemu_plugin_tb_n_insns(tb);
	change_if_pending();
	if (n > 0)
		turnstile(p, qemu_plugin_tb_get_insn(tb, n - 1));
	if (!p)
		return;
	bool decode = p->syscall_kinds != 0 || p->control_registers != 0;
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t pc = qemu_plugin_insn_vaddr(insn);
		uint64_t host = (uint64_t)(uintptr_t)qemu_plugin_insn_haddr(insn);
		if (i == 0 && p->new_pages && host != 0) {
			const uint64_t *page = (const uint64_t *)(uintptr_t)(host & ~(uint64_t)(OS_PAGE - 1));
			uint64_t hash = hash_page(page);
			if (!seen((uintptr_t)page, hash))
				qemu_plugin_register_vcpu_insn_exec_cb(insn, at_new_page, QEMU_PLUGIN_CB_R_REGS, pack(0, pc));
		}
		if (p->n_by_address > 0) {
			if (page_has_probes(p, key_of_page(pc)))
				probe_place(p, insn, pc, pc, OS_AT_ADDRESS);
			if (page_has_probes(p, key_of_page(host)))
				probe_place(p, insn, host, pc, OS_AT_PHYSICAL);
		}
		if (decode)
			instruction(p, insn);
		if (p->writes)
			qemu_plugin_register_vcpu_mem_cb(insn, at_access, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_MEM_W, (void *)(uintptr_t)pc);
	}
}
