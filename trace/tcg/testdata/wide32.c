// Makes system calls as a 32-bit process, by int $0x80 and by what the kernel's vDSO has (sysenter, or AMD's syscall). It is linked with no
// library, so that only a compiler is needed:
//   gcc -m32 -static -nostdlib -ffreestanding -fno-pic -no-pie -fno-stack-protector -Wl,-m,elf_i386 -Wl,-e,start
typedef unsigned long long u64;

static void *vdso;

static long gate(long nr, long a, long b, long c, long d, long e, long f)
{
	long regs[8] = { nr, a, b, c, d, e, f, (long)vdso };
	long result;
	if (vdso)
		__asm__ volatile("pushl %%ebp; pushl %%ebx; movl %%eax, %%esi; movl 4(%%esi), %%ebx; movl 8(%%esi), %%ecx;"
				 "movl 12(%%esi), %%edx; movl 20(%%esi), %%edi; movl 24(%%esi), %%ebp; pushl 28(%%esi); movl (%%esi), %%eax;"
				 "movl 16(%%esi), %%esi; call *(%%esp); addl $4, %%esp; popl %%ebx; popl %%ebp"
				 : "=a"(result) : "0"(regs) : "ecx", "edx", "esi", "edi", "memory", "cc");
	else
		__asm__ volatile("pushl %%ebp; pushl %%ebx; movl %%eax, %%esi; movl 4(%%esi), %%ebx; movl 8(%%esi), %%ecx;"
				 "movl 12(%%esi), %%edx; movl 20(%%esi), %%edi; movl 24(%%esi), %%ebp; movl (%%esi), %%eax;"
				 "movl 16(%%esi), %%esi; int $0x80; popl %%ebx; popl %%ebp"
				 : "=a"(result) : "0"(regs) : "ecx", "edx", "esi", "edi", "memory", "cc");
	return result;
}

#define CALL(nr, a, b, c, d, e, f) gate(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

enum { // include/uapi/asm/unistd_32.h
	EXIT = 1, READ = 3, WRITE = 4, OPEN = 5, CLOSE = 6, UNLINK = 10, CHMOD = 15, LSEEK = 19, GETPID = 20, ACCESS = 33, MKDIR = 39, RMDIR = 40,
	PIPE = 42, BRK = 45, IOCTL = 54, GETTIMEOFDAY = 78, MUNMAP = 91, SOCKETCALL = 102, STATFS = 99, UNAME = 122, LLSEEK = 140, WRITEV = 146,
	NANOSLEEP = 162, POLL = 168, SIGACTION = 174, SIGPROCMASK = 175, PREAD = 180, PWRITE = 181, GETCWD = 183, UGETRLIMIT = 191, MMAP2 = 192,
	FTRUNCATE64 = 194, STAT64 = 195, FSTAT64 = 197, GETUID = 199, FCNTL64 = 221, FUTEX = 240, CLOCK_GETTIME = 265, STATFS64 = 268,
	OPENAT = 295, FSTATAT64 = 300, PRLIMIT64 = 340, SOCKET = 359, SOCKETPAIR = 360, SENDTO = 369, RECVFROM = 371, STATX = 383,
	CLOCK_GETTIME64 = 403,
};

static char buffer[4096];

static void work(void)
{
	long fd = CALL(OPEN, "/tmp/wide32", 02 | 0100 | 01000, 0640, 0, 0, 0); // O_RDWR|O_CREAT|O_TRUNC
	CALL(WRITE, fd, "written by a process of 32 bits\n", 32, 0, 0, 0);
	struct { const char *base; unsigned long len; } v[2] = { { "two ", 4 }, { "pieces\n", 7 } };
	CALL(WRITEV, fd, v, 2, 0, 0, 0);
	CALL(PWRITE, fd, "far away", 8, 0x1000, 1, 0); // at 0x100001000
	CALL(PREAD, fd, buffer, 8, 0x1000, 1, 0);
	static u64 at;
	CALL(LLSEEK, fd, 1, 0x1004, &at, 0, 0);
	CALL(LSEEK, fd, -8, 1, 0, 0, 0);
	CALL(READ, fd, buffer, 100, 0, 0, 0);
	CALL(LSEEK, fd, 0, 0, 0, 0, 0);
	CALL(READ, fd, buffer, 20, 0, 0, 0);
	CALL(FTRUNCATE64, fd, 5, 0, 0, 0, 0);
	CALL(FSTAT64, fd, buffer, 0, 0, 0, 0);
	CALL(STAT64, "/tmp/wide32", buffer, 0, 0, 0, 0);
	CALL(STAT64, "/nonexistent", buffer, 0, 0, 0, 0);
	CALL(FSTATAT64, -100, "/", buffer, 0, 0, 0);
	CALL(STATX, -100, "/tmp/wide32", 0, 0x200, buffer, 0);
	CALL(FCNTL64, fd, 1, 0, 0, 0, 0); // F_GETFD
	CALL(FCNTL64, fd, 3, 0, 0, 0, 0); // F_GETFL
	CALL(FCNTL64, fd, 4, 04000, 0, 0, 0); // F_SETFL
	long m = CALL(MMAP2, 0, 8192, 3, 2, fd, 0);
	CALL(MUNMAP, m, 8192, 0, 0, 0, 0);
	CALL(MMAP2, 0, 4096, 1, 0x22, -1, 0);
	CALL(CLOSE, fd, 0, 0, 0, 0, 0);
	CALL(CHMOD, "/tmp/wide32", 0600, 0, 0, 0, 0);
	CALL(ACCESS, "/tmp/wide32", 4, 0, 0, 0, 0);
	CALL(UNLINK, "/tmp/wide32", 0, 0, 0, 0, 0);
	CALL(MKDIR, "/tmp/wide32.d", 0755, 0, 0, 0, 0);
	CALL(RMDIR, "/tmp/wide32.d", 0, 0, 0, 0, 0);
	CALL(OPENAT, -100, "/etc/nothing", 0, 0, 0, 0);
	CALL(BRK, 0, 0, 0, 0, 0, 0);
	CALL(GETPID, 0, 0, 0, 0, 0, 0);
	CALL(GETUID, 0, 0, 0, 0, 0, 0);
	CALL(UNAME, buffer, 0, 0, 0, 0, 0);
	CALL(GETCWD, buffer, sizeof(buffer), 0, 0, 0, 0);
	CALL(GETTIMEOFDAY, buffer, 0, 0, 0, 0, 0);
	CALL(CLOCK_GETTIME, 1, buffer, 0, 0, 0, 0);
	CALL(CLOCK_GETTIME64, 1, buffer, 0, 0, 0, 0);
	CALL(UGETRLIMIT, 3, buffer, 0, 0, 0, 0);
	CALL(PRLIMIT64, 0, 7, 0, buffer, 0, 0);
	CALL(STATFS, "/", buffer, 0, 0, 0, 0);
	CALL(STATFS64, "/", 84, buffer, 0, 0, 0);
	CALL(IOCTL, 1, 0x5401, buffer, 0, 0, 0);
	long span[2] = { 0, 20000000 };
	CALL(NANOSLEEP, span, 0, 0, 0, 0, 0);
	struct { long handler, flags, restorer; u64 mask; } action = { 1, 0, 0, 0 }; // SIG_IGN
	CALL(SIGACTION, 13, &action, 0, 8, 0, 0);
	u64 mask = 1 << 9;
	CALL(SIGPROCMASK, 0, &mask, 0, 8, 0, 0);
	int word = 3;
	CALL(FUTEX, &word, 0, 4, 0, 0, 0); // FUTEX_WAIT: it is another number
	CALL(FUTEX, &word, 1, 1, 0, 0, 0);
	int ends[2] = { -1, -1 };
	CALL(PIPE, ends, 0, 0, 0, 0, 0);
	CALL(WRITE, ends[1], "x", 1, 0, 0, 0);
	struct { int fd; short events, revents; } wait[2] = { { ends[0], 1, 0 }, { ends[1], 4, 0 } };
	CALL(POLL, wait, 2, 1000, 0, 0, 0);
	CALL(CLOSE, ends[0], 0, 0, 0, 0, 0);
	CALL(CLOSE, ends[1], 0, 0, 0, 0, 0);
	CALL(SOCKETPAIR, 1, 1, 0, ends, 0, 0);
	CALL(SENDTO, ends[0], "to the other", 12, 0, 0, 0);
	CALL(RECVFROM, ends[1], buffer, 100, 0, 0, 0);
	CALL(CLOSE, ends[0], 0, 0, 0, 0, 0);
	CALL(CLOSE, ends[1], 0, 0, 0, 0, 0);
	long socket[3] = { 2, 1, 0 };
	fd = CALL(SOCKETCALL, 1, socket, 0, 0, 0, 0);
	struct { short family; unsigned short port; unsigned addr; char pad[8]; } to = { 2, 0x0100, 0x0100007f, "" };
	long connect[3] = { fd, (long)&to, 16 };
	CALL(SOCKETCALL, 3, connect, 0, 0, 0, 0);
	CALL(CLOSE, fd, 0, 0, 0, 0, 0);
	CALL(511, 1, 2, 3, 0, 5, 6); // what no call has
}

__attribute__((used)) void run(long *stack)
{
	long *p = stack + 1 + stack[0] + 1;
	while (*p++)
		;
	work();
	for (; *p; p += 2)
		if (*p == 32) // AT_SYSINFO: __kernel_vsyscall
			vdso = (void *)p[1];
	if (vdso)
		work();
	vdso = 0;
	CALL(EXIT, 0, 0, 0, 0, 0, 0);
}

__asm__(".globl start\nstart: movl %esp, %eax; xorl %ebp, %ebp; pushl %eax; call run");
