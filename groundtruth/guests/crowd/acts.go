package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// zombies have ended, and we never ask how.
func (c *crowd) zombies() error {
	for i := range 12 {
		p, err := c.start(c.busybox, []string{"sh", "-c", fmt.Sprint("exit ", i)}, nil)
		if err != nil {
			return err
		}
		// Wait for the end without taking it: WNOWAIT leaves the zombie.
		if err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) threads() error {
	for range 3 {
		if err := c.again("threads", nil, "12"); err != nil {
			return err
		}
	}
	return nil
}

// leaderless is a process whose first thread has ended while others go on: a zombie that
// is not dead.
func (c *crowd) leaderless() error {
	return c.again("leaderless", nil)
}

// oddNames become comm (the first 15 bytes) and part of the arguments.
var oddNames = []string{
	"with space", "a) S 1 1 1", "((((", "))))", "line\nbreak", "tab\ttab", "\x1b[31mred\x1b[0m", "\x1b]0;title\a",
	"\xff\xfe\x80bytes", "caf\xc3", "снег", "雪雪雪雪雪雪", "\u202egpj.exe", "fifteen_bytes__", "sixteen_bytes___",
	"this-name-is-much-longer-than-comm-can-hold", "[kworker", "[kthreadd]", "\"quoted\"", "back\\slash", "\r", "\x7f\x01\x02",
	"%s%n%x", "-rf", "{\"json\":1}", "'; DROP TABLE", "=cmd|' ' A0", ",comma,", "\xed\xa0\x80", "\xef\xbf\xbd", " ", "...",
}

func (c *crowd) names() error {
	for i, name := range oddNames {
		// One directory each: some differ only in what the kernel cuts off.
		dir := filepath.Join(c.dir, "names", fmt.Sprint(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		path := dir + "/" + name
		if err := os.Symlink(c.busybox, path); err != nil {
			return err
		}
		// busybox looks at what follows the last slash.
		if _, err := c.start(path, []string{name + "/sleep", forever}, nil); err != nil {
			return err
		}
	}
	return nil
}

// longCommandLine is about 100 kB of arguments, one of them 60 kB.
func (c *crowd) longCommandLine() error {
	argv := []string{"sleep", forever, strings.Repeat("0", 60_000)}
	for range 40 {
		argv = append(argv, strings.Repeat("0", 1000))
	}
	_, err := c.start(c.busybox, argv, nil)
	return err
}

// emptyArguments: none at all (from 5.18 the kernel makes one empty argument of it), and
// some that are empty, in front, in the middle and at the end.
func (c *crowd) emptyArguments() error {
	_, err := c.start("/proc/self/exe", []string{}, &os.ProcAttr{Env: []string{"CROWD_ROLE=idle"}})
	err2 := c.again("idle", nil, "", "", "x", "", "y", "")
	return errors.Join(err, err2)
}

func (c *crowd) overwrittenArguments() error {
	for _, title := range []string{
		"sshd: root@pts/0",      // shorter than what was there
		"",                      // wiped
		"postgres: \x1b[2J\xff", // hostile
		"nginx: master process " + strings.Repeat("/usr/sbin/nginx -g daemon off; ", 8), // over the end, into the environment
	} {
		if err := c.again("title", nil, fmt.Sprintf("%x", title)); err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) deletedExecutable() error {
	path := filepath.Join(c.dir, "gone")
	if err := c.copyBusybox(path); err != nil {
		return err
	}
	if _, err := c.start(path, []string{"sleep", forever}, nil); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	// One that is called "(deleted)" and is not.
	path = filepath.Join(c.dir, "here (deleted)")
	if err := c.copyBusybox(path); err != nil {
		return err
	}
	_, err := c.start(path, []string{"sleep", forever}, nil)
	return err
}

func (c *crowd) memfdExecutable() error {
	fd, err := unix.MemfdCreate("hidden", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	data, err := os.ReadFile(c.busybox)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	_, err = c.start(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), []string{"sleep", forever}, nil)
	return err
}

func (c *crowd) credentials() error {
	err := c.again("ids", nil)
	for _, id := range []uint32{1, 65534, 65536, 1 << 31, 1<<32 - 2} {
		_, e := c.sleep(&os.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id/2 + 1, NoSetGroups: id == 1}}})
		err = errors.Join(err, e)
	}
	// More groups than fit one old-style block of 32.
	var groups []uint32
	for i := range uint32(100) {
		groups = append(groups, 5000-i*7)
	}
	_, e := c.sleep(&os.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1234, Gid: 4321, Groups: groups}}})
	return errors.Join(err, e)
}

// terminal makes sessions on pseudo-terminals: a leader with two children each.
func (c *crowd) terminal() error {
	for range 3 {
		master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		c.keep = append(c.keep, master)
		fd := int(master.Fd())
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		if err != nil {
			return err
		}
		slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return err
		}
		script := fmt.Sprintf("sleep %s & sleep %s & wait", forever, forever)
		_, err = c.start(c.busybox, []string{"sh", "-c", script}, &os.ProcAttr{
			Files: []*os.File{slave, slave, slave},
			Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
		})
		slave.Close()
		if err != nil {
			return err
		}
		c.made += 2
	}
	return nil
}

// cgroups puts processes where container runtimes and systemd put theirs.
func (c *crowd) cgroups() error {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		return fmt.Errorf("no cgroup2 on %s: %w", root, err)
	}
	pod := "pod0a1b2c3d_0011_2233_4455_66778899aabb"
	for _, path := range []string{
		"docker/" + hex64("a"),
		"system.slice/docker-" + hex64("b") + ".scope",
		"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + pod + ".slice/cri-containerd-" + hex64("c") + ".scope",
		"kubepods/besteffort/pod0a1b2c3d-0011-2233-4455-66778899aabb/" + hex64("d"),
		"kubepods.slice/kubepods-" + pod + ".slice/crio-" + hex64("e") + ".scope",
		"machine.slice/libpod-" + hex64("f") + ".scope/container",
		"lxc/web1", "lxc.payload.web2/init.scope", "lxc.payload.web2/system.slice/cron.service",
		"machine.slice/machine-qemu\\x2d1\\x2dvm.scope",
		"system.slice/ssh.service", "user.slice/user-1000.slice/session-3.scope",
		"user.slice/user-1000.slice/user@1000.service/app.slice/run-\x1b[31mred.scope",
		"not-a-container/" + hex64("z")[:63],
	} {
		dir := filepath.Join(root, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for range 2 {
			p, err := c.sleep(nil)
			if err != nil {
				return err
			}
			if err := os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, p.Pid), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// family is a line of descent, each the only child of the one before.
func (c *crowd) family() error {
	const depth = "10"
	script := `if [ "$1" -gt 0 ]; then sh -c "$0" "$0" $(($1-1)); else sleep ` + forever + `; fi; :`
	_, err := c.start(c.busybox, []string{"sh", "-c", script, script, depth}, nil)
	c.made += 11
	return err
}

// busy has used some time, in user space and in the kernel, before it came to rest.
func (c *crowd) busy() error {
	return c.again("busy", nil)
}

func (c *crowd) memory() error {
	return c.again("memory", nil)
}

func (c *crowd) stopped() error {
	p, err := c.sleep(nil)
	if err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	return unix.Waitid(unix.P_PID, p.Pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
}

// traced stops at its first instruction: we are its tracer and never let it go.
func (c *crowd) traced() error {
	_, err := c.sleep(&os.ProcAttr{Sys: &syscall.SysProcAttr{Ptrace: true}})
	return err
}
