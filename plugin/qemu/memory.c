/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory by virtual address: through the windows where that is proven, else as QEMU translates it. */
#include <string.h>

#include "plugin.h"

#define PAGE 4096u

/* linear returns where this process has the memory at address, and in *run how many bytes of it. */
static const uint8_t *linear(const struct program *p, uint64_t address, uint64_t *run)
{
	for (uint32_t i = 0; i < p->counts.linears; i++) {
		const struct os_linear *l = &p->linears[i];
		uint64_t at = address - l->address;
		if (at >= l->size)
			continue;
		uint64_t physical = l->physical + at, rest = l->size - at;
		for (uint32_t k = 0; k < p->counts.windows; k++) {
			const struct os_window *w = &p->windows[k];
			uint64_t in = physical - w->physical;
			if (in >= w->size)
				continue;
			*run = w->size - in < rest ? w->size - in : rest;
			return (const uint8_t *)(uintptr_t)(w->host + in);
		}
		return NULL;
	}
	return NULL;
}

/* piece copies what lies within one page. */
static bool piece(struct program *p, struct vcpu *v, uint64_t address, void *to, size_t length)
{
	uint64_t run;
	const uint8_t *at = linear(p, address, &run);
	if (at && run >= length) {
		memcpy(to, at, length);
		return true;
	}
	if (!qemu_plugin_read_memory_vaddr || !v->bytes)
		return false;
	g_byte_array_set_size(v->bytes, 0);
	if (!qemu_plugin_read_memory_vaddr(address, v->bytes, length) || v->bytes->len < length)
		return false;
	memcpy(to, v->bytes->data, length);
	return true;
}

bool memory_read(struct program *p, struct vcpu *v, uint64_t address, void *to, size_t length)
{
	uint8_t *out = to;
	while (length > 0) {
		size_t n = PAGE - (address & (PAGE - 1));
		if (n > length)
			n = length;
		if (!piece(p, v, address, out, n))
			return false;
		address += n;
		out += n;
		length -= n;
	}
	return true;
}

/*
 * memory_string copies a string without its zero, and returns its length. A string that another thread of the guest
 * changes meanwhile is what it was at that moment: it is copied first, then its end is looked for in the copy.
 */
size_t memory_string(struct program *p, struct vcpu *v, uint64_t address, char *to, size_t limit, bool *unreadable, bool *cut)
{
	size_t used = 0;
	*unreadable = *cut = false;
	for (;;) {
		size_t n = PAGE - (address & (PAGE - 1));
		if (n > 256)
			n = 256; /* most strings are short */
		char buffer[256];
		if (!piece(p, v, address, buffer, n)) {
			*unreadable = true;
			return used;
		}
		char *end = memchr(buffer, 0, n);
		size_t take = end ? (size_t)(end - buffer) : n;
		if (take > limit - used) {
			take = limit - used;
			*cut = true;
		}
		memcpy(to + used, buffer, take);
		used += take;
		if (end || *cut)
			return used;
		address += n;
	}
}
