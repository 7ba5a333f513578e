/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the plugin share. */
#ifndef OUTSIGHT_PLUGIN_H
#define OUTSIGHT_PLUGIN_H

#include "api.h"
#include "protocol.h"

#define MAX_VCPUS 256u
#define MAX_DIRECT 128u
#define MAX_SYSCALL_PROBES 16u

/* A program that was checked, with all that it refers to. It never changes while it runs. */
struct program {
	struct os_program counts;
	const struct os_probe *probes;
	const struct os_insn *code;
	const struct os_linear *linears;
	struct os_window *windows; /* host is an address in this process */
	uint64_t homes[OS_MAX_RANGES]; /* of windows: the address that QEMU has; 0: not found */
	struct direct { uint64_t address, size, host; } direct[MAX_DIRECT]; /* linears through windows */
	uint32_t n_direct;
	const uint32_t *words;
	struct qemu_plugin_register *registers[OS_MAX_REGISTERS];
	void *image;
	struct { void *address; size_t size; } maps[OS_MAX_RANGES + 1]; /* the rings first */

	struct os_header *header;
	struct os_ring *rings;
	uint8_t *data;
	uint32_t n_rings;
	uint64_t ring_size;

	/* What to look for in code that is translated. */
	uint32_t syscall_kinds;
	uint32_t control_registers; /* bit n: register n */
	bool writes, new_pages, returns, sleeps;
	uint64_t write_low, write_high;
	uint32_t at_syscall[3][MAX_SYSCALL_PROBES], n_at_syscall[3]; /* by kind: bit 0, 1, 2 */
	uint64_t *pages; /* of addresses and of physical addresses, as host addresses: open addressing */
	uint32_t pages_mask;
	uint32_t *by_address; /* probes at addresses, sorted by address */
	uint32_t n_by_address;
};

/* What the running program has for each vCPU. Only that vCPU's thread touches it. */
struct vcpu {
	GByteArray *bytes;
	uint64_t tail; /* of its ring, as it was when it was last looked at: the monitor's cache line is left alone */
	uint64_t scratch[OS_SCRATCH];
};

/* What a callback knows of the place where it was called. */
struct context {
	uint64_t words[OS_CTX_WORDS];
	bool asleep; /* the vCPU does not run: nothing may wait */
};

/* Where this process has length bytes at a virtual address; NULL: in no window. They lie in one piece, or nowhere. */
static inline const uint8_t *direct_memory(const struct program *p, uint64_t address, size_t length)
{
	for (uint32_t i = 0; i < p->n_direct; i++) {
		const struct direct *d = &p->direct[i];
		uint64_t at = address - d->address;
		if (at < d->size && d->size - at >= length)
			return (const uint8_t *)(uintptr_t)(d->host + at);
	}
	return NULL;
}

/* machine.c */
void machine_run(struct program *p, struct vcpu *v, const struct os_probe *probe, const struct context *c);
uint64_t register_read(struct vcpu *v, struct qemu_plugin_register *r, bool *fault);

/* memory.c */
bool memory_read(struct program *p, struct vcpu *v, uint64_t address, void *to, size_t length);
size_t memory_string(struct program *p, struct vcpu *v, uint64_t address, char *to, size_t limit, bool *unreadable, bool *cut);

/* ring.c */
struct writer {
	struct program *p;
	struct os_ring *ring;
	uint8_t *base;
	uint64_t head;   /* where the record begins */
	uint64_t unread; /* bytes that the monitor has not read */
	uint32_t used, room;
	bool full, truncated;
	bool aside;
};
bool writer_begin(struct writer *w, struct program *p, struct vcpu *v, unsigned int vcpu);
uint32_t writer_words(struct writer *w, const uint64_t *values, uint32_t n);
struct os_item *writer_item(struct writer *w, uint8_t tag, uint32_t limit, uint32_t *room);
void writer_item_end(struct writer *w, struct os_item *item, uint32_t length, uint8_t status);
uint64_t writer_commit(struct writer *w, uint16_t probe, uint16_t flags, uint32_t words);
void ring_hold(struct os_ring *ring, uint32_t microseconds, uint64_t otherwise);
void ring_release_all(struct program *p);
void ring_clock(struct program *p);
uint64_t ring_ticks(void);

/* program.c */
struct program *program_load(const void *image, size_t size, const int *files, unsigned int n_files, char *why, size_t why_size);
void program_free(struct program *p);

/* translate.c */
void translate(struct qemu_plugin_tb *tb);
bool translate_prepare(struct program *p);
void translate_forget(struct program *p);
void translate_sleep(unsigned int vcpu, bool wakes);

/* control.c */
bool control_start(const char *path, const struct os_hello *h);

/* gate.c */
bool gate_init(void);
void gate_set(unsigned int vcpu, bool open);
void gate_opens(struct qemu_plugin_insn *insn);
bool gate_guards(struct qemu_plugin_insn *insn, vcpu_udata_cb cb, void *data);

/* plugin.c */
extern struct program *running; /* changes only while no vCPU runs */
extern struct vcpu *vcpus;
extern unsigned int n_vcpus;       /* that there can be */
extern unsigned int started_vcpus; /* that there have been */
extern int api_version;
struct qemu_plugin_register *register_by_name(const char *name);
size_t register_names(char *to, size_t size, uint32_t *count);
extern bool muted; /* nobody reads: no record is made */
void change_if_pending(void);          /* by a vCPU: lets a new program in */
void program_want(struct program *p);  /* NULL: none */
void program_clock(void); /* tells its readers what time it is */
bool program_runs(unsigned int milliseconds); /* waits for it */

#endif
