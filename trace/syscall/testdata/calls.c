/* Makes many system calls, with arguments of every kind: what a tracer writes of them is compared with strace. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define P(x) ((long)(x))
static char b[4096], path[] = "calls-file";
static long q[64];
static int u[64];

static long call(long n, long a, long c, long d, long e, long f, long g) { return syscall(n, a, c, d, e, f, g); }
#define S(...) CALL(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define CALL(n, a, c, d, e, f, g, ...) call(n, P(a), P(c), P(d), P(e), P(f), P(g))

static long call32(long n, long a, long c, long d, long e, long f)
{
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "0"(n), "b"(a), "c"(c), "d"(d), "S"(e), "D"(f) : "memory", "r8", "r9", "r10", "r11");
	return r;
}
#define I(...) CALL32(__VA_ARGS__, 0, 0, 0, 0, 0)
#define CALL32(n, a, c, d, e, f, ...) call32(n, P(a), P(c), P(d), P(e), P(f))

static void handler(int sig) { (void)sig; }

static void files(void)
{
	int fd = S(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_EXCL, 0640);
	S(SYS_write, fd, "a\377\0017\033[2J\"\\\n\t\v\f\r 0123456789 and more", 40);
	S(SYS_write, fd, 1, 3);
	S(SYS_write, -1, "", 0);
	S(SYS_pwrite64, fd, "xyz", 3, 1000);
	S(SYS_pread64, fd, b, 100, 2);
	S(SYS_lseek, fd, -3, SEEK_END);
	S(SYS_read, fd, b, 10);
	S(SYS_read, fd, b, 10);
	S(SYS_lseek, fd, 5, 77);
	struct iovec v[3] = {{"abc", 3}, {"0123456789012345678901234567890123456789", 40}, {0, 0}};
	S(SYS_writev, fd, v, 3);
	S(SYS_writev, fd, v, 0);
	S(SYS_writev, fd, 16, 1);
	S(SYS_pwritev, fd, v, 2, 7, 0);
	S(SYS_pwritev2, fd, v, 2, 7, 0, 2);
	struct iovec w[2] = {{b, 5}, {b + 100, 500}};
	S(SYS_preadv, fd, w, 2, 0, 0);
	S(SYS_readv, -1, w, 2);
	S(SYS_preadv2, fd, w, 2, -1, -1, 0);
	S(SYS_ftruncate, fd, 100);
	S(SYS_truncate, path, 50);
	S(SYS_fallocate, fd, 1, 0, 4096);
	S(SYS_fallocate, fd, 0x13, 0, 4096);
	S(SYS_fadvise64, fd, 0, 0, 2);
	S(SYS_fadvise64, fd, 0, 0, 99);
	S(SYS_sync_file_range, fd, 0, 4096, 2);
	S(SYS_fsync, fd);
	S(SYS_fstat, fd, b);
	S(SYS_fstat, -1, b);
	S(SYS_stat, "/dev/null", b);
	S(SYS_lstat, "/proc/self", b);
	S(SYS_newfstatat, fd, "", b, AT_EMPTY_PATH);
	S(SYS_newfstatat, AT_FDCWD, 0, b, 0x12345);
	S(SYS_statx, AT_FDCWD, path, 0, 0x7ff, b);
	S(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | 0x4000, 0xfff, b);
	S(SYS_statx, AT_FDCWD, "/nonexistent", 0, 0x80000001, b);
	S(SYS_statfs, "/proc", b);
	S(SYS_fstatfs, fd, b);
	S(SYS_access, path, R_OK | W_OK);
	S(SYS_access, path, 0);
	S(SYS_access, path, 8);
	S(SYS_faccessat, AT_FDCWD, path, X_OK);
	S(SYS_faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS);
	S(SYS_chmod, path, 04751);
	S(SYS_fchmod, fd, 0);
	S(SYS_fchmodat, AT_FDCWD, path, 0600);
	S(SYS_fchownat, AT_FDCWD, path, -1, 0, AT_SYMLINK_NOFOLLOW);
	struct timespec t[2] = {{1, 5}, {0, UTIME_NOW}};
	S(SYS_utimensat, AT_FDCWD, path, t, 0);
	t[0].tv_nsec = UTIME_OMIT;
	t[1] = (struct timespec){1000000000, 0};
	S(SYS_utimensat, fd, 0, t, 0);
	struct timeval tv[2] = {{1, 5}, {1000000000, 0}};
	S(SYS_utimes, path, tv);
	S(SYS_utime, path, 0);
	S(SYS_link, path, "calls-link");
	S(SYS_linkat, AT_FDCWD, path, AT_FDCWD, "calls-link", 0x400);
	S(SYS_symlink, "there", "calls-symlink");
	S(SYS_readlink, "calls-symlink", b, 4096);
	S(SYS_readlinkat, AT_FDCWD, "/nonexistent", b, 4096);
	S(SYS_rename, "calls-link", "calls-link2");
	S(SYS_renameat2, AT_FDCWD, "calls-link2", AT_FDCWD, path, 1);
	S(SYS_mkdir, "calls-dir", 0755);
	S(SYS_mkdirat, AT_FDCWD, "calls-dir", 0);
	S(SYS_mknod, "calls-fifo", S_IFIFO | 0600, 0);
	S(SYS_mknodat, AT_FDCWD, "calls-fifo", S_IFCHR | 01777, 0x12345);
	int d = S(SYS_open, "calls-dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	S(SYS_getdents64, d, b, 4096);
	S(SYS_getdents64, d, b, 4096);
	S(SYS_lseek, d, 0, SEEK_SET);
	S(SYS_getdents, d, b, 4096);
	S(SYS_close, d);
	S(SYS_unlink, "calls-fifo");
	S(SYS_unlink, "calls-symlink");
	S(SYS_unlink, "calls-link2");
	S(SYS_unlinkat, AT_FDCWD, "calls-dir", AT_REMOVEDIR);
	S(SYS_rmdir, "calls-dir");
	S(SYS_getcwd, b, 1);
	S(SYS_chdir, "/nonexistent");
	S(SYS_umask, 0);
	S(SYS_umask, 027);
	S(SYS_dup, fd);
	S(SYS_dup2, fd, 30);
	S(SYS_dup3, fd, 31, O_CLOEXEC);
	S(SYS_fcntl, fd, F_GETFD);
	S(SYS_fcntl, 31, F_GETFD);
	S(SYS_fcntl, fd, F_SETFD, 1);
	S(SYS_fcntl, fd, F_GETFL);
	S(SYS_fcntl, fd, F_SETFL, O_NONBLOCK | O_APPEND);
	S(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 40);
	struct flock l = {F_WRLCK, SEEK_SET, 1, 2, 3};
	S(SYS_fcntl, fd, F_SETLK, &l);
	S(SYS_fcntl, fd, F_GETLK, &l);
	S(SYS_fcntl, fd, F_GETOWN);
	S(SYS_fcntl, fd, F_SETSIG, SIGUSR1);
	S(SYS_fcntl, fd, F_GETSIG);
	S(SYS_fcntl, fd, F_GETLEASE);
	S(SYS_fcntl, fd, 1234, 5678);
	S(SYS_flock, fd, 6);
	S(SYS_close_range, 30, 50, 4);
	S(SYS_close_range, 50, -1, 0);
	int pipes[2];
	S(SYS_pipe, pipes);
	S(SYS_pipe2, pipes, O_NONBLOCK);
	S(SYS_pipe2, 0, 0x1000000);
	S(SYS_ioctl, pipes[0], 0x541b, u);
	S(SYS_ioctl, pipes[0], 0x5401, b);
	S(SYS_ioctl, 1, 0x5413, b);
	S(SYS_ioctl, 1, 0xc0de1234, b);
	u[0] = 1;
	S(SYS_ioctl, pipes[0], 0x5421, u);
	int m = S(SYS_memfd_create, "name", 3);
	S(SYS_fcntl, m, F_ADD_SEALS, 3);
	S(SYS_fcntl, m, F_GET_SEALS);
	q[0] = 3;
	S(SYS_sendfile, m, fd, q, 10);
	S(SYS_sendfile, m, fd, 0, 10);
	q[0] = q[1] = 0;
	S(SYS_copy_file_range, fd, q, m, q + 1, 10, 0);
	S(SYS_splice, fd, q, pipes[1], 0, 5, 3);
	S(SYS_tee, pipes[0], pipes[1], 5, 2);
	S(SYS_vmsplice, pipes[1], v, 1, 0);
	struct { uint64_t flags, mode, resolve; } how = {O_RDONLY | O_CLOEXEC, 0, 8};
	S(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
	how.flags = O_CREAT, how.mode = 0644;
	S(SYS_openat2, AT_FDCWD, "/nonexistent/x", &how, sizeof how);
	S(SYS_openat2, AT_FDCWD, path, &how, 8);
	S(SYS_setxattr, path, "user.x", "v", 2, 1);
	S(SYS_getxattr, path, "user.x", b, 100);
	S(SYS_getxattr, path, "user.none", 0, 0);
	S(SYS_listxattr, path, b, 0);
	S(SYS_listxattr, path, b, 100);
	S(SYS_fremovexattr, fd, "user.x");
	struct { uint32_t n; int type; char h[128]; } handle = {128};
	S(SYS_name_to_handle_at, AT_FDCWD, path, &handle, u, 0);
	S(SYS_inotify_init1, 0x80800);
	S(SYS_inotify_add_watch, 99, path, 0xfff);
	S(SYS_fanotify_init, 4, 2);
	S(SYS_mount, "none", "/nonexistent", "tmpfs", 0xc0ed0001, "size=1");
	S(SYS_mount, "none", "/nonexistent", 0, 0x5000, 0);
	S(SYS_umount2, "/nonexistent", 2);
	S(SYS_swapon, "/nonexistent", 0x18001);
	S(SYS_unlink, path);
}

static void sockets(void)
{
	int s = S(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	S(SYS_socket, AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, IPPROTO_UDP);
	S(SYS_socket, AF_NETLINK, SOCK_RAW, 15);
	S(SYS_socket, AF_PACKET, SOCK_RAW, htons(0x800));
	S(SYS_socket, 99, 77, 55);
	u[0] = 1;
	S(SYS_setsockopt, s, SOL_SOCKET, SO_REUSEADDR, u, 4);
	S(SYS_setsockopt, s, SOL_SOCKET, SO_REUSEADDR, u, 2);
	u[1] = 3;
	S(SYS_setsockopt, s, SOL_SOCKET, SO_LINGER, u, 8);
	S(SYS_setsockopt, s, IPPROTO_TCP, 1, u, 4);
	S(SYS_setsockopt, s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3);
	S(SYS_setsockopt, s, 0, 35, "\340\0\0\1\177\0\0\1", 8);
	S(SYS_setsockopt, s, 1234, 5678, "abc", 3);
	u[2] = 4;
	S(SYS_getsockopt, s, SOL_SOCKET, SO_TYPE, u, u + 2);
	u[2] = 4;
	S(SYS_getsockopt, s, SOL_SOCKET, SO_ERROR, u, u + 2);
	u[2] = 40;
	S(SYS_getsockopt, s, SOL_SOCKET, SO_RCVBUF, u, u + 2);
	u[2] = 8;
	S(SYS_getsockopt, s, SOL_SOCKET, SO_LINGER, u, u + 2);
	u[2] = 64;
	S(SYS_getsockopt, s, IPPROTO_TCP, 13, b, u + 2);
	S(SYS_getsockopt, -1, 1, 1, b, u + 2);
	struct sockaddr_in in = {AF_INET, 0, {htonl(0x7f000001)}};
	S(SYS_bind, s, &in, sizeof in);
	S(SYS_bind, s, &in, 1);
	S(SYS_listen, s, 5);
	u[2] = 128;
	S(SYS_getsockname, s, b, u + 2);
	u[2] = 2;
	S(SYS_getsockname, s, b, u + 2);
	S(SYS_getpeername, s, b, u + 2);
	u[2] = 128;
	S(SYS_getsockname, s, &in, u + 2);
	int c = S(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_TCP);
	S(SYS_connect, c, &in, sizeof in);
	u[2] = 128;
	int a = S(SYS_accept4, s, b, u + 2, SOCK_CLOEXEC);
	S(SYS_accept, -1, 0, 0);
	S(SYS_sendto, a, "hello", 5, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0);
	S(SYS_recvfrom, c, b, 100, 0, 0, 0);
	S(SYS_recvfrom, c, b, 100, MSG_DONTWAIT, 0, 0);
	S(SYS_shutdown, c, SHUT_WR);
	S(SYS_shutdown, c, 9);
	S(SYS_recvfrom, a, b, 100, 0, 0, 0);
	struct sockaddr_un un = {AF_UNIX, "/nonexistent"};
	int x = S(SYS_socket, AF_UNIX, SOCK_DGRAM, 0);
	S(SYS_connect, x, &un, sizeof un);
	S(SYS_bind, x, "\1\0\0abstract", 11);
	S(SYS_sendto, x, "datagram", 8, 0, "\1\0\0abstract", 11);
	u[2] = 110;
	S(SYS_recvfrom, x, b, 100, 0, b + 1000, u + 2);
	struct sockaddr_in6 in6 = {AF_INET6, htons(53), htonl(7), IN6ADDR_LOOPBACK_INIT, 3};
	int y = S(SYS_socket, AF_INET6, SOCK_DGRAM, 0);
	S(SYS_connect, y, &in6, sizeof in6);
	S(SYS_connect, y, &in6, 24);
	int nl = S(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	S(SYS_bind, nl, "\20\0\0\0\0\0\0\0\1\0\0\0", 12);
	S(SYS_connect, y, "\143\0abc", 5);
	int pair[2];
	S(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
	u[2] = 12;
	S(SYS_getsockopt, pair[0], SOL_SOCKET, SO_PEERCRED, b, u + 2);
	struct iovec v[2] = {{"one", 3}, {"two and three", 13}};
	struct { struct cmsghdr h; int fd[2]; } control = {{sizeof control, SOL_SOCKET, SCM_RIGHTS}, {0, 1}};
	struct msghdr m = {0, 0, v, 2, &control, sizeof control, 0};
	S(SYS_sendmsg, pair[0], &m, MSG_NOSIGNAL);
	m.msg_control = 0, m.msg_controllen = 0;
	S(SYS_sendmsg, pair[0], &m, 0);
	struct iovec w[2] = {{b, 4}, {b + 100, 100}};
	char space[200];
	struct msghdr n = {0, 0, w, 2, space, sizeof space, 0};
	S(SYS_recvmsg, pair[1], &n, 0);
	n.msg_name = b + 500, n.msg_namelen = 128, n.msg_controllen = 0;
	S(SYS_recvmsg, pair[1], &n, 0);
	S(SYS_recvmsg, pair[1], &n, MSG_DONTWAIT);
	S(SYS_recvmsg, -1, 0, 0);
	struct mmsghdr mm[2] = {{m, 0}, {m, 0}};
	S(SYS_sendmmsg, pair[0], mm, 2, 0);
	mm[0].msg_hdr = n, mm[1].msg_hdr = n;
	S(SYS_recvmmsg, pair[1], mm, 2, MSG_DONTWAIT, 0);
	S(SYS_recvmmsg, pair[1], mm, 2, MSG_DONTWAIT, 0);
	struct pollfd p[3] = {{a, POLLIN, 0}, {pair[0], POLLOUT | POLLPRI, 0}, {-1, 7, 0}};
	S(SYS_poll, p, 3, 0);
	S(SYS_poll, p + 2, 1, 0);
	S(SYS_poll, 0, 0, 1);
	struct timespec ts = {0, 1000};
	sigset_t set;
	sigemptyset(&set), sigaddset(&set, SIGINT), sigaddset(&set, 34);
	S(SYS_ppoll, p + 2, 1, &ts, &set, 8);
	ts.tv_nsec = 1000;
	S(SYS_ppoll, p, 2, &ts, 0, 0);
	fd_set r, o;
	struct timeval tv = {0, 100};
	FD_ZERO(&r);
	FD_ZERO(&o);
	FD_SET(a, &r);
	FD_SET(pair[0], &o);
	FD_SET(0, &o);
	S(SYS_select, 20, &r, &o, 0, &tv);
	FD_ZERO(&r);
	FD_SET(s, &r);
	S(SYS_select, 20, &r, 0, 0, &tv);
	struct { void *p; long n; } mask = {&set, 8};
	S(SYS_pselect6, 20, &r, 0, 0, &ts, &mask);
	S(SYS_select, 0, 0, 0, 0, &tv);
	int e = S(SYS_epoll_create1, EPOLL_CLOEXEC);
	struct epoll_event ev = {EPOLLOUT | EPOLLET, {.u64 = 0x123456789}};
	S(SYS_epoll_ctl, e, EPOLL_CTL_ADD, pair[0], &ev);
	S(SYS_epoll_ctl, e, EPOLL_CTL_DEL, 77, &ev);
	S(SYS_epoll_wait, e, b, 10, 0);
	S(SYS_epoll_wait, e, b, 10, 0);
	S(SYS_epoll_pwait, e, b, 10, 0, &set, 8);
	S(SYS_epoll_pwait2, e, b, 10, &ts, &set, 8);
	S(SYS_eventfd2, 5, 0x80801);
	S(SYS_signalfd4, -1, &set, 8, 0x80000);
	S(SYS_timerfd_create, 1, 0x80000);
	struct itimerspec it = {{0, 0}, {5, 6}};
	S(SYS_timerfd_settime, 99, 1, &it, b);
	static const int requests[] = {SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK, SIOCGIFMETRIC, SIOCGIFMTU,
				       SIOCGIFINDEX, SIOCGIFTXQLEN, SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFTXQLEN, SIOCSIFADDR, SIOCSIFNETMASK};
	for (int i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
		struct ifreq f = {"lo"};
		if (i < 9)
			S(SYS_ioctl, s, requests[i], &f);
		memcpy(&f, "nope", 5);
		memcpy(&f.ifr_addr, "\2\0\0\0\177\0\0\1", 8);
		S(SYS_ioctl, s, requests[i], &f);
	}
	S(SYS_ioctl, s, SIOCGIFMTU, 0);
}

static void processes(void)
{
	struct sigaction { void *h; long flags; void *r; long mask; } sa = {handler, SA_RESTART | SA_SIGINFO, 0, 1L << 62 | 5};
	S(SYS_rt_sigaction, SIGUSR2, &sa, b, 8);
	S(SYS_rt_sigaction, 99, &sa, 0, 8);
	S(SYS_rt_sigaction, SIGHUP, 0, b, 8);
	signal(SIGUSR1, handler);
	S(SYS_kill, getpid(), SIGUSR1);
	S(SYS_tgkill, getpid(), S(SYS_gettid), 0);
	S(SYS_kill, getpid(), 40 - 8 + 100);
	q[0] = -1;
	S(SYS_rt_sigprocmask, SIG_SETMASK, q, q + 1, 8);
	q[0] = 0;
	S(SYS_rt_sigprocmask, SIG_SETMASK, q, q + 1, 8);
	S(SYS_rt_sigprocmask, 7, q, 0, 8);
	S(SYS_rt_sigpending, q, 8);
	stack_t st = {b, 0, 4096};
	S(SYS_sigaltstack, &st, b);
	struct timespec ts = {0, 10};
	q[0] = 1 << 9;
	S(SYS_rt_sigtimedwait, q, b, &ts, 8);
	u[0] = 10, u[1] = 0, u[2] = -1;
	S(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, u);
	int child = S(SYS_fork);
	if (child == 0)
		_exit(7);
	S(SYS_wait4, child, u, 0, b);
	child = S(SYS_clone, SIGCHLD, 0);
	if (child == 0) {
		S(SYS_kill, getpid(), SIGTERM);
		_exit(0);
	}
	S(SYS_waitid, 1, child, b, 0x1000004, 0);
	S(SYS_wait4, -1, u, WNOHANG | WUNTRACED, 0);
	S(SYS_wait4, -1, u, __WALL, 0);
	struct { uint64_t flags, pidfd, child, parent, sig, stack, size, tls, set, n, cgroup; } ca = {0x101000, P(u), 0, P(u + 1), SIGCHLD};
	child = S(SYS_clone3, &ca, sizeof ca);
	if (child == 0)
		_exit(0);
	S(SYS_clone3, &ca, 8);
	S(SYS_wait4, child, 0, 0, 0);
	S(SYS_wait4, 1, 0, 0, 0);
	S(SYS_prctl, 15, "a long name of a thread");
	S(SYS_prctl, 16, b);
	S(SYS_prctl, 4, 1);
	S(SYS_prctl, 3);
	S(SYS_prctl, 1, 9);
	S(SYS_prctl, 2, u);
	S(SYS_prctl, 23, 21);
	S(SYS_prctl, 24, 99);
	S(SYS_prctl, 27);
	S(SYS_prctl, 39, 0, 0, 0, 0);
	S(SYS_prctl, 38, 1, 0, 0, 0);
	S(SYS_prctl, 47, 4, 0, 0, 0);
	S(SYS_prctl, 999, 1, 2, 3, 4);
	S(SYS_prctl, 22, 2, 0);
	S(SYS_seccomp, 2, 0, b);
	S(SYS_personality, 0xffffffff);
	S(SYS_getrlimit, 7, b);
	S(SYS_prlimit64, 0, 3, 0, b);
	S(SYS_prlimit64, 0, 99, 0, b);
	S(SYS_getrusage, -1, b);
	S(SYS_getpriority, 0, 0);
	S(SYS_setpriority, 0, 0, 5);
	S(SYS_sched_getaffinity, 0, 128, b);
	S(SYS_sched_setaffinity, 0, 8, b);
	S(SYS_sched_getscheduler, 0);
	S(SYS_sched_getparam, 0, u);
	S(SYS_sched_setscheduler, 0, 77, u);
	S(SYS_sched_rr_get_interval, 0, b);
	S(SYS_sched_getattr, 0, b, 48, 0);
	S(SYS_ioprio_get, 1, 0);
	S(SYS_ioprio_set, 1, 0, 0x4004);
	struct { uint32_t v; int pid; } h = {0x20080522, 0};
	S(SYS_capget, &h, b);
	S(SYS_uname, b);
	S(SYS_getuid);
	S(SYS_getresuid, u, u + 1, u + 2);
	S(SYS_getgroups, 0, 0);
	S(SYS_setgroups, -1, 0);
	S(SYS_getcpu, 0, 0, 0);
	S(SYS_getrandom, b, 4, 1);
	S(SYS_unshare, 0x20000001);
	S(SYS_setns, -1, 0x20000);
	S(SYS_nanosleep, &ts, b);
	S(SYS_clock_nanosleep, 1, 0, &ts, 0);
	S(SYS_clock_gettime, 4, b);
	S(SYS_clock_getres, -6, b);
	S(SYS_clock_gettime, 99, b);
	S(SYS_gettimeofday, b, b + 100);
	S(SYS_alarm, 100);
	S(SYS_setitimer, 0, 0, 0);
	struct itimerval iv = {{0, 0}, {0, 0}};
	S(SYS_setitimer, 0, &iv, b);
	S(SYS_getitimer, 1, b);
	struct { long v; int sig, notify; char rest[48]; } se = {7, SIGUSR1, 0};
	S(SYS_timer_create, 0, &se, u);
	S(SYS_timer_create, 0, 0, u + 1);
	S(SYS_timer_gettime, u[0], b);
	S(SYS_timer_delete, u[0]);
	S(SYS_mprotect, 0, 4096, 7);
	S(SYS_mmap, 0, 4096, 0x1000000, 0x40022, -1, 0);
	long a = S(SYS_mmap, 0, 8192, 3, 0x8022, -1, 0);
	S(SYS_mremap, a, 8192, 4096, 1);
	S(SYS_mremap, a, 4096, 4096, 3, 0x1000);
	S(SYS_madvise, a, 4096, 4);
	S(SYS_madvise, a, 4096, 1000);
	S(SYS_msync, a, 4096, 5);
	S(SYS_mlock2, a, 4096, 1);
	S(SYS_mlockall, 0);
	S(SYS_munmap, a, 4096);
	S(SYS_brk, 0);
	S(SYS_mbind, 0, 4096, 1, 0, 0, 0);
	u[0] = 5;
	S(SYS_futex, u, FUTEX_WAIT_PRIVATE, 4, 0, 0, 0);
	S(SYS_futex, u, FUTEX_WAIT, 5, &ts, 0, 0);
	S(SYS_futex, u, FUTEX_WAIT_BITSET | 128, 4, 0, 0, -1);
	S(SYS_futex, u, FUTEX_WAKE_OP | 128, 1, 1, u + 1, 0x14000001);
	S(SYS_futex, u, FUTEX_CMP_REQUEUE, 1, 1, u + 1, 4);
	S(SYS_futex, u, FUTEX_UNLOCK_PI, 0, 0, 0, 0);
	S(SYS_futex, u, 77, 1, 2, 3, 4);
	S(SYS_membarrier, 0, 0, 0);
	S(SYS_arch_prctl, 0x1003, q);
	S(SYS_arch_prctl, 0x3001, q);
	S(SYS_shmctl, S(SYS_shmget, 0, 4096, 01600), 0, 0);
	S(SYS_shmctl, -1, 2, b);
	S(SYS_semget, 0x1234, 1, 0600);
	struct { unsigned short n; short op, flags; } ops[2] = {{0, -1, 0x1000}, {1, 1, 0x800}};
	S(SYS_semop, -1, ops, 2);
	S(SYS_msgget, 0x1234, 0);
	S(SYS_msgsnd, -1, "\1\0\0\0\0\0\0\0text", 4, 0x800);
	S(SYS_mq_open, "none", 2, 0, 0);
	S(SYS_mq_unlink, "none");
	S(SYS_keyctl, 0, -3, 0);
	S(SYS_keyctl, 6, -2, b, 10);
	S(SYS_add_key, "user", "description", "payload", 7, -99);
	S(SYS_syslog, 10);
	S(SYS_syslog, 3, b, 0);
	S(SYS_reboot, 1, 2, 3, 4);
	S(SYS_sethostname, 0, -1);
	S(SYS_delete_module, "none", 0x800);
	S(SYS_finit_module, -1, "a=b", 1);
	S(SYS_kcmp, getpid(), getpid(), 1, 0, 0);
	struct iovec local = {b, 3}, remote = {path, 3};
	S(SYS_process_vm_readv, getpid(), &local, 1, &remote, 1, 0);
	S(SYS_pidfd_open, getpid(), 0);
	S(SYS_pidfd_send_signal, -1, 0, 0, 0);
	S(SYS_io_uring_setup, 1, b);
	S(SYS_io_setup, 0, q);
	S(SYS_perf_event_open, 0, 0, -1, -1, 8);
	S(SYS_bpf, 0, 0, 0);
	S(SYS_userfaultfd, 0x80000);
	S(SYS_landlock_create_ruleset, 0, 0, 1);
	S(SYS_ptrace, 0x4206, 1, 0, 1);
	char *argv[] = {"a", "b c", 0}, *envp[] = {"A=1", 0};
	S(SYS_execve, "/nonexistent", argv, envp);
	S(SYS_execveat, AT_FDCWD, "/nonexistent", 0, 0, AT_EMPTY_PATH);
	S(SYS_execve, 0, 8, 8);
	S(SYS_chdir, "/");
	S(SYS_getcwd, b, 100);
	S(SYS_sched_yield);
}

static void rare(void)
{
	struct { uint32_t size, policy; uint64_t flags; int nice; uint32_t prio; uint64_t runtime, deadline, period; } attr = {48, 0, 0x40, 3, 0, 1, 2, 3};
	S(SYS_sched_setattr, -1, &attr, 0);
	uint32_t perf[28] = {1, 112, 0, 0, 4000, 0, 7, 0, 3};
	S(SYS_perf_event_open, perf, -1, -1, -1, 8);
	struct { uint32_t type, key, value, max, flags; } map = {1, 4, 8, 1, 0x80000000};
	S(SYS_bpf, 999, &map, 20);
	struct { uint64_t access; int fd; } __attribute__((packed)) rule = {0x1003, -1};
	S(SYS_landlock_create_ruleset, &rule, 8, 0x80);
	S(SYS_landlock_add_rule, -1, 1, &rule, 0);
	S(SYS_landlock_add_rule, -1, 77, &rule, 1);
	S(SYS_landlock_restrict_self, -1, 0);
	struct { long flags, maxmsg, msgsize, cur, r[4]; } mq = {O_NONBLOCK, 3, 100, 0};
	S(SYS_mq_open, "no/ne", O_CREAT | O_RDWR, 0600, &mq);
	S(SYS_mq_getsetattr, -1, &mq, b);
	S(SYS_mq_timedsend, -1, "message", 7, 3, 0);
	S(SYS_mq_timedreceive, -1, b, 100, u, 0);
	S(SYS_mq_notify, -1, 0);
	S(SYS_io_destroy, 0x1234);
	S(SYS_io_getevents, 0, 1, 1, b, 0);
	S(SYS_ioprio_set, 1, -1, 0x6000);
	struct { uint32_t n; int type; char h[8]; } handle = {8, 1, "abc"};
	S(SYS_open_by_handle_at, -1, &handle, O_RDONLY | O_PATH);
	struct { uint64_t val, addr; uint32_t flags, r; } waiters[2] = {{1, P(u), 2}, {2, P(u + 1), 0x82}};
	S(SYS_futex_waitv, waiters, 2, 1, 0, 1);
	int f = S(SYS_fsopen, "tmpfs", 1);
	S(SYS_fsconfig, f, 1, "size", "1m", 0);
	S(SYS_fsconfig, f, 0, "ro", 0, 0);
	S(SYS_fsconfig, f, 2, "x", "yz", 2);
	S(SYS_fsconfig, f, 3, "p", "/x", AT_FDCWD);
	S(SYS_fsconfig, f, 5, "fd", 0, 3);
	S(SYS_fsconfig, -1, 6, 0, 0, 0);
	S(SYS_fsconfig, -1, 99, 0, 8, 1);
	S(SYS_fsmount, -1, 1, 0x23);
	S(SYS_fspick, -1, "/", 3);
	S(SYS_open_tree, -1, "x", 0x80001);
	S(SYS_move_mount, -1, "", -1, "", 0x44);
	uint64_t ma[4] = {1, 2, 1 << 18, 0};
	S(SYS_mount_setattr, -1, "x", 0x8000, ma, 32);
	struct iovec v[2] = {{b, 5}, {0, 500}};
	S(SYS_process_madvise, -1, v, 2, 4, 0);
	S(SYS_process_vm_writev, 0, v, 1, v, 2, 0);
	S(SYS_process_mrelease, -1, 0);
	void *pages[2] = {b, 0};
	int nodes[2] = {0, 1};
	S(SYS_move_pages, -1, 2, pages, nodes, u, 2);
	S(SYS_migrate_pages, -1, 0, 0, 0);
	S(SYS_get_mempolicy, 0, 0, 0, 0, 4);
	S(SYS_set_mempolicy, 0x8001, 0, 0);
	S(SYS_fanotify_init, 0x205, O_RDWR);
	S(SYS_fanotify_mark, -1, 0x11, 0x40000032, AT_FDCWD, "/x");
	S(SYS_fanotify_mark, -1, 2, 1, -1, 0);
	S(SYS_io_uring_enter, -1, 1, 2, 3, 0, 8);
	S(SYS_io_uring_register, -1, 2, nodes, 2);
	S(SYS_io_uring_register, -1, 999, 0, 0);
	S(SYS_ptrace, 12, -1, 0, b);
	S(SYS_ptrace, 7, -1, 0, 9);
	S(SYS_ptrace, 0x4200, -1, 0, 0x100001);
	S(SYS_ptrace, 1, -1, b, b);
	S(SYS_ptrace, 5, -1, 8, 9);
	S(SYS_ptrace, 777, 1, 2, 3);
	S(SYS_kcmp, 0, 0, 0, 1, 2);
	S(SYS_kcmp, 0, 0, 99, 1, 2);
	S(SYS_seccomp, 3, 0, b);
	u[0] = 0x7fff0000;
	S(SYS_seccomp, 2, 0, u);
	S(SYS_seccomp, 99, 1, 0);
	S(SYS_prctl, 5, u);
	S(SYS_prctl, 8, 1);
	S(SYS_prctl, 19, u);
	S(SYS_prctl, 21);
	S(SYS_prctl, 25, u);
	S(SYS_prctl, 28, 0xff00);
	S(SYS_prctl, 30);
	S(SYS_prctl, 35, 9, 1, 0, 0);
	S(SYS_prctl, 36, 1);
	S(SYS_prctl, 37, u);
	S(SYS_prctl, 40, u);
	S(SYS_prctl, 41, 1, 2, 3, 4);
	S(SYS_prctl, 42, 0, 0, 0, 0);
	S(SYS_prctl, 47, 1, 12, 0, 0);
	S(SYS_prctl, 52, 0);
	S(SYS_prctl, 53, 9, 2);
	S(SYS_prctl, 0x59616d61, 0);
	S(SYS_prctl, 0x53564d41, 0, 0, 4096, "name");
	S(SYS_keyctl, 3, -99);
	S(SYS_keyctl, 1, "a/b");
	S(SYS_keyctl, 2, -9, "data", 4);
	S(SYS_keyctl, 8, -99, -3);
	S(SYS_keyctl, 10, -99, "user", "description", 0);
	S(SYS_keyctl, 4, -99, -1, 0);
	S(SYS_keyctl, 5, -99, 0x3f010101);
	S(SYS_keyctl, 15, -99, 3);
	S(SYS_keyctl, 99, 1, 2, 3, 4);
	S(SYS_request_key, "user", "none", 0, -3);
	S(SYS_capset, b, b);
	struct { int modes; int pad; long rest[25]; } tx = {0};
	S(SYS_clock_adjtime, -1, &tx);
	S(SYS_msgrcv, -1, b, 10, 1, 0x1800);
	S(SYS_msgctl, S(SYS_msgget, 0, 0x1ff), 0, 0);
	S(SYS_msgctl, -1, 0x102, b);
	S(SYS_semctl, -1, 0, 12, 0);
	S(SYS_shmat, -1, 0, 0x3000);
	S(SYS_shmdt, 1);
	S(SYS_quotactl, 0x80000700, "x", 0, 0);
	S(SYS_swapoff, "x");
	S(SYS_acct, "/nonexistent/x");
	S(SYS_pivot_root, "x", "y");
	S(SYS_chroot, "x");
	S(SYS_ioperm, 0, 0, 5);
	S(SYS_iopl, 9);
	S(SYS_kexec_file_load, -1, -1, 2, "x", 3);
	S(SYS_init_module, 0, 0, "x");
	S(SYS_memfd_secret, 77);
	S(SYS_pkey_alloc, 1, 1);
	S(SYS_pkey_mprotect, 0, 0, 3, 5);
	S(SYS_pkey_free, 99);
	S(SYS_remap_file_pages, 0, 0, 0, 0, 0);
	S(SYS_lookup_dcookie, 0, 0, 0);
	S(SYS_rt_tgsigqueueinfo, -1, -1, 1, 0);
	S(SYS_rt_sigsuspend, 0, 8);
	S(SYS_pidfd_getfd, -1, 1, 0);
	S(SYS_tkill, -1, 1);
	S(SYS_getpgid, -1);
	S(SYS_setpgid, -1, 0);
	S(SYS_setreuid, -1, -1);
	S(SYS_setresgid, -1, -1, -1);
	S(SYS_setfsuid, -1);
	S(SYS_timer_settime, 99, 1, 0, 0);
	S(SYS_settimeofday, 0, 0);
	S(SYS_ustat, 0x1234567, b);
	S(SYS_getitimer, 9, b);
	S(SYS_set_robust_list, 0, 1);
	S(SYS_get_robust_list, 0, q, q + 1);
	S(SYS_uselib, "x");
	S(SYS_mincore, 0, 0, b);
	S(SYS_readahead, -1, 0, 5);
	S(SYS_syncfs, -1);
	S(SYS_futimesat, -1, "x", 0);
}

static void compat(void)
{
	I(20); /* getpid */
	int fd = I(5, path, O_RDWR | O_CREAT, 0600); /* open */
	static char text[] = "thirty-two bits";
	I(4, fd, text, 15);
	I(19, fd, 0, 0);
	I(3, fd, b, 10);
	I(197, fd, b); /* fstat64 */
	I(108, fd, b); /* fstat */
	I(268, path, 84, b); /* statfs64 */
	I(99, path, b); /* statfs */
	static uint32_t v[4];
	v[0] = P(text), v[1] = 6, v[2] = P(text), v[3] = 3;
	I(146, fd, v, 2); /* writev */
	I(180, fd, b, 5, 2, 0); /* pread64 */
	I(194, fd, 100, 0); /* ftruncate64 */
	I(140, fd, 0, 5, q, 1); /* _llseek */
	I(221, fd, 3); /* fcntl64 */
	I(175, 0, 0, q, 8); /* rt_sigprocmask */
	I(174, 12, 0, b, 8); /* rt_sigaction */
	I(191, 7, b); /* ugetrlimit */
	I(265, 1, b); /* clock_gettime */
	I(403, 1, b); /* clock_gettime64 */
	I(78, b, 0); /* gettimeofday */
	I(122, b); /* uname */
	I(77, 0, b); /* getrusage */
	I(192, 0, 4096, 3, 0x22, -1); /* mmap2 */
	I(33, path, 4); /* access */
	I(10, path); /* unlink */
	I(199); /* getuid32 */
	I(45, 0); /* brk */
	I(240, u, 1, 1); /* futex */
	I(6, fd);
	I(6, fd);
	I(355, b, 4, 0); /* getrandom */
	static uint32_t s[6], m[7], n[4];
	s[0] = 1, s[1] = 0x80002;
	int fds[2] = {I(102, 1, s)}; /* socketcall: socket */
	static char address[16] = "\1\0\0ia32";
	s[0] = fds[0], s[1] = P(address), s[2] = 7;
	I(102, 2, s); /* bind */
	I(102, 3, s); /* connect */
	s[1] = P("message"), s[2] = 7, s[3] = 0x4000;
	I(102, 9, s); /* send */
	s[1] = P(b), s[2] = 100, s[3] = 0x40, u[5] = 110, s[4] = P(b + 200), s[5] = P(u + 5);
	I(102, 12, s); /* recvfrom */
	I(102, 10, s); /* recv: nothing there */
	n[0] = P("one"), n[1] = 3, n[2] = P("two"), n[3] = 3;
	m[2] = P(n), m[3] = 2;
	s[1] = P(m), s[2] = 0x4000;
	I(102, 16, s); /* sendmsg */
	n[0] = P(b), n[1] = 2, n[2] = P(b + 100), n[3] = 100;
	I(102, 17, s); /* recvmsg */
	s[1] = P(b), s[2] = P(u + 5), u[5] = 100;
	I(102, 6, s); /* getsockname */
	s[1] = 1, s[2] = 7, s[3] = P(u), s[4] = P(u + 5), u[5] = 4;
	I(102, 15, s); /* getsockopt */
	I(102, 14, s); /* setsockopt, too short */
	I(102, 99, s);
	I(102, 1, 8);
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1 && argv[1][0] == 'f')
		files();
	if (argc > 1 && argv[1][0] == 's')
		sockets();
	if (argc > 1 && argv[1][0] == 'p')
		processes();
	if (argc > 1 && argv[1][0] == 'r')
		rare();
	if (argc > 1 && argv[1][0] == 'c')
		compat();
	return 3;
}
