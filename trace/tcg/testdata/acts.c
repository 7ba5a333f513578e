// Does what a shell cannot, each by its name: see doors_guest_test.go.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

static struct sockaddr_in at(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
	return a;
}

int main(int argc, char **argv)
{
	const char *act = argc > 1 ? argv[1] : "";
	if (!strcmp(act, "drop")) {
		if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
			return 1;
		return setuid(0) ? 7 : 8; // refused: no event
	}
	if (!strcmp(act, "rise")) { // by a set-user-ID program
		if (setresuid(1000, 1000, 1000))
			return 1;
		execl("/risen", "risen", "cut", "/none", NULL);
		return 2;
	}
	if (!strcmp(act, "memfd")) {
		int from = open("/bin/busybox", O_RDONLY), to = memfd_create("payload", MFD_CLOEXEC);
		struct stat s;
		if (from < 0 || to < 0 || fstat(from, &s) || sendfile(to, from, NULL, s.st_size) != s.st_size)
			return 1;
		char *args[] = {"busybox", "true", "in memory", NULL};
		fexecve(to, args, environ);
		return 2;
	}
	if (!strcmp(act, "udp")) {
		struct sockaddr_in bound = at(5300), peer = at(53), any = at(0);
		int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
		return bind(c, (void *)&any, sizeof any) || bind(s, (void *)&bound, sizeof bound) || connect(c, (void *)&peer, sizeof peer);
	}
	if (!strcmp(act, "packet"))
		return socket(AF_PACKET, SOCK_RAW, htons(3)) < 0 || socket(AF_INET, SOCK_RAW, 1) < 0;
	if (!strcmp(act, "code")) { // memory that can be executed: each sort once, and what is none
		const size_t page = 4096;
		const int rw = PROT_READ | PROT_WRITE, rx = PROT_READ | PROT_EXEC;
		char *a = mmap(NULL, 4 * page, rw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int i = 0; i < 500; i++) // as compilers do
			if (mprotect(a, page, rx) || mprotect(a, page, rw))
				return 1;
		if (mmap(NULL, page, rw | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) // known already
			return 2;
		int m = memfd_create("code", 0), f = open("/bin/busybox", O_RDONLY);
		if (ftruncate(m, page) || mmap(NULL, page, rx, MAP_SHARED, m, 0) == MAP_FAILED)
			return 3;
		if (mmap(NULL, page, rx, MAP_PRIVATE, f, 0) == MAP_FAILED) // of a file: no event
			return 4;
		char *t = mmap(NULL, page, rw, MAP_PRIVATE, f, 0);
		t[0] = 1;
		if (mprotect(t, page, rx))
			return 5;
		char *heap = (char *)(((unsigned long)sbrk(4 * page) + page) & ~(page - 1));
		if (mprotect(heap, page, rw | PROT_EXEC))
			return 6;
		char here;
		if (mprotect((void *)((unsigned long)&here & ~(page - 1)), page, rw | PROT_EXEC))
			return 7;
		if (!fork()) // it has what its parent has
			_exit(0);
		return 0;
	}
	if (!strcmp(act, "refused")) {
		int f = open("/lib/modules/dummy.ko", O_RDONLY);
		if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
			return 1;
		setuid(0);
		setresgid(-1, 0, -1);
		syscall(SYS_finit_module, f, "numdummies=0", 0);
		ptrace(PTRACE_ATTACH, 1, NULL, NULL);
		ptrace(PTRACE_ATTACH, 999999, NULL, NULL); // there is none: no refusal
		mount("no", "/tmp", "tmpfs", 0, NULL);
		umount2("/proc", MNT_DETACH);
		char attr[128] = {0};
		syscall(SYS_bpf, 5, attr, sizeof attr); // BPF_PROG_LOAD
		chroot("/tmp");
		unshare(CLONE_NEWNET);
		unshare(CLONE_FILES); // what anybody may
		syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, 1, 0), 0, 0);
		unsigned int event[32] = {1, sizeof event}; // the processor's time, in the kernel too
		syscall(SYS_perf_event_open, event, -1, 0, -1, 0);
		open("/etc/shadow-", O_RDONLY);
		struct sock_filter filter[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setns, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
		if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
			return 2;
		syscall(SYS_setns, 3, 0x20000000);
		return 0;
	}
	if (!strcmp(act, "told")) { // what can be had of a file in other ways than read: a line for each that works
		int out = open("/tmp/told", O_RDWR | O_CREAT | O_TRUNC, 0600), pipes[2];
		if (out < 0 || pipe(pipes))
			return 1;
		for (int i = 2; i < argc; i++) {
			int in = open(argv[i], O_RDONLY);
			if (in < 0) {
				printf("open %s: %s\n", argv[i], strerror(errno));
				continue;
			}
			if (sendfile(out, in, NULL, 4096) > 0)
				printf("sendfile %s\n", argv[i]);
			if (splice(in, NULL, pipes[1], NULL, 4096, SPLICE_F_NONBLOCK) > 0)
				printf("splice %s\n", argv[i]);
			if (syscall(SYS_copy_file_range, in, NULL, out, NULL, 4096, 0) > 0)
				printf("copy_file_range %s\n", argv[i]);
			if (mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, in, 0) != MAP_FAILED || mmap(NULL, 4096, PROT_READ, MAP_SHARED, in, 0) != MAP_FAILED)
				printf("mmap %s\n", argv[i]);
			close(in);
		}
		return 0;
	}
	if (!strcmp(act, "tree")) { // mounts by the calls of Linux 5.2 and newer
		struct { unsigned long set, clear, propagation, userns; } readonly = {.set = 1};
		int fs = syscall(SYS_fsopen, "tmpfs", 0);
		if (fs < 0 || syscall(SYS_fsconfig, fs, 1, "source", "new", 0) || syscall(SYS_fsconfig, fs, 6, NULL, NULL, 0))
			return 1;
		int made = syscall(SYS_fsmount, fs, 0, 0);
		mkdir("/tmp/tree", 0700), mkdir("/tmp/twin", 0700);
		if (made < 0 || syscall(SYS_move_mount, made, "", AT_FDCWD, "/tmp/tree", 4))
			return 2;
		mkdir("/tmp/tree/part", 0700);
		int part = syscall(SYS_open_tree, AT_FDCWD, "/tmp/tree/part", 1);
		if (part < 0)
			return 3;
		/* Since 5.12. What is mounted nowhere yet is no event. */
		int old = syscall(SYS_mount_setattr, part, "", 0x1000, &readonly, sizeof readonly) && errno == ENOSYS;
		if (syscall(SYS_move_mount, part, "", AT_FDCWD, "/tmp/twin", 4) || chdir("/tmp"))
			return 4;
		if (!old && (syscall(SYS_mount_setattr, AT_FDCWD, "tree", 0, &readonly, sizeof readonly) ||
			     syscall(SYS_mount_setattr, made, "", 0x1000, &readonly, sizeof readonly)))
			return 5;
		int again = syscall(SYS_fspick, AT_FDCWD, "/tmp/tree", 0);
		if (again < 0 || syscall(SYS_fsconfig, again, 0, "ro", NULL, 0) || syscall(SYS_fsconfig, again, 7, NULL, NULL, 0))
			return 6;
		if (mount(NULL, "/tmp/tree", NULL, MS_REMOUNT, NULL) || mkdir("/tmp/third", 0700))
			return 7;
		int whole = syscall(SYS_open_tree, AT_FDCWD, "/tmp/tree", 1);
		if (whole < 0 || syscall(SYS_move_mount, whole, "", AT_FDCWD, "/tmp/third", 4))
			return 8;
		int moved = syscall(SYS_open_tree, AT_FDCWD, "/tmp/third", 0);
		if (moved < 0 || mkdir("/tmp/fourth", 0700) || syscall(SYS_move_mount, moved, "", AT_FDCWD, "/tmp/fourth", 4))
			return 9;
		for (int fd = fs; fd <= moved; fd++)
			close(fd);
		if (umount("/tmp/fourth") || umount("/tmp/twin") || umount("/tmp/tree"))
			return 10;
		/* In a mount namespace of its own. */
		if (unshare(CLONE_NEWNS) || mount("jail", "/tmp/tree", "tmpfs", 0, NULL) || chroot("/tmp/tree") || mkdir("/in", 0700) ||
		    mount("root", "/in", "tmpfs", 0, NULL) || mkdir("/in/old", 0700) || syscall(SYS_pivot_root, "/in", "/in/old") || umount("/old"))
			return 11;
		return old ? 100 : 0;
	}
	if (!strcmp(act, "cut"))
		return truncate(argv[2], 5);
	return 99;
}
