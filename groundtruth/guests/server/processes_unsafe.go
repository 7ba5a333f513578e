package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// containers are processes where container runtimes put theirs: namespaces of their own,
// a root of their own, a cgroup named after the container.
func (s *server) containers() error {
	id := func(c string) string { return strings.Repeat(c+"123456789abcdef", 4) }
	pod := "kubepods-burstable-pod0a1b2c3d_0011_2233_4455_66778899aabb"
	var errs []error
	for _, c := range []struct{ name, cgroup string }{
		{"docker", "system.slice/docker-" + id("a") + ".scope"},
		{"podman", "machine.slice/libpod-" + id("b") + ".scope/container"},
		{"kubernetes", "kubepods.slice/kubepods-burstable.slice/" + pod + ".slice/cri-containerd-" + id("c") + ".scope"},
		{"lxc", "lxc.payload.web2"},
	} {
		_, err := s.container(c.name, c.cgroup)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *server) container(name, cgroup string) (*os.Process, error) {
	root := s.path("containers/" + name)
	for _, dir := range []string{"/bin", "/proc", "/tmp", "/old"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(s.busybox)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(root+"/bin/busybox", data, 0o755); err != nil {
		return nil, err
	}
	sys := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	if name == "podman" { // without root
		sys.Cloneflags |= unix.CLONE_NEWUSER
		sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
		sys.Credential = &syscall.Credential{} // else an unmapped root loses all at its exec
		sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	}
	p, err := s.again("container", sys, root, name)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	dir := "/sys/fs/cgroup/" + cgroup
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return p, err
	}
	// Its first process and those below it.
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Pid, p.Pid))
	for _, pid := range append(strings.Fields(string(children)), fmt.Sprint(p.Pid)) {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(pid), 0); err != nil {
			return p, fmt.Errorf("%s: join cgroup: %w", name, err)
		}
	}
	return p, nil
}

// playContainer is the first process of a container.
func (s *server) playContainer(args []string) error {
	root, name := args[0], args[1]
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		layers(root, name),
		unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""),
		unix.Mount("proc", root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
		unix.Mount("tmpfs", root+"/tmp", "tmpfs", unix.MS_NOSUID, "size=256k"),
		changeRoot(root), unix.Sethostname([]byte(name+"-1"))); err != nil {
		return err
	}
	s.busybox = "/bin/busybox"
	_, err := s.sleepWithout()
	return errors.Join(err, setLink("lo", nil), s.open("/tmp/inside", unix.O_CREAT|unix.O_RDWR, "inside", 2))
}

// layers mounts what runtimes mount over a container's root: docker an overlay of an
// image's layers, the kubelet a file that the container says its last words in.
func layers(root, name string) error {
	switch name {
	case "docker":
		for _, dir := range []string{"-image", "-diff", "-work"} {
			if err := os.MkdirAll(root+dir, 0o755); err != nil {
				return err
			}
		}
		return unix.Mount("overlay", root, "overlay", 0, "lowerdir="+root+"-image:"+root+",upperdir="+root+"-diff,workdir="+root+"-work")
	case "kubernetes":
		log := root + "-kubelet/pods/0a1b2c3d-0011-2233-4455-66778899aabb/containers/app"
		dev := root + "/dev"
		if err := errors.Join(os.MkdirAll(log, 0o755), os.MkdirAll(dev, 0o755), os.WriteFile(log+"/8f1c2a3b", nil, 0o644)); err != nil {
			return err
		}
		return errors.Join(
			unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "size=64k"),
			os.WriteFile(dev+"/termination-log", nil, 0o644),
			unix.Mount(log+"/8f1c2a3b", dev+"/termination-log", "", unix.MS_BIND, ""))
	}
	return nil
}

// changeRoot makes a mounted directory the root. An initramfs cannot be pivoted away: there
// the mount is moved over it.
func changeRoot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return err
	}
	err := unix.PivotRoot(".", "old")
	if errors.Is(err, unix.EINVAL) {
		return errors.Join(unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"))
	}
	return errors.Join(err, unix.Chdir("/"), unix.Unmount("/old", unix.MNT_DETACH))
}

// sleepWithout starts a sleep where there is no /dev/null.
func (s *server) sleepWithout() (*os.Process, error) {
	return os.StartProcess(s.busybox, []string{"sleep", "1000000"}, &os.ProcAttr{Env: []string{"CONTAINER=yes", "PATH=/bin"}})
}

func (s *server) capabilities() error {
	_, err := s.again("capabilities", nil)
	return err
}

// playCapabilities keeps few, each set different.
func (s *server) playCapabilities([]string) error {
	var errs []error
	drop := []uintptr{unix.CAP_SYS_MODULE, unix.CAP_SYS_PTRACE, unix.CAP_SYS_BOOT}
	for _, c := range drop {
		errs = append(errs, unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))
	}
	errs = append(errs, unix.Prctl(unix.PR_SET_SECUREBITS, 1<<0|1<<2|1<<3, 0, 0, 0), // NOROOT, NO_SETUID_FIXUP and its lock
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	bit := func(c ...int) (m uint32) {
		for _, n := range c {
			m |= 1 << n
		}
		return m
	}
	net, chown, raw := unix.CAP_NET_BIND_SERVICE, unix.CAP_CHOWN, unix.CAP_NET_RAW
	data := [2]unix.CapUserData{{Effective: bit(net, chown), Permitted: bit(net, chown, raw), Inheritable: bit(net)}}
	errs = append(errs, unix.Capset(&header, &data[0]), unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(net), 0, 0))
	return errors.Join(errs...)
}

func (s *server) seccomp() error {
	_, err := s.again("seccomp", nil)
	return err
}

// playSeccomp forbids ptrace to all its threads, by two filters one on the other.
func (s *server) playSeccomp([]string) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, number := range []uint32{unix.SYS_PTRACE, unix.SYS_KEXEC_LOAD} {
		filter := []unix.SockFilter{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | 1},
			{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		}
		p := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p))); errno != 0 {
			return fmt.Errorf("seccomp: %w", errno)
		}
	}
	return nil
}

func (s *server) threads() error {
	_, err := s.again("threads", nil)
	return err
}

func (s *server) playThreads([]string) error {
	named := make(chan error)
	for i := range 8 {
		go func() {
			runtime.LockOSThread()
			named <- os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", unix.Gettid()), fmt.Appendf(nil, "pool-worker-%d", i), 0)
			pause()
		}()
	}
	var err error
	for range 8 {
		err = errors.Join(err, <-named)
	}
	return err
}

func (s *server) signals() error {
	_, err := s.again("signals", nil)
	return err
}

// playSignals ignores one, handles one, blocks one that is pending.
func (s *server) playSignals([]string) error {
	signal.Ignore(syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGUSR2)
	blocked := unix.Sigset_t{Val: [16]uint64{1 << (uint(unix.SIGTERM) - 1)}}
	return errors.Join(
		unix.PthreadSigmask(unix.SIG_BLOCK, &blocked, nil),
		unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGTERM))
}

func (s *server) timers() error {
	_, err := s.again("timers", nil)
	return err
}

// playTimers has timers that are far off.
func (s *server) playTimers([]string) error {
	var errs []error
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(1e15), Interval: unix.NsecToTimespec(2e15)}
	for _, clock := range []int{unix.CLOCK_REALTIME, unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME, unix.CLOCK_PROCESS_CPUTIME_ID} {
		var id int32
		event := struct { // struct sigevent
			value         uint64
			signo, notify int32
			pad           [48]byte
		}{value: 0xfeed, signo: int32(unix.SIGURG), notify: 1} // SIGEV_NONE
		if _, _, errno := unix.Syscall(unix.SYS_TIMER_CREATE, uintptr(clock), uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id))); errno != 0 {
			errs = append(errs, fmt.Errorf("timer on clock %d: %w", clock, errno))
			continue
		}
		if _, _, errno := unix.Syscall6(unix.SYS_TIMER_SETTIME, uintptr(id), 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0); errno != 0 {
			errs = append(errs, fmt.Errorf("start timer: %w", errno))
		}
	}
	_, err := unix.Setitimer(unix.ItimerReal, unix.Itimerval{Value: unix.Timeval{Sec: 900000}})
	return errors.Join(append(errs, err)...)
}

// traced has a process of server's traced by this one, which stays its tracer for as
// long as it lives.
func (s *server) traced() error {
	p, err := s.again("idle", nil)
	if err != nil {
		return err
	}
	const options = unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACECLONE
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(p.Pid), 0, options, 0, 0); errno != 0 {
		return fmt.Errorf("seize: %w", errno)
	}
	return nil
}

// playLock waits for a lock that another process has.
func (s *server) playLock([]string) error {
	fd, err := unix.Open(s.path("lock0"), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	go func() {
		_ = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK, Start: 15, Len: 3}) // it waits without end
	}()
	return nil
}
