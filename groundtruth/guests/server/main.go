// Server makes a guest busy in every way that a view of a machine has to cope with:
// sockets of all families and states, namespaces, BPF programs, probes, io_uring, open and
// mapped files of every kind, keys, mounts, swapped pages, containers, timers. It runs
// inside a guest as root, prints "ready" when all is there, and then keeps still.
//
// What the kernel at hand cannot do is told on standard error, "skipped: ACT: why", and
// all the rest is done. "server -list" prints the acts with what each of them makes, and
// the churns, which "server -unrest 1m" repeats for a minute.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// Namespaces and names belong to a thread: the first.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(0)
	role := flag.String("role", "", "play this part (used by server itself)")
	dir := flag.String("dir", "/srv/outsight", "directory to work in")
	busybox := flag.String("busybox", "/bin/busybox", "a static busybox")
	list := flag.Bool("list", false, "print the acts and end")
	only := flag.String("only", "", "do only these `ACTS`, with commas between them")
	unrest := flag.Duration("unrest", 0, "instead of the acts do what a busy machine does, again and again, for this `TIME`")
	vmlinuz, initrd := flag.String("kexec", "", "instead of all that boot this `KERNEL`"), flag.String("initrd", "", "with this initramfs")
	flag.Parse()
	s := &server{dir: *dir, busybox: *busybox}
	switch {
	case *list:
		for _, a := range acts {
			fmt.Printf("%-18s %s\n", a.name, a.makes)
		}
		for _, c := range churns {
			fmt.Printf("%-18s %s\n", c.name, c.makes)
		}
		return
	case *role != "":
		s.play(*role, flag.Args())
		return
	case *vmlinuz != "":
		kexec(*vmlinuz, *initrd)
	}
	if err := s.prepare(); err != nil {
		log.Fatalf("server: %v", err)
	}
	wanted := strings.Split(*only, ",")
	if *unrest > 0 {
		s.unrest(*only, wanted, *unrest)
		return
	}
	for _, a := range acts {
		if *only == "" || slices.Contains(wanted, a.name) {
			s.report(a.name, a.run(s))
		}
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGUSR1)
	fmt.Println("ready")
	for range again {
		// What passes by itself is made again when asked for.
		s.report("tcp time-wait", s.tcpTimeWait())
	}
}

// report reports an act, or a part of one, that cannot be done here.
func (s *server) report(act string, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			s.report(act, e)
		}
		return
	}
	log.Printf("skipped: %s: %v", act, err)
}

type server struct {
	dir     string
	busybox string
	keep    []any // what must not be collected
}

// An act makes one kind of thing. Errors that are joined are told apart in the report.
type act struct {
	name  string
	makes string
	run   func(*server) error
}

var acts = []act{
	{"directory", "cgroup2, bpffs, tracefs and the like where missing", (*server).mountPoints},
	{"sysctls", "changed values under net and kernel", (*server).sysctls},
	{"interfaces", "dummy and veth interfaces with addresses, routes, neighbours, rules", (*server).interfaces},
	{"routing", "nexthop objects, routes of several ways, rules of every kind, proxies", (*server).routing},
	{"more interfaces", "a VLAN, a macvlan, native XDP on one of a pair, the network card", (*server).moreLinks},
	{"tun", "a tap interface held open", (*server).tap},
	{"tcp listen", "a web server on port 8088 of both families, and a queue of connections that nobody accepts", (*server).tcpListen},
	{"tcp established", "connections with unread and unsent bytes", (*server).tcpEstablished},
	{"tcp half closed", "CLOSE_WAIT, FIN_WAIT1, FIN_WAIT2, LAST_ACK", (*server).tcpHalfClosed},
	{"tcp syn", "SYN_SENT and SYN_RECV", (*server).tcpSyn},
	{"tcp time-wait", "TIME_WAIT, for a minute; SIGUSR1 makes another", (*server).tcpTimeWait},
	{"mptcp", "a listening MPTCP socket, and a connection", (*server).mptcp},
	{"udp", "bound, connected, with unread datagrams, multicast", (*server).udp},
	{"udplite", "a bound UDP-Lite socket", (*server).udplite},
	{"ping", "ICMP datagram sockets of both families", (*server).ping},
	{"raw", "raw sockets of both families, with a classic BPF filter", (*server).raw},
	{"packet", "packet sockets, raw and datagram, filtered, promiscuous, with a ring, in a fan-out group", (*server).packet},
	{"unix", "stream, datagram and seqpacket; path, abstract and unnamed; listening, connected, queued, passed", (*server).unixSockets},
	{"netlink", "netlink sockets of several protocols, with groups", (*server).netlink},
	{"vsock", "vsock listening and connected over loopback", (*server).vsock},
	{"xdp socket", "AF_XDP with a memory area, bound to an interface", (*server).xdpSocket},
	{"alg", "AF_ALG hash and cipher sockets", (*server).alg},
	{"odd sockets", "sockets unbound, of another user, bound to a device, IPv4 under IPv6; in flight or in a ring only", (*server).oddSockets},
	{"xtables", "tables of iptables, ip6tables and arptables, without rules", (*server).xtables},
	{"net namespace", "a process in a network namespace of its own, with interfaces and sockets", (*server).netNamespace},
	{"bpf maps", "maps of many types, some with entries, some pinned", (*server).bpfMaps},
	{"bpf socket filter", "an extended BPF filter on a UDP socket", (*server).bpfSocketFilter},
	{"bpf tracing", "programs on a kprobe, a tracepoint, a raw tracepoint", (*server).bpfTracing},
	{"bpf fentry", "an fentry program on a kernel function", (*server).bpfFentry},
	{"bpf kprobe multi", "a program on two functions through fprobe", (*server).bpfKprobeMulti},
	{"bpf lsm", "a program on an LSM hook", (*server).bpfLSM},
	{"bpf xdp", "XDP programs, by link on veth-b and by netlink on dummy0", (*server).bpfXDP},
	{"bpf tcx", "a classifier on tcx of veth-b", (*server).bpfTCX},
	{"bpf tc", "programs of classic filters and actions", (*server).bpfTC},
	{"bpf cgroup", "programs attached to the cgroup outsight-bpf", (*server).bpfCgroup},
	{"bpf netfilter", "a program on a netfilter hook", (*server).bpfNetfilter},
	{"bpf pinned", "a program that only its pin holds", (*server).bpfPinned},
	{"perf", "perf events: software with a ring, a breakpoint", (*server).perf},
	{"kprobe events", "a kprobe, a kretprobe and a uprobe of tracefs, enabled", (*server).kprobeEvents},
	{"ftrace instance", "an instance of tracefs with the function tracer on one function", (*server).ftraceInstance},
	{"tracepoints", "a trace event switched on in an instance", (*server).tracepoints},
	{"io_uring", "a ring with files, a buffer, a poll, reads and an accept that wait", (*server).ioUring},
	{"io_uring sqpoll", "a ring with a kernel thread", (*server).ioUringSQPoll},
	{"files", "descriptors of every kind, with flags and positions", (*server).files},
	{"locks", "file locks: POSIX, BSD, open file description, lease; one that is waited for", (*server).locks},
	{"maps", "mapped files and memory of every kind", (*server).maps},
	{"sysv", "System V shared memory, semaphores, a message queue; a POSIX queue", (*server).sysv},
	{"hugetlb", "huge pages, mapped", (*server).hugetlb},
	{"keys", "keys and keyrings", (*server).keys},
	{"binfmt", "two entries of binfmt_misc, one off", (*server).binfmt},
	{"swap file", "swap on a file, and pages in it", (*server).swapFile},
	{"zram", "swap on zram, and pages in it", (*server).zram},
	{"mounts", "tmpfs with files, bind, read-only, moved, with every propagation", (*server).mounts},
	{"overlay", "an overlay mount", (*server).overlay},
	{"containers", "processes with namespaces, root and cgroup as container runtimes make them", (*server).containers},
	{"capabilities", "a process with few capabilities, ambient ones, securebits, no_new_privs", (*server).capabilities},
	{"seccomp", "a process with a filter, and one in strict mode", (*server).seccomp},
	{"timers", "POSIX timers, interval timers, timerfd, a sleeping thread", (*server).timers},
	{"shell", "an interactive shell on a pseudo-terminal, with a history", (*server).shells},
	{"threads", "a process of named threads", (*server).threads},
	{"ptrace", "a process that server traces", (*server).traced},
	{"signals", "a process with handlers, blocked and pending signals", (*server).signals},
}

// pause waits without end; unlike an empty select it does not count as a deadlock.
func pause() {
	for {
		time.Sleep(time.Hour)
	}
}

// path is a path in the working directory.
func (s *server) path(name string) string { return s.dir + "/" + name }

func (s *server) prepare() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("it has to run as root, in a guest")
	}
	// Up to 5.10 BPF programs and maps count as locked memory.
	unlimited := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unlimited); err != nil {
		return fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
		return nil // a second server, for other acts
	}
	// Everything is on a tmpfs of its own: the paths are the same in every guest.
	if err := unix.Mount("outsight", s.dir, "tmpfs", unix.MS_NOSUID, "mode=755,size=64m"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", s.dir, err)
	}
	return nil
}
