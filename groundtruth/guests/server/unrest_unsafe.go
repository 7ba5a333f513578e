package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A churn is something legal that a busy machine does again and again: it does it once, and
// undoes it. What is done is in place for a while, so that it is seen too.
type churn struct {
	name  string
	makes string
	pause time.Duration // after each round
	run   func(s *server, n int) error
}

var churns = []churn{
	{"processes", "shells start subshells, pipelines and programs that end at once", 0, (*server).shortProcesses},
	{"short processes", "500 programs a second that end at once, if the guest can", 0, (*server).churnShort},
	{"modules", "a module is loaded, and removed", 50 * time.Millisecond, (*server).loadModules},
	{"static keys", "statistics of the scheduler and time stamps of packets are switched on and off", 20 * time.Millisecond, (*server).flipKeys},
	{"probes", "a kprobe and a kretprobe are set, and removed", 100 * time.Millisecond, (*server).churnProbes},
	{"events", "all trace events of the scheduler are switched on and off", 300 * time.Millisecond, (*server).churnEvents},
	{"tracer", "the functions of the virtual file system are traced, now and then all, and their graph", time.Second, (*server).churnTracer},
	{"perf", "perf events of every kind are opened, and closed", 50 * time.Millisecond, (*server).churnPerf},
	{"bpf", "maps and programs on probes, functions, hooks and packets are attached, and detached", 100 * time.Millisecond, (*server).churnBPF},
	{"containers", "a container starts, and stops", 200 * time.Millisecond, (*server).churnContainer},
	{"namespaces", "a process in namespaces of its own starts, and ends", 50 * time.Millisecond, (*server).churnNamespaces},
	{"mounts", "file systems are mounted, filled, and unmounted", 20 * time.Millisecond, (*server).churnMounts},
	{"sockets", "connections and sockets of every family are opened, and closed", 10 * time.Millisecond, (*server).churnSockets},
	{"upgrade", "a running program is replaced by another version, and restarted", 100 * time.Millisecond, (*server).churnUpgrade},
	{"live patch", "a live patch is put in place, and taken away", time.Second, (*server).churnLivepatch},
	{"package", "a package whose program runs is upgraded by dpkg, and restarted", time.Second, (*server).churnPackage},
	{"processors", "the second processor is taken offline, and put back", 2 * time.Second, (*server).churnProcessors},
}

// unrest runs all churns beside each other for so long, and prints what each did: "churn: N
// rounds, M failures: the last".
func (s *server) unrest(only string, wanted []string, long time.Duration) {
	if err := s.mountPoints(); err != nil {
		s.report("directory", err)
	}
	began, before := time.Now(), forks()
	until := began.Add(long)
	var wg sync.WaitGroup
	lines := make([]string, len(churns))
	for i, c := range churns {
		if only != "" && !slices.Contains(wanted, c.name) {
			continue
		}
		wg.Go(func() {
			own := &server{dir: s.dir, busybox: s.busybox}
			defer func() { _ = own.release() }()
			rounds, failures := 0, 0
			var last error
			for ; time.Now().Before(until); rounds++ {
				if err := c.run(own, rounds); err != nil {
					failures++
					last = err
				}
				time.Sleep(c.pause)
			}
			lines[i] = fmt.Sprintf("churn %s: %d rounds, %d failures", c.name, rounds, failures)
			if c.name == "short processes" {
				lines[i] += fmt.Sprintf(", %.0f a second", float64(rounds*shortBatch)/time.Since(began).Seconds())
			}
			if last != nil {
				lines[i] += ": " + strings.ReplaceAll(last.Error(), "\n", "; ")
			}
		})
	}
	wg.Wait()
	for _, l := range lines {
		if l != "" {
			fmt.Println(l)
		}
	}
	fmt.Printf("%.0f processes and threads a second\n", float64(forks()-before)/time.Since(began).Seconds())
}

// forks is how many processes and threads were made since boot.
func forks() (n int) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "processes %d", &n); err == nil {
			break
		}
	}
	return n
}

// release closes what acts kept.
func (s *server) release() error {
	var errs []error
	for i := len(s.keep) - 1; i >= 0; i-- {
		if c, ok := s.keep[i].(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	s.keep = nil
	return errors.Join(errs...)
}

// shortProcesses are subshells, pipelines and programs, twenty each time.
func (s *server) shortProcesses(int) error {
	const script = `for i in 1 2 3 4 5; do (exit 0); (exit 0) | (exit 1); ` + "%s true; done"
	return exec.Command(s.busybox, "sh", "-c", fmt.Sprintf(script, s.busybox)).Run()
}

// spare are modules that nothing uses, as the lab loaded them.
var spare = []string{"loop", "macvlan", "8021q", "zram", "binfmt_misc", "algif_hash", "sch_prio", "crypto_user", "vsock_loopback"}

func (s *server) loadModules(n int) error {
	name := spare[n%len(spare)]
	file, err := os.Open("/lib/modules/" + name + ".ko")
	if err != nil {
		return nil // built in, or not wanted in this guest
	}
	defer file.Close()
	if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil // in use
	}
	time.Sleep(20 * time.Millisecond)
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", name, err)
	}
	return nil
}

func (s *server) flipKeys(n int) error {
	on := []byte{'0' + byte(n&1)}
	err := os.WriteFile("/proc/sys/kernel/sched_schedstats", on, 0)
	if _, e := os.Stat("/proc/sys/kernel/task_delayacct"); e == nil {
		err = errors.Join(err, os.WriteFile("/proc/sys/kernel/task_delayacct", on, 0))
	}
	fd, e := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if e != nil {
		return errors.Join(err, e)
	}
	defer unix.Close(fd)
	return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1))
}

func (s *server) churnProbes(n int) error {
	probe, back := fmt.Sprintf("outsight_churn/p%d", n), fmt.Sprintf("outsight_churn/r%d", n)
	err := errors.Join(tell("kprobe_events", "p:"+probe+" vfs_symlink\n"), tell("kprobe_events", "r:"+back+" vfs_mknod\n"))
	if err == nil {
		err = errors.Join(tell("events/"+probe+"/enable", "1"), tell("events/"+back+"/enable", "1"))
	}
	time.Sleep(100 * time.Millisecond)
	for _, p := range []string{probe, back} {
		if _, e := os.Stat(tracefs + "/events/" + p); e == nil {
			err = errors.Join(err, tell("events/"+p+"/enable", "0"), tell("kprobe_events", "-:"+p+"\n"))
		}
	}
	return err
}

func (s *server) churnEvents(int) error {
	err := tell("events/sched/enable", "1")
	time.Sleep(200 * time.Millisecond)
	return errors.Join(err, tell("events/sched/enable", "0"))
}

func (s *server) churnTracer(n int) error {
	if err := instance("churn"); err != nil {
		return err
	}
	defer os.Remove(tracefs + "/instances/churn")
	const dir = "instances/churn/"
	if n%20 == 3 { // all functions: that is slow
		if err := keepOffDispatcher(""); err != nil {
			return err
		}
		err := tell("current_tracer", []string{"function", "function_graph"}[n/20%2])
		time.Sleep(500 * time.Millisecond)
		return errors.Join(err, tell("current_tracer", "nop"))
	}
	if err := tell(dir+"set_ftrace_filter", "vfs_*\n"); err != nil {
		return err
	}
	// The filter is in force when the file is closed, which reports no error: now and then it is not, and all functions would be traced.
	kept, err := os.ReadFile(tracefs + "/" + dir + "set_ftrace_filter")
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(kept, []byte("vfs_")) {
		return fmt.Errorf("set_ftrace_filter was not set: %.100q", kept)
	}
	if err := keepOffDispatcher(dir); err != nil {
		return err
	}
	err = tell(dir+"current_tracer", "function")
	time.Sleep(500 * time.Millisecond)
	return errors.Join(err, tell(dir+"current_tracer", "nop"))
}

const dispatcher = "bpf_dispatcher_xdp_func\n"

// dispatcherTraced reports whether the function tracer may trace the dispatcher of XDP programs: the list is long.
var dispatcherTraced = sync.OnceValues(func() (bool, error) {
	all, err := os.ReadFile(tracefs + "/available_filter_functions")
	return bytes.Contains(all, []byte("\n"+dispatcher)), err
})

// keepOffDispatcher keeps a function tracer off the dispatcher of XDP programs. Up to 6.0 both patch its beginning
// (until c86df29d11df): ftrace finds code that it does not know there, and ends for good.
func keepOffDispatcher(dir string) error {
	if traced, err := dispatcherTraced(); err != nil || !traced {
		return err
	}
	if err := tell(dir+"set_ftrace_notrace", dispatcher); err != nil {
		return err
	}
	kept, err := os.ReadFile(tracefs + "/" + dir + "set_ftrace_notrace")
	if err == nil && !bytes.Contains(kept, []byte(dispatcher)) {
		err = fmt.Errorf("the tracer does not keep off the dispatcher of XDP programs, but off %.200q", kept)
	}
	return err
}

func (s *server) churnPerf(int) error {
	var watched uint64
	var errs []error
	var fds []int
	for _, a := range []unix.PerfEventAttr{
		{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Sample: 100_000},
		{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_PAGE_FAULTS, Sample: 10},
		{Type: unix.PERF_TYPE_BREAKPOINT, Bp_type: breakpointWrite, Ext1: uint64(uintptr(unsafe.Pointer(&watched))), Ext2: 8},
	} {
		a.Size = uint32(unsafe.Sizeof(a))
		fd, err := unix.PerfEventOpen(&a, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errs = append(errs, err); err == nil {
			fds = append(fds, fd)
		}
	}
	watched++
	time.Sleep(20 * time.Millisecond)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// churnBPF does one of the acts that load programs. What a kernel lacks is not its failure.
func (s *server) churnBPF(n int) error {
	acts := []func(*server) error{(*server).bpfTracing, (*server).bpfFentry, (*server).bpfKprobeMulti, (*server).bpfLSM, (*server).bpfCgroup, (*server).bpfNetfilter}
	err := acts[n%len(acts)](s)
	time.Sleep(50 * time.Millisecond)
	if len(s.keep) == 0 {
		return err
	}
	return s.release()
}

func (s *server) churnContainer(n int) error {
	name := fmt.Sprintf("churn-%d", n)
	cgroup := fmt.Sprintf("system.slice/docker-%064x.scope", n+1)
	c, err := s.container(name, cgroup)
	time.Sleep(100 * time.Millisecond)
	if c != nil {
		err = errors.Join(err, c.Kill())
		_, _ = c.Wait()
	}
	for range 50 { // until the processes below it have ended too
		if e := os.Remove("/sys/fs/cgroup/" + cgroup); e == nil || errors.Is(e, os.ErrNotExist) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_ = os.RemoveAll(s.path("containers/" + name))
	return err
}

func (s *server) churnNamespaces(n int) error {
	sys := &syscall.SysProcAttr{Cloneflags: []uintptr{unix.CLONE_NEWNS | unix.CLONE_NEWPID, unix.CLONE_NEWNET | unix.CLONE_NEWUTS, unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP}[n%3]}
	p, err := s.again("idle", sys)
	if p != nil {
		err = errors.Join(err, p.Kill())
		_, _ = p.Wait()
	}
	return err
}

func (s *server) churnMounts(n int) error {
	dir := s.path(fmt.Sprintf("churn-mount-%d", n%4))
	err := errors.Join(
		os.MkdirAll(dir, 0o755),
		unix.Mount("churn", dir, "tmpfs", unix.MS_NOSUID, "size=1m"),
		os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/a/f", make([]byte, 10_000), 0o600),
		unix.Mount(dir+"/a", dir+"/a/b", "", unix.MS_BIND, ""))
	return errors.Join(err, unix.Unmount(dir+"/a/b", 0), unix.Unmount(dir, 0), os.Remove(dir))
}

func (s *server) churnSockets(int) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err == nil {
		_, _ = c.Write([]byte("hello"))
		if a, err := l.Accept(); err == nil {
			a.Close()
		}
		c.Close()
	}
	l.Close()
	for _, k := range [][3]int{{unix.AF_UNIX, unix.SOCK_STREAM, 0}, {unix.AF_INET6, unix.SOCK_DGRAM, 0}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {unix.AF_PACKET, unix.SOCK_RAW, 0}, {unix.AF_NETLINK, unix.SOCK_RAW, 0}} {
		fd, e := unix.Socket(k[0], k[1]|unix.SOCK_CLOEXEC, k[2])
		if e == nil {
			unix.Close(fd)
		}
		err = errors.Join(err, e)
	}
	return err
}

// churnUpgrade is what a package manager does: the new file takes the name of the one that
// runs, which is deleted so, and goes on until it is restarted.
func (s *server) churnUpgrade(n int) error {
	const program = "/usr/sbin/outsight-churn"
	data, err := os.ReadFile(s.busybox)
	if err != nil {
		return err
	}
	put := func(version int) error {
		next := program + ".dpkg-new"
		return errors.Join(os.MkdirAll(filepath.Dir(program), 0o755), os.WriteFile(next, append(data[:len(data):len(data)], byte(version)), 0o755), os.Rename(next, program))
	}
	if err := put(n); err != nil {
		return err
	}
	p, err := os.StartProcess(program, []string{"sleep", "1000000"}, &os.ProcAttr{})
	if err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond)
	err = put(n + 1)
	time.Sleep(200 * time.Millisecond)
	err = errors.Join(err, p.Kill())
	_, _ = p.Wait()
	return err
}

func (s *server) churnProcessors(int) error {
	const online = "/sys/devices/system/cpu/cpu1/online"
	if _, err := os.Stat(online); err != nil {
		return nil //nolint:nilerr // there is one alone
	}
	err := os.WriteFile(online, []byte("0"), 0)
	time.Sleep(time.Second)
	return errors.Join(err, os.WriteFile(online, []byte("1"), 0))
}

// kexec ends this kernel and begins the one of a file, with the command line of this one.
func kexec(vmlinuz, initrd string) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		log.Fatal(err)
	}
	var fds [2]int
	for i, name := range []string{vmlinuz, initrd} {
		if fds[i], err = unix.Open(name, unix.O_RDONLY, 0); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
	}
	if err := unix.KexecFileLoad(fds[0], fds[1], strings.TrimSpace(string(cmdline)), 0); err != nil {
		log.Fatalf("kexec_file_load: %v", err)
	}
	fmt.Println("loaded")
	unix.Sync()
	go func() {
		time.Sleep(time.Second) // until who asked has heard
		log.Fatalf("reboot: %v", unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC))
	}()
	pause()
}
