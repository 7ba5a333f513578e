package syscall

import (
	"encoding/hex"
	"strings"
	"testing"
)

// b makes bytes of hexadecimal digits, in which blanks do not count.
func b(s string) []byte {
	out, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return out
}

func text(tag uint8, s string) Data { return Data{Tag: tag, Bytes: []byte(s)} }

func raw(tag uint8, s string) Data { return Data{Tag: tag, Bytes: b(s)} }

// What is expected is what strace 6.1 writes.
func TestCalls(t *testing.T) {
	const none = 0xfffffffffffffff
	minus := func(n int64) uint64 { return uint64(-n) }
	for _, c := range []struct {
		name   string
		args   [6]uint64
		data   []Data
		result int64
		want   string
	}{
		{"read", [6]uint64{3, 0x7fff0000, 5}, []Data{text(0, "a\x00\x7f\"\n")}, 5, `read(3, "a\0\177\"\n", 5) = 5`},
		{
			"read",
			[6]uint64{3, 0x7fff0000, 832},
			[]Data{text(0, "\x7fELF\x02\x01\x01\x03\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00>\x00\x01\x00\x00\x00\x20\x90\x02\x00\x00\x00\x00\x00")},
			832,
			`read(3, "\177ELF\2\1\1\3\0\0\0\0\0\0\0\0\3\0>\0\1\0\0\0 \220\2\0\0\0\0\0"..., 832) = 832`,
		},
		{"read", [6]uint64{0, 0x7fff0000, 5}, nil, -11, `read(0, 0x7fff0000, 5) = -1 EAGAIN (Resource temporarily unavailable)`},
		{"read", [6]uint64{0, 0x7fff0000, 5}, nil, -512, `read(0, 0x7fff0000, 5) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)`},
		{"read", [6]uint64{3, 0x7fff0000, 5}, nil, 0, `read(3, "", 5) = 0`},
		{"write", [6]uint64{1, 0x7fff0000, 6}, []Data{text(0, "hello\n")}, 6, `write(1, "hello\n", 6) = 6`},
		{"openat", [6]uint64{minus(100), 1, 0x241, 0o666}, []Data{text(0, "out.txt")}, 3, `openat(AT_FDCWD, "out.txt", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3`},
		{"openat", [6]uint64{minus(100), 1, 0x90800}, []Data{text(0, ".")}, 3, `openat(AT_FDCWD, ".", O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_DIRECTORY) = 3`},
		{"openat", [6]uint64{minus(100), 0xdead, 0x90800000}, nil, -14, `openat(AT_FDCWD, 0xdead, O_RDONLY|0x90800000) = -1 EFAULT (Bad address)`},
		{"access", [6]uint64{1, 4}, []Data{text(0, "/etc/ld.so.preload")}, -2, `access("/etc/ld.so.preload", R_OK) = -1 ENOENT (No such file or directory)`},
		{"mmap", [6]uint64{0, 8192, 3, 0x22, 0xffffffff, 0}, nil, 0x7f1234560000, `mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f1234560000`},
		{"mmap", [6]uint64{0x7f0000, 4096, 5, 0x812, 3, 0x26000}, nil, 0x7f0000, `mmap(0x7f0000, 4096, PROT_READ|PROT_EXEC, MAP_PRIVATE|MAP_FIXED|MAP_DENYWRITE, 3, 0x26000) = 0x7f0000`},
		{"brk", [6]uint64{0}, nil, 0x555555559000, `brk(NULL) = 0x555555559000`},
		{"close", [6]uint64{3}, nil, 0, `close(3) = 0`},
		{"exit_group", [6]uint64{0}, nil, none, `exit_group(0) = ?`},
		{"pipe2", [6]uint64{0x7fff1, 0x80000}, []Data{raw(0, "03000000 04000000")}, 0, `pipe2([3, 4], O_CLOEXEC) = 0`},
		{
			"rt_sigaction",
			[6]uint64{2, 0x1000, 0, 8},
			[]Data{raw(0, "0000000000000000 0000000400000000 1020304050600000 0000000000000000")},
			0,
			`rt_sigaction(SIGINT, {sa_handler=SIG_DFL, sa_mask=[], sa_flags=SA_RESTORER, sa_restorer=0x605040302010}, NULL, 8) = 0`,
		},
		{"rt_sigprocmask", [6]uint64{0, 0x1000, 0x2000, 8}, []Data{raw(0, "0000010000000000"), raw(1, "0000000000000000")}, 0, `rt_sigprocmask(SIG_BLOCK, [CHLD], [], 8) = 0`},
		{"rt_sigprocmask", [6]uint64{2, 0x1000, 0, 8}, []Data{raw(0, "fffbfe7fffffffff")}, 0, `rt_sigprocmask(SIG_SETMASK, ~[SEGV CHLD RTMIN], NULL, 8) = 0`},
		{"prlimit64", [6]uint64{0, 3, 0, 0x1000}, []Data{raw(1, "0000800000000000 ffffffffffffffff")}, 0, `prlimit64(0, RLIMIT_STACK, NULL, {rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}) = 0`},
		{"fcntl", [6]uint64{1, 3}, nil, 0x8002, `fcntl(1, F_GETFL) = 0x8002 (flags O_RDWR|O_LARGEFILE)`},
		{"fcntl", [6]uint64{3, 1}, nil, 1, `fcntl(3, F_GETFD) = 0x1 (flags FD_CLOEXEC)`},
		{"fcntl", [6]uint64{3, 1}, nil, 0, `fcntl(3, F_GETFD) = 0`},
		{"fcntl", [6]uint64{3, 1030, 10}, nil, 10, `fcntl(3, F_DUPFD_CLOEXEC, 10) = 10`},
		{"lseek", [6]uint64{3, minus(5), 1}, nil, 7, `lseek(3, -5, SEEK_CUR) = 7`},
		{"umask", [6]uint64{0o22}, nil, 0o2, `umask(022) = 002`},
		{"set_tid_address", [6]uint64{0x7f10}, nil, 77, `set_tid_address(0x7f10) = 77`},
		{"rseq", [6]uint64{0x7f10, 32, 0, 0x53053053}, nil, 0, `rseq(0x7f10, 0x20, 0, 0x53053053) = 0`},
		{
			"connect",
			[6]uint64{3, 0x1000, 16},
			[]Data{raw(0, "0200 0050 5db8d822 0000000000000000")},
			-115,
			`connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("93.184.216.34")}, 16) = -1 EINPROGRESS (Operation now in progress)`,
		},
		{
			"connect",
			[6]uint64{3, 0x1000, 28},
			[]Data{raw(0, "0a00 0035 00000000 20010db8000000000000000000000001 00000000")},
			0,
			`connect(3, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 0`,
		},
		{
			"connect",
			[6]uint64{3, 0x1000, 110},
			[]Data{{Bytes: append([]byte("\x01\x00/var/run/nscd/socket"), make([]byte, 88)...)}},
			-2,
			`connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT (No such file or directory)`,
		},
		{"bind", [6]uint64{3, 0x1000, 12}, []Data{raw(0, "1000 0000 00000000 00000000")}, 0, `bind(3, {sa_family=AF_NETLINK, nl_pid=0, nl_groups=00000000}, 12) = 0`},
		{
			"accept4",
			[6]uint64{3, 0x1000, 0x2000, 0x80000},
			[]Data{raw(0, "0200 1f90 7f000001 0000000000000000"), raw(1, "80000000"), raw(2, "10000000")},
			4,
			`accept4(3, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr("127.0.0.1")}, [128 => 16], SOCK_CLOEXEC) = 4`,
		},
		{"socket", [6]uint64{2, 0x80801, 6}, nil, 3, `socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, IPPROTO_TCP) = 3`},
		{
			"poll",
			[6]uint64{0x1000, 2, 1000},
			[]Data{raw(0, "03000000 0100 0000 04000000 0500 0000"), raw(1, "03000000 0100 0100 04000000 0500 0000")},
			1,
			`poll([{fd=3, events=POLLIN}, {fd=4, events=POLLIN|POLLOUT}], 2, 1000) = 1 ([{fd=3, revents=POLLIN}])`,
		},
		{"poll", [6]uint64{0x1000, 1, 0}, []Data{raw(0, "03000000 0100 0000")}, 0, `poll([{fd=3, events=POLLIN}], 1, 0) = 0 (Timeout)`},
		{"futex", [6]uint64{0x7f00, 129, 1}, nil, 0, `futex(0x7f00, FUTEX_WAKE_PRIVATE, 1) = 0`},
		{"futex", [6]uint64{0x7f00, 0x189, 0, 0, 0, 0xffffffff}, nil, 0, `futex(0x7f00, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0, NULL, FUTEX_BITSET_MATCH_ANY) = 0`},
		{"wait4", [6]uint64{minus(1), 0x1000, 0, 0}, []Data{raw(0, "00030000")}, 77, `wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL) = 77`},
		{"clone", [6]uint64{0x1200011, 0, 0, 0x7fa10}, nil, 99, `clone(child_stack=NULL, flags=CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7fa10) = 99`},
		{
			"execve",
			[6]uint64{0x1000, 0x2000, 0x3000},
			[]Data{text(0, "/bin/ls"), text(1, "ls"), text(1, "-l"), raw(2, "1000000000000000 2000000000000000 0000000000000000")},
			0,
			`execve("/bin/ls", ["ls", "-l"], 0x3000 /* 2 vars */) = 0`,
		},
		{
			"writev",
			[6]uint64{1, 0x1000, 2},
			[]Data{raw(0, "0010000000000000 0200000000000000 0020000000000000 0100000000000000"), text(1, "ab\n")},
			3,
			`writev(1, [{iov_base="ab", iov_len=2}, {iov_base="\n", iov_len=1}], 2) = 3`,
		},
		{
			"newfstatat",
			[6]uint64{3, 0x1000, 0x2000, 0x1000},
			[]Data{text(0, ""), raw(1, strings.Repeat("00", 24)+"a4810000"+strings.Repeat("00", 20)+"d204000000000000"+strings.Repeat("00", 88))},
			0,
			`newfstatat(3, "", {st_mode=S_IFREG|0644, st_size=1234, ...}, AT_EMPTY_PATH) = 0`,
		},
		{"getdents64", [6]uint64{3, 0x1000, 32768}, []Data{raw(0, strings.Repeat("00", 16)+"1800 04 2e00000000"+strings.Repeat("00", 16)+"1800 04 2e2e000000")}, 48, `getdents64(3, 0x1000 /* 2 entries */, 32768) = 48`},
		{"ioctl", [6]uint64{1, 0x5413, 0x1000}, []Data{}, -25, `ioctl(1, TIOCGWINSZ, 0x1000) = -1 ENOTTY (Inappropriate ioctl for device)`},
		{"ioctl", [6]uint64{1, 0x80081234, 0x1000}, []Data{}, -25, `ioctl(1, _IOC(_IOC_READ, 0x12, 0x34, 0x8), 0x1000) = -1 ENOTTY (Inappropriate ioctl for device)`},
		{"getrandom", [6]uint64{0x1000, 8, 1}, []Data{raw(0, "0123456789abcdef")}, 8, `getrandom("\x01\x23\x45\x67\x89\xab\xcd\xef", 8, GRND_NONBLOCK) = 8`},
		{"clock_nanosleep", [6]uint64{0, 0, 0x1000, 0x2000}, []Data{raw(0, "0100000000000000 0000000000000000")}, 0, `clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=1, tv_nsec=0}, 0x2000) = 0`},
	} {
		k := call(t, c.name)
		v := Values{Args: c.args, Data: c.data, Returned: c.result != none, Result: c.result}
		got := c.name + "(" + string(k.AppendArgs(nil, &v, Options{})) + ") = " + string(k.AppendResult(nil, &v))
		if got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}
