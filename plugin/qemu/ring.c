/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records in shared memory. Each vCPU has a ring that only its thread writes. A record is whole, numbered and in place before
 * the head moves; what finds no room is counted and gets no number, so that numbers have no gaps.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "plugin.h"

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ring_ticks(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	return nanoseconds(CLOCK_MONOTONIC);
#endif
}

/* ring_clock notes what time a tick was, for readers to turn ticks into time. */
void ring_clock(struct program *p)
{
	struct os_header *h = p->header;
	uint32_t version = __atomic_load_n(&h->clock_version, __ATOMIC_RELAXED);
	__atomic_store_n(&h->clock_version, version + 1, __ATOMIC_SEQ_CST);
	uint64_t before = ring_ticks(), now = nanoseconds(CLOCK_REALTIME), after = ring_ticks();
	__atomic_store_n(&h->ticks, before + (after - before) / 2, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->nanoseconds, now, __ATOMIC_SEQ_CST);
	__atomic_store_n(&h->clock_version, version + 2, __ATOMIC_SEQ_CST);
}

/*
 * The rings are shared with a monitor that may be wrong or gone: positions are ours alone (the tail is
 * read, and believed only if it lies between what was and the head).
 */
bool writer_begin(struct writer *w, struct program *p, struct vcpu *v, unsigned int vcpu)
{
	if (vcpu >= p->n_rings)
		return false;
	w->p = p;
	w->ring = (struct os_ring *)((uint8_t *)p->rings + (size_t)vcpu * OS_PAGE);
	w->base = p->data + (size_t)vcpu * p->ring_size;
	w->head = __atomic_load_n(&w->ring->head, __ATOMIC_RELAXED);
	w->used = sizeof(struct os_record);
	w->truncated = w->full = false;

	uint64_t unread = w->head - v->tail;
	if (unread > p->ring_size / 2) {
		v->tail = __atomic_load_n(&w->ring->tail, __ATOMIC_ACQUIRE);
		unread = w->head - v->tail;
	}
	if (unread > p->ring_size)
		unread = p->ring_size; /* an impossible tail: nothing is free */
	w->unread = unread;
	uint64_t room = p->ring_size - unread;
	uint64_t at = w->head & (p->ring_size - 1), to_end = p->ring_size - at;
	if (to_end < OS_MAX_RECORD && room > to_end) {
		/* Records never wrap: the rest is left out, once it is free. to_end is a multiple of 8. */
		struct os_record *pad = (struct os_record *)(w->base + at);
		pad->length = (uint32_t)to_end; /* the first 8 bytes fit in any rest */
		pad->probe = 0;
		pad->flags = OS_PAD;
		w->head += to_end;
		room -= to_end;
		to_end = p->ring_size;
		__atomic_store_n(&w->ring->head, w->head, __ATOMIC_RELEASE);
	}
	if (room > to_end)
		room = to_end;
	if (room > OS_MAX_RECORD)
		room = OS_MAX_RECORD;
	w->room = (uint32_t)room;
	if (w->room < w->used)
		w->full = true;
	return true;
}

static uint8_t *record(struct writer *w) { return w->base + (w->head & (w->p->ring_size - 1)); }

/* over notes that a record would be larger than what is free, or than any may be. */
static bool over(struct writer *w)
{
	if (w->room == OS_MAX_RECORD)
		w->truncated = true;
	else
		w->full = true;
	return false;
}

/* writer_words returns how many words were added. */
uint32_t writer_words(struct writer *w, const uint64_t *values, uint32_t n)
{
	if (w->full || w->truncated)
		return 0;
	if (w->room - w->used < 8 * n)
		return over(w);
	uint64_t *to = (uint64_t *)(record(w) + w->used);
	for (uint32_t k = 0; k < n; k++)
		to[k] = values[k];
	w->used += 8 * n;
	return n;
}

/* writer_item begins an item of up to limit bytes; *room is how many it may have. */
struct os_item *writer_item(struct writer *w, uint8_t tag, uint32_t limit, uint32_t *room)
{
	if (w->full || w->truncated)
		return NULL;
	uint32_t free = w->room - w->used;
	if (free < sizeof(struct os_item) || (free - sizeof(struct os_item) < limit && w->room != OS_MAX_RECORD)) {
		over(w);
		return NULL;
	}
	struct os_item *item = (struct os_item *)(record(w) + w->used);
	memset(item, 0, sizeof *item);
	item->tag = tag;
	free -= sizeof *item;
	*room = free < limit ? free & ~7u : limit;
	w->used += sizeof *item;
	return item;
}

void writer_item_end(struct writer *w, struct os_item *item, uint32_t length, uint8_t status)
{
	uint32_t padded = (length + 7) & ~7u;
	item->length = length;
	item->status = status;
	if (padded > w->room - w->used) { /* the last item of a full record */
		padded = w->room - w->used;
		w->truncated = true;
	}
	memset((uint8_t *)(item + 1) + length, 0, padded > length ? padded - length : 0);
	w->used += padded;
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static void wake_monitor(struct writer *w, bool urgent)
{
	uint32_t *waiting = &w->p->header->waiting, how = __atomic_load_n(waiting, __ATOMIC_RELAXED);
	if (how == OS_AWAKE || (how == OS_DOZES && !urgent))
		return;
	if (__atomic_exchange_n(waiting, OS_AWAKE, __ATOMIC_SEQ_CST) != OS_AWAKE)
		futex(waiting, FUTEX_WAKE, 1, NULL);
}

/* writer_commit shows the record to the monitor and returns its number plus one, or zero if it was lost. */
uint64_t writer_commit(struct writer *w, uint16_t probe, uint16_t flags, uint32_t words)
{
	if (w->full) {
		__atomic_fetch_add(w->aside ? &w->ring->aside : &w->ring->lost, 1, __ATOMIC_RELEASE);
		wake_monitor(w, true);
		return 0;
	}
	struct os_record *r = (struct os_record *)record(w);
	r->length = w->used;
	r->probe = probe;
	r->flags = flags | (w->truncated ? OS_TRUNCATED : 0);
	r->words = words;
	r->reserved = 0;
	r->ticks = ring_ticks();
	r->sequence = __atomic_fetch_add(&w->p->header->sequence, 1, __ATOMIC_ACQ_REL);
	if (flags & OS_WAITS) {
		w->ring->held = r->sequence;
		__atomic_store_n(&w->ring->hold, OS_HELD, __ATOMIC_SEQ_CST);
	}
	uint64_t sequence = r->sequence;
	/*
	 * A monitor that is about to sleep may not see this for as long as a store takes to leave the processor: it looks once more before
	 * it sleeps for long. Only a vCPU that waits itself makes sure.
	 */
	__atomic_store_n(&w->ring->head, w->head + w->used, __ATOMIC_RELEASE);
	for (uint32_t ahead = 0; ahead < 256; ahead += 64) /* the next record's: the monitor's processor has them */
		__builtin_prefetch(w->base + ((w->head + w->used + ahead) & (w->p->ring_size - 1)), 1);
	if (flags & OS_WAITS)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	wake_monitor(w, flags & OS_WAITS || w->unread > w->p->ring_size / 2);
	return sequence + 1;
}

/* A decision that comes soon finds the vCPU awake: to sleep and to be woken takes longer than most decisions. */
#define SPIN 50000u /* nanoseconds */

/* withdraw ends a hold that nobody decided; false: somebody just has. */
static bool withdraw(struct os_ring *ring, uint32_t to)
{
	uint32_t was = __atomic_load_n(&ring->hold, __ATOMIC_ACQUIRE);
	while (was == OS_HELD || was == OS_ASLEEP)
		if (__atomic_compare_exchange_n(&ring->hold, &was, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			if (to == OS_GO && was == OS_ASLEEP)
				futex(&ring->hold, FUTEX_WAKE, 1, NULL);
			return true;
		}
	return false;
}

/* ring_hold waits until the monitor decides, is gone, or is late. */
void ring_hold(struct os_ring *ring, uint32_t microseconds, uint64_t otherwise)
{
	uint64_t began = ring_ticks(), now = nanoseconds(CLOCK_MONOTONIC);
	uint64_t deadline = now + (uint64_t)microseconds * 1000, spin = now + SPIN < deadline ? now + SPIN : deadline;
	while (now < spin && __atomic_load_n(&ring->hold, __ATOMIC_ACQUIRE) == OS_HELD) {
		for (int i = 0; i < 16 && __atomic_load_n(&ring->hold, __ATOMIC_ACQUIRE) == OS_HELD; i++) {
#ifdef __x86_64__
			__builtin_ia32_pause();
#endif
		}
		now = nanoseconds(CLOCK_MONOTONIC);
	}
	uint32_t held = OS_HELD;
	__atomic_compare_exchange_n(&ring->hold, &held, OS_ASLEEP, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&ring->hold, __ATOMIC_ACQUIRE) == OS_ASLEEP) {
		now = nanoseconds(CLOCK_MONOTONIC);
		if (now >= deadline) {
			if (!withdraw(ring, OS_FREE))
				break; /* decided at the last moment */
			__atomic_fetch_add(&ring->overdue, 1, __ATOMIC_SEQ_CST);
			if (otherwise == OS_HOLD_STOP)
				kill(getpid(), SIGSTOP);
			return;
		}
		struct timespec rest = {(deadline - now) / 1000000000u, (deadline - now) % 1000000000u};
		futex(&ring->hold, FUTEX_WAIT, OS_ASLEEP, &rest);
	}
	ring->waited = ring_ticks() - began;
	__atomic_store_n(&ring->hold, OS_FREE, __ATOMIC_SEQ_CST);
}

/* ring_release_all lets every vCPU go on that waits: nobody is there to decide. */
void ring_release_all(struct program *p)
{
	for (uint32_t i = 0; i < p->n_rings; i++)
		withdraw((struct os_ring *)((uint8_t *)p->rings + (size_t)i * OS_PAGE), OS_GO);
}
