// Asks the kernel what there is in ways that programs seldom use: by io_uring, and over netlink by recvmmsg.
// ask [sqpoll|async|fixed|selected]: the last two read into buffers that were registered, or that the kernel selects
// ask hold: makes sockets, and keeps them
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ENTRIES = 8, ROOM = 16384 };

static int ring, sqpoll, fixed, selected;
static unsigned *sq_tail, *sq_mask, *sq_array, *sq_flags, *cq_head, *cq_tail, *cq_mask, filled, flags;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;
static char rooms[ENTRIES][ROOM] __attribute__((aligned(4096))); // 6.1 registers no memory that is partly of a file

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
	sq_tail = (void *)(s + p.sq_off.tail), sq_mask = (void *)(s + p.sq_off.ring_mask);
	sq_array = (void *)(s + p.sq_off.array), sq_flags = (void *)(s + p.sq_off.flags);
	cq_head = (void *)(c + p.cq_off.head), cq_tail = (void *)(c + p.cq_off.tail), cq_mask = (void *)(c + p.cq_off.ring_mask);
	cqes = (void *)(c + p.cq_off.cqes);
}

static void ask(int op, int fd, const void *addr, unsigned len, unsigned long off, unsigned mark)
{
	unsigned at = (*sq_tail + filled++) & *sq_mask;
	struct io_uring_sqe *q = &sqes[at];
	memset(q, 0, sizeof(*q));
	q->opcode = op, q->fd = fd, q->addr = (unsigned long)addr, q->len = len, q->off = off, q->flags = flags, q->user_data = mark;
	sq_array[at] = at;
}

// done submits, and waits for all: results go to result by mark.
static void done(int *result)
{
	int n = filled;
	__atomic_store_n(sq_tail, *sq_tail + n, __ATOMIC_SEQ_CST);
	filled = 0;
	if (!sqpoll || __atomic_load_n(sq_flags, __ATOMIC_SEQ_CST) & IORING_SQ_NEED_WAKEUP)
		if (syscall(SYS_io_uring_enter, ring, n, 0, sqpoll ? IORING_ENTER_SQ_WAKEUP : 0, 0, 0) < 0)
			fail("io_uring_enter");
	while (n > 0) {
		unsigned head = *cq_head;
		if (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE)) {
			if (syscall(SYS_io_uring_enter, ring, 0, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
				fail("io_uring_enter");
			continue;
		}
		struct io_uring_cqe *c = &cqes[head & *cq_mask];
		result[c->user_data] = c->res;
		__atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
		n--;
	}
}

// into asks for a read into a room, as is wanted.
static void into(int op, int fd, int room, unsigned long off, unsigned mark)
{
	if (selected) { // first, one buffer in a group of its own
		int result[1];
		ask(IORING_OP_PROVIDE_BUFFERS, 1, rooms[room], ROOM, 0, 0);
		sqes[(*sq_tail + filled - 1) & *sq_mask].buf_group = room;
		done(result);
		if (result[0] < 0)
			exit(3);
		ask(op, fd, NULL, ROOM, off, mark);
		sqes[(*sq_tail + filled - 1) & *sq_mask].flags |= IOSQE_BUFFER_SELECT;
		sqes[(*sq_tail + filled - 1) & *sq_mask].buf_group = room;
		return;
	}
	ask(fixed && op == IORING_OP_READ ? IORING_OP_READ_FIXED : op, fd, rooms[room], ROOM, off, mark);
}

// files reads several files at once to their ends: the first from where it is, the second from where it says, the third into a vector.
static void files(void)
{
	const char *names[] = { "/proc/modules", "/proc/net/unix", "/proc/net/dev" };
	int fd[3], result[3] = { 1, 1, 1 };
	unsigned long at = 0;
	struct iovec v[2] = { { rooms[2], 100 }, { rooms[2] + 100, ROOM - 100 } };
	for (int i = 0; i < 3; i++)
		if ((fd[i] = open(names[i], O_RDONLY)) < 0)
			fail(names[i]);
	while (result[0] > 0 || result[1] > 0 || result[2] > 0) {
		if (result[0] > 0)
			into(IORING_OP_READ, fd[0], 0, -1, 0);
		if (selected)
			done(result);
		if (result[1] > 0)
			into(IORING_OP_READ, fd[1], 1, at, 1);
		if (result[2] > 0)
			ask(IORING_OP_READV, fd[2], v, 2, -1, 2);
		done(result);
		for (int i = 0; i < 3; i++)
			if (result[i] < 0)
				exit(2);
		at += result[1];
	}
}

static struct { struct nlmsghdr head; struct unix_diag_req request; } unix_dump = {
	{ sizeof(unix_dump), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 }, { .sdiag_family = AF_UNIX, .udiag_states = -1 },
};
static struct { struct nlmsghdr head; struct ifinfomsg link; } link_dump = {
	{ sizeof(link_dump), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 2, 0 }, { .ifi_family = AF_UNSPEC },
};

static int ends(const char *b, int n)
{
	if (n <= 0)
		return 1;
	for (const struct nlmsghdr *h = (void *)b; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n))
		if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
			return 1;
	return 0;
}

static void sockets(void)
{
	int result[1], fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
	ask(IORING_OP_SEND, fd, &unix_dump, sizeof(unix_dump), 0, 0);
	done(result);
	do {
		ask(IORING_OP_RECV, fd, rooms[0], ROOM, 0, 0);
		done(result);
	} while (!ends(rooms[0], result[0]));

	struct iovec v = { &link_dump, sizeof(link_dump) }, to = { rooms[0], ROOM };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 }, r = { .msg_iov = &to, .msg_iovlen = 1 };
	fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE);
	ask(IORING_OP_SENDMSG, fd, &m, 1, 0, 0);
	done(result);
	do {
		ask(IORING_OP_RECVMSG, fd, &r, 1, 0, 0);
		done(result);
	} while (!ends(rooms[0], result[0]));
}

static void several(void)
{
	int fd = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG);
	struct iovec to[ENTRIES];
	struct mmsghdr m[ENTRIES];
	send(fd, &unix_dump, sizeof(unix_dump), 0);
	for (int over = 0; !over;) {
		memset(m, 0, sizeof(m));
		for (int i = 0; i < ENTRIES; i++)
			to[i] = (struct iovec){ rooms[i], ROOM }, m[i].msg_hdr.msg_iov = &to[i], m[i].msg_hdr.msg_iovlen = 1;
		int n = recvmmsg(fd, m, ENTRIES, MSG_WAITFORONE, 0);
		if (n <= 0)
			fail("recvmmsg");
		for (int i = 0; i < n; i++)
			over |= ends(rooms[i], m[i].msg_len);
	}
}

static void hold(void)
{
	int fd[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fd) < 0)
		fail("socketpair");
	puts("ok");
	fflush(stdout);
	pause();
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "hold"))
		hold();
	for (int i = 1; i < argc; i++) {
		sqpoll |= !strcmp(argv[i], "sqpoll");
		fixed |= !strcmp(argv[i], "fixed");
		selected |= !strcmp(argv[i], "selected");
		if (!strcmp(argv[i], "async"))
			flags = IOSQE_ASYNC;
	}
	several();
	set_up();
	struct iovec all = { rooms, sizeof(rooms) };
	if (fixed && syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &all, 1) < 0)
		fail("io_uring_register");
	files();
	sockets();
	puts("ok");
	return 0;
}
