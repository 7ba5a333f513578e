/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs as they arrive. The monitor is trusted as far as its uid goes, but a mistake of its own must not bring
 * the machine down: everything is checked here, once, so that machine.c needs to check nothing.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "plugin.h"

#define MAX_POPULATED (256u << 20)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define FAIL(...) do { snprintf(why, why_size, __VA_ARGS__); return false; } while (0)

static bool check_code(struct program *p, char *why, size_t why_size)
{
	const struct os_program *c = &p->counts;
	for (uint32_t n = 0; n < c->code; n++) {
		const struct os_insn *i = &p->code[n];
		if (i->op >= OS_OPS || i->dst >= OS_SLOTS || i->src >= OS_SLOTS)
			FAIL("instruction %u: invalid operation %u or slots %u, %u", n, i->op, i->dst, i->src);
		bool jumps = i->op >= OS_JMP && i->op <= OS_JBIT;
		if (i->op == OS_LOAD && i->arg != 0)
			jumps = true;
		if (jumps && (i->arg <= n || i->arg >= c->code))
			FAIL("instruction %u: jump to %u does not go forward", n, i->arg);
		bool table = i->op == OS_TABLE || i->op == OS_JBIT;
		if (table && (uint64_t)(uint32_t)i->imm + (i->imm >> 32) > c->words)
			FAIL("instruction %u: table of %llu words at %u does not fit", n, (unsigned long long)(i->imm >> 32), (uint32_t)i->imm);
		if (i->op == OS_TABLE)
			for (uint32_t k = 0; k < i->imm >> 32; k++) {
				uint32_t to = p->words[(uint32_t)i->imm + k];
				if (to != 0 && (to <= n || to >= c->code))
					FAIL("instruction %u: jump to %u by table does not go forward", n, to);
			}
		if (i->op == OS_REG && i->arg >= c->registers)
			FAIL("instruction %u: invalid register %u", n, i->arg);
		if (i->op == OS_CTX && i->arg >= OS_CTX_WORDS)
			FAIL("instruction %u: invalid context word %u", n, i->arg);
		if ((i->op == OS_VGET || i->op == OS_VSET || i->op == OS_VFORGET) && i->arg >= OS_SCRATCH)
			FAIL("instruction %u: invalid scratch word %u", n, i->arg);
		if (i->op == OS_PUTN && (i->arg == 0 || i->arg > OS_SLOTS - i->src))
			FAIL("instruction %u: %u words from slot %u", n, i->arg, i->src);
		if (i->op == OS_VGETN || i->op == OS_VSETN) {
			uint32_t slot = i->op == OS_VGETN ? i->dst : i->src;
			if (i->imm == 0 || i->imm > OS_SLOTS - slot || i->arg >= OS_SCRATCH || i->imm > OS_SCRATCH - i->arg)
				FAIL("instruction %u: %llu scratch words from %u, slot %u", n, (unsigned long long)i->imm, i->arg, slot);
		}
		if ((i->op == OS_SHL || i->op == OS_SHR) && i->arg >= 64)
			FAIL("instruction %u: invalid shift by %u", n, i->arg);
		if (i->op == OS_LOAD && i->size != 1 && i->size != 2 && i->size != 4 && i->size != 8)
			FAIL("instruction %u: invalid load of %u bytes", n, i->size);
		if (i->op == OS_STRV && i->dst != 4 && i->dst != 8)
			FAIL("instruction %u: invalid pointers of %u bytes", n, i->dst);
		if (i->op == OS_STRV && i->imm > 65536)
			FAIL("instruction %u: too many strings: %llu", n, (unsigned long long)i->imm);
		if (i->op == OS_VEC && i->imm != 4 && i->imm != 8)
			FAIL("instruction %u: invalid pointers of %llu bytes", n, (unsigned long long)i->imm);
		if (i->op >= OS_COPY && i->op <= OS_VEC && i->arg > OS_MAX_RECORD)
			FAIL("instruction %u: items of %u bytes are larger than any record", n, i->arg);
		if (i->op == OS_LAST && i->arg > OS_PAGE / 8)
			FAIL("instruction %u: %u words are more than a page", n, i->arg);
		if (i->op == OS_HOLD && i->arg > 60u * 1000 * 1000)
			FAIL("instruction %u: a vCPU waits a minute at most", n);
	}
	if (c->code == 0 || p->code[c->code - 1].op > OS_DROP)
		FAIL("the last instruction does not end the program");
	return true;
}

static bool check_probes(struct program *p, char *why, size_t why_size)
{
	uint32_t syscalls = 0;
	for (uint32_t n = 0; n < p->counts.probes; n++) {
		const struct os_probe *probe = &p->probes[n];
		if (probe->where < OS_AT_SYSCALL || probe->where > OS_AT_SLEEP || probe->entry >= p->counts.code || probe->id > 0xffff)
			FAIL("probe %u: invalid place %u, entry %u or id %u", n, probe->where, probe->entry, probe->id);
		if (probe->where == OS_AT_CONTROL && probe->arg > 15)
			FAIL("probe %u: invalid control register %u", n, probe->arg);
		if (probe->where == OS_AT_SYSCALL && ++syscalls > MAX_SYSCALL_PROBES)
			FAIL("probe %u: more than %u at system calls", n, MAX_SYSCALL_PROBES);
		if (probe->where == OS_AT_WRITE && (probe->length == 0 || probe->address + probe->length < probe->address))
			FAIL("probe %u: invalid range of %llu bytes", n, (unsigned long long)probe->length);
	}
	for (uint32_t n = 0; n < p->counts.registers; n++) {
		const struct os_register *r = (const struct os_register *)(p->words + p->counts.words) + n;
		char name[sizeof r->name + 1] = {0};
		memcpy(name, r->name, sizeof r->name);
		p->registers[n] = register_by_name(name);
		if (!p->registers[n])
			FAIL("this processor has no register %s, or this QEMU shows none: version 2 of its plugin interface (9.0) is needed", name);
	}
	return true;
}

/* mapped says whether all of a range of this process can be read. */
static bool mapped(uint64_t from, uint64_t size)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512], access[5];
	unsigned long long low, high;
	uint64_t at = from;
	if (!f)
		return false;
	while (at < from + size && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%llx-%llx %4s", &low, &high, access) != 3 || high <= at)
			continue;
		if (low > at || access[0] != 'r')
			break;
		at = high;
	}
	fclose(f);
	return at >= from + size;
}

static void *map(struct program *p, int file, uint64_t offset, uint64_t size, int access)
{
	struct stat s;
	if (fstat(file, &s) != 0 || offset + size < offset || (uint64_t)s.st_size < offset + size)
		return NULL;
	void *at = mmap(NULL, size, access, MAP_SHARED, file, (off_t)offset);
	if (at == MAP_FAILED)
		return NULL;
	for (size_t i = 0; i < sizeof p->maps / sizeof *p->maps; i++)
		if (!p->maps[i].address) {
			p->maps[i].address = at;
			p->maps[i].size = size;
			return at;
		}
	munmap(at, size);
	return NULL;
}

/*
 * home is where QEMU itself has a range of a file, which is its guest's memory: what it shows of code that it translates are
 * addresses there. Our own mappings cannot be written to.
 */
static uint64_t home(int file, uint64_t offset, uint64_t size)
{
	FILE *f = fopen("/proc/self/maps", "re");
	struct stat s;
	char line[512], access[5];
	unsigned long long low, high, at, inode;
	unsigned int major, minor;
	uint64_t found = 0;
	if (!f)
		return 0;
	while (!found && fstat(file, &s) == 0 && fgets(line, sizeof line, f)) {
		if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu", &low, &high, access, &at, &major, &minor, &inode) != 7 || access[1] != 'w')
			continue;
		if (inode == s.st_ino && makedev(major, minor) == s.st_dev && at <= offset && offset + size <= at + (high - low))
			found = low + (offset - at);
	}
	fclose(f);
	return found;
}

static bool map_windows(struct program *p, const int *files, unsigned int n_files, char *why, size_t why_size)
{
	for (uint32_t n = 0; n < p->counts.windows; n++) {
		struct os_window *w = &p->windows[n];
		if (w->size == 0 || w->physical + w->size < w->physical || w->host + w->size < w->host)
			FAIL("window %u: invalid size %#llx", n, (unsigned long long)w->size);
		if (w->file == 0) {
			p->homes[n] = w->host;
			if (!mapped(w->host, w->size))
				FAIL("window %u: this process has no %#llx bytes at %#llx", n, (unsigned long long)w->size, (unsigned long long)w->host);
			continue;
		}
		if (w->file >= n_files)
			FAIL("window %u: no descriptor %u came with the program", n, w->file);
		p->homes[n] = home(files[w->file], w->host, w->size);
		void *at = map(p, files[w->file], w->host, w->size, PROT_READ);
		if (!at)
			FAIL("window %u: cannot map %#llx bytes of descriptor %u", n, (unsigned long long)w->size, w->file);
		w->host = (uint64_t)(uintptr_t)at;
	}
	for (uint32_t i = 0; i < p->counts.probes; i++)
		for (uint32_t n = 0; n < p->counts.windows; n++)
			if (p->probes[i].where == OS_AT_PHYSICAL && p->probes[i].address - p->windows[n].physical < p->windows[n].size && p->homes[n] == 0)
				FAIL("probe %u: this process does not have the guest's memory at %#llx in one piece", i, (unsigned long long)p->windows[n].physical);
	return true;
}

/* join_ranges puts linears and windows together: which address of ours a virtual one has. */
static bool join_ranges(struct program *p, char *why, size_t why_size)
{
	for (uint32_t i = 0; i < p->counts.linears; i++)
		for (uint32_t k = 0; k < p->counts.windows; k++) {
			const struct os_linear *l = &p->linears[i];
			const struct os_window *w = &p->windows[k];
			uint64_t from = l->physical > w->physical ? l->physical : w->physical;
			uint64_t l_end = l->physical + l->size, w_end = w->physical + w->size, to = l_end < w_end ? l_end : w_end;
			if (l_end < l->physical || from >= to)
				continue;
			if (p->n_direct == MAX_DIRECT)
				FAIL("more than %u pieces of memory", MAX_DIRECT);
			p->direct[p->n_direct++] = (struct direct){l->address + (from - l->physical), to - from, w->host + (from - w->physical)};
		}
	return true;
}

static bool map_rings(struct program *p, int file, char *why, size_t why_size)
{
	struct stat s;
	/* A file that shrinks under us would end QEMU by SIGBUS. */
	if ((fcntl(file, F_GET_SEALS) & F_SEAL_SHRINK) == 0 || fstat(file, &s) != 0)
		FAIL("the rings are not in a memfd that is sealed against shrinking");
	p->header = map(p, file, 0, (uint64_t)s.st_size, PROT_READ | PROT_WRITE);
	if (!p->header)
		FAIL("cannot map the rings");
	uint32_t rings = p->header->rings;
	uint64_t size = p->header->size;
	if (p->header->magic != OS_MAGIC || p->header->protocol != OS_PROTOCOL || rings == 0 || rings > MAX_VCPUS)
		FAIL("the rings are of another protocol, or not 1 to %u", MAX_VCPUS);
	if (size < 2 * OS_MAX_RECORD || size > 1ull << 32 || (size & (size - 1)) != 0 ||
	    (uint64_t)s.st_size < OS_PAGE + rings * (OS_PAGE + size))
		FAIL("invalid size of rings: %llu", (unsigned long long)size);
	p->n_rings = rings;
	p->ring_size = size;
	p->rings = (struct os_ring *)((uint8_t *)p->header + OS_PAGE);
	p->data = (uint8_t *)p->rings + (size_t)rings * OS_PAGE;
	/* Pages that are there before keep vCPUs from waiting for them. A kernel older than 5.14 gives them as they are touched. */
	uint64_t used = size * (rings < started_vcpus ? rings : started_vcpus);
	madvise(p->header, OS_PAGE * (1 + (size_t)rings), MADV_POPULATE_WRITE);
	madvise(p->data, used < MAX_POPULATED ? used : MAX_POPULATED, MADV_POPULATE_WRITE);
	return true;
}

static bool load(struct program *p, size_t size, const int *files, unsigned int n_files, char *why, size_t why_size)
{
	const struct os_program *c = &p->counts;
	if (size < sizeof *c)
		FAIL("a program of %zu bytes is too short", size);
	memcpy(&p->counts, p->image, sizeof *c);
	if (c->protocol != OS_PROTOCOL)
		FAIL("this plugin speaks protocol %u, and the monitor %u: install the plugin that belongs to it", OS_PROTOCOL, c->protocol);
	if (c->probes > OS_MAX_PROBES || c->code > OS_MAX_CODE || c->linears > OS_MAX_RANGES || c->windows > OS_MAX_RANGES ||
	    c->registers > OS_MAX_REGISTERS || c->words > OS_MAX_PROGRAM / 4)
		FAIL("the program is too large");
	uint64_t want = sizeof *c + c->probes * (uint64_t)sizeof(struct os_probe) + c->code * (uint64_t)sizeof(struct os_insn) +
			c->linears * sizeof(struct os_linear) + c->windows * sizeof(struct os_window) + c->words * 4ull +
			c->registers * sizeof(struct os_register);
	if (want != size)
		FAIL("a program of %zu bytes has contents of %llu", size, (unsigned long long)want);
	uint8_t *at = (uint8_t *)p->image + sizeof *c;
	p->probes = (struct os_probe *)at;
	p->code = (struct os_insn *)(p->probes + c->probes);
	p->linears = (struct os_linear *)(p->code + c->code);
	p->windows = (struct os_window *)(p->linears + c->linears);
	p->words = (uint32_t *)(p->windows + c->windows);
	if (n_files == 0)
		FAIL("no descriptor of the rings came with the program");
	return check_code(p, why, why_size) && check_probes(p, why, why_size) && map_rings(p, files[0], why, why_size) &&
	       map_windows(p, files, n_files, why, why_size) && join_ranges(p, why, why_size);
}

struct program *program_load(const void *image, size_t size, const int *files, unsigned int n_files, char *why, size_t why_size)
{
	struct program *p = calloc(1, sizeof *p);
	if (!p)
		return NULL;
	p->image = malloc(size ? size : 1);
	if (p->image) {
		memcpy(p->image, image, size);
		if (load(p, size, files, n_files, why, why_size) && translate_prepare(p))
			return p;
	}
	program_free(p);
	return NULL;
}

void program_free(struct program *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < sizeof p->maps / sizeof *p->maps; i++)
		if (p->maps[i].address)
			munmap(p->maps[i].address, p->maps[i].size);
	translate_forget(p);
	free(p->image);
	free(p);
}
