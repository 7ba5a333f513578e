// Copies a file by io_uring alone, and does some more by it. It says of each operation what it asked for, and what it was told.
// uring [sqpoll] [async]
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ENTRIES = 256 };

static int ring, sqpoll;
static unsigned flags, *sq_head, *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static char *said[4096];
static unsigned marks = 0x100, filled;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void set_up(void)
{
	struct io_uring_params p = { .flags = sqpoll ? IORING_SETUP_SQPOLL : 0, .sq_thread_idle = 100 };
	ring = syscall(SYS_io_uring_setup, ENTRIES, &p);
	if (ring < 0)
		fail("io_uring_setup");
	size_t sq = p.sq_off.array + p.sq_entries * sizeof(unsigned), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *s = mmap(0, sq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	char *c = mmap(0, cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
	sqes = mmap(0, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	if (s == MAP_FAILED || c == MAP_FAILED || sqes == MAP_FAILED)
		fail("mmap");
	sq_head = (void *)(s + p.sq_off.head), sq_tail = (void *)(s + p.sq_off.tail), sq_mask = (void *)(s + p.sq_off.ring_mask);
	sq_array = (void *)(s + p.sq_off.array), sq_flags = (void *)(s + p.sq_off.flags);
	cq_head = (void *)(c + p.cq_off.head), cq_tail = (void *)(c + p.cq_off.tail), cq_mask = (void *)(c + p.cq_off.ring_mask);
	cqes = (void *)(c + p.cq_off.cqes);
}

// ask puts a request into the ring; text is its arguments, as they are to be shown.
static struct io_uring_sqe *ask(int op, int fd, const void *addr, unsigned len, unsigned long off, unsigned op_flags, const char *text, ...)
{
	unsigned at = (*sq_tail + filled++) & *sq_mask;
	struct io_uring_sqe *q = &sqes[at];
	memset(q, 0, sizeof(*q));
	q->opcode = op, q->fd = fd, q->addr = (unsigned long)addr, q->len = len, q->off = off, q->rw_flags = op_flags;
	q->flags = flags, q->user_data = marks;
	sq_array[at] = at;
	va_list l;
	va_start(l, text);
	if (vasprintf(&said[marks++], text, l) < 0)
		fail("vasprintf");
	va_end(l);
	return q;
}

// done submits, waits for as many completions, and says what they are. It returns the last result.
static int done(int completions)
{
	int n = filled, last = 0;
	__atomic_store_n(sq_tail, *sq_tail + n, __ATOMIC_SEQ_CST);
	filled = 0;
	if (!sqpoll || __atomic_load_n(sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP) {
		if (syscall(SYS_io_uring_enter, ring, n, 0, sqpoll ? IORING_ENTER_SQ_WAKEUP : 0, 0, 0) < 0)
			fail("io_uring_enter");
	}
	while (completions > 0) {
		unsigned head = *cq_head;
		if (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) {
			if (syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
				fail("io_uring_enter");
			continue;
		}
		struct io_uring_cqe *c = &cqes[head & *cq_mask];
		last = c->res;
		printf("%s, user_data=0x%llx = %d%s\n", said[c->user_data], c->user_data, c->res, c->flags & IORING_CQE_F_MORE ? " more" : "");
		__atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
		completions--;
	}
	return last;
}

static char block[4096], text[] = "what is written by io_uring, and is longer than what is shown";

int main(int argc, char **argv)
{
	unsigned async = 0;
	for (int i = 1; i < argc; i++) {
		sqpoll |= !strcmp(argv[i], "sqpoll");
		if (!strcmp(argv[i], "async"))
			async = IOSQE_ASYNC;
	}
	set_up();
	flags = async;
	const char *from = "/bin/busybox", *to = "/tmp/uring.copy";
	ask(IORING_OP_OPENAT, AT_FDCWD, from, 0, 0, O_RDONLY, "openat(AT_FDCWD, \"%s\", O_RDONLY", from);
	int in = done(1);
	ask(IORING_OP_OPENAT, AT_FDCWD, to, 0644, 0, O_WRONLY | O_CREAT | O_TRUNC, "openat(AT_FDCWD, \"%s\", O_WRONLY|O_CREAT|O_TRUNC, 0644", to);
	int out = done(1);
	static struct statx x;
	ask(IORING_OP_STATX, in, "", STATX_SIZE, (unsigned long)&x, AT_EMPTY_PATH, "statx(%d, \"\", AT_STATX_SYNC_AS_STAT|AT_EMPTY_PATH, STATX_SIZE, %p", in, &x);
	done(1);
	unsigned long size = x.stx_size > 40 * sizeof(block) ? 40 * sizeof(block) : x.stx_size;
	for (unsigned long off = 0; off < size;) {
		ask(IORING_OP_READ, in, block, sizeof(block), off, 0, "read(%d, %p, %zu, %lu", in, block, sizeof(block), off);
		int n = done(1);
		if (n <= 0)
			exit(1);
		struct iovec v = { block, n };
		for (int i = 0; i < n; i++)
			block[i] = 'x'; // so that it can be said as it is shown
		ask(IORING_OP_WRITEV, out, &v, 1, off, 0, "writev(%d, [{iov_base=\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"..., iov_len=%d}], 1, %lu", out, n, off);
		done(1);
		off += n;
	}
	ask(IORING_OP_WRITE, out, text, sizeof(text) - 1, size, 0, "write(%d, \"%.32s\"..., %zu, %lu", out, text, sizeof(text) - 1, size);
	done(1);
	ask(IORING_OP_FSYNC, out, 0, 0, 0, 0, "fsync(%d", out);
	done(1);
	ask(IORING_OP_OPENAT, AT_FDCWD, "/nonexistent", 0, 0, O_RDONLY | O_CLOEXEC, "openat(AT_FDCWD, \"/nonexistent\", O_RDONLY|O_CLOEXEC");
	done(1);
	ask(IORING_OP_READ, 77, block, 5, 0, 0, "read(77, %p, 5, 0", block);
	done(1);

	// What needs another to go on: bytes on a socket.
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
		fail("socketpair");
	ask(IORING_OP_RECV, pair[0], block, 100, 0, 0, "recv(%d, %p, 100, 0, NULL, NULL", pair[0], block);
	done(0);
	usleep(50000);
	ask(IORING_OP_SEND, pair[1], "hello", 5, 0, MSG_NOSIGNAL, "send(%d, \"hello\", 5, MSG_NOSIGNAL, NULL, 0", pair[1]);
	done(2);

	// Requests that wait for one another, the second of which fails.
	flags = async | IOSQE_IO_LINK;
	ask(IORING_OP_NOP, -1, 0, 0, 0, 0, "nop(fd=-1, off=0x0, addr=0x0, len=0, op_flags=0x0");
	ask(IORING_OP_CLOSE, 77, 0, 0, 0, 0, "close(77");
	flags = async;
	ask(IORING_OP_CLOSE, out, 0, 0, 0, 0, "close(%d", out);
	done(3);

	// More than one goes through the kernel at once.
	for (int i = 0; i < 200; i++)
		ask(IORING_OP_NOP, -1, 0, 0, i, 0, "nop(fd=-1, off=0x%x, addr=0x0, len=0, op_flags=0x0", i);
	done(200);

	ask(IORING_OP_CLOSE, in, 0, 0, 0, 0, "close(%d", in);
	ask(IORING_OP_CLOSE, out, 0, 0, 0, 0, "close(%d", out);
	done(2);
	if (argc > 1 && !strcmp(argv[argc - 1], "multishot")) {
		int pipes[2];
		if (pipe(pipes))
			fail("pipe");
		ask(IORING_OP_POLL_ADD, pipes[0], 0, IORING_POLL_ADD_MULTI, 0, POLLIN, "poll_add(fd=%d, off=0x0, addr=0x0, len=1, op_flags=0x1", pipes[0]);
		done(0);
		for (int i = 0; i < 3; i++) {
			if (write(pipes[1], "x", 1) != 1)
				fail("write");
			done(1);
		}
		void *mark = (void *)(marks - 1ul);
		ask(IORING_OP_ASYNC_CANCEL, -1, mark, 0, 0, 0, "async_cancel(fd=-1, off=0x0, addr=%p, len=0, op_flags=0x0", mark);
		done(2);
	}
	unlink(to);
	return 0;
}
