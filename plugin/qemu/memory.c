/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory by virtual address: through the windows where that is proven, else as QEMU translates it. */
#include <string.h>

#include "plugin.h"

#define PAGE 4096u

/* piece copies what lies within one page. */
static bool piece(struct program *p, struct vcpu *v, uint64_t address, void *to, size_t length)
{
	const uint8_t *at = direct_memory(p, address, length);
	if (at) {
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
