package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() { views["containers"] = containersView }

// byCgroup are the paths that the runtimes in the guests give their control groups.
var byCgroup = []struct {
	runtime string
	path    *regexp.Regexp
}{
	{"docker", regexp.MustCompile(`/docker-([0-9a-f]{64})\.scope`)},
	{"podman", regexp.MustCompile(`/libpod-([0-9a-f]{64})\.scope`)},
	{"containerd", regexp.MustCompile(`/cri-containerd-([0-9a-f]{64})\.scope`)},
	{"lxc", regexp.MustCompile(`/lxc\.payload\.([^/]+)`)},
	{"nspawn", regexp.MustCompile(`/machine\.slice/machine-([^/]+)\.scope`)},
}

var podUID = regexp.MustCompile(`pod([0-9a-f]{8}(?:_[0-9a-f]{4}){3}_[0-9a-f]{12})\.slice`)

// containersView reports the containers: processes that share a control group named
// after one, or a PID namespace that a runtime made.
func containersView(emit func(any) error) error {
	pids, err := numbers("/proc")
	if err != nil {
		return err
	}
	rows, order := map[string]map[string]any{}, []string{}
	for _, pid := range pids {
		p, err := process("/proc/"+strconv.Itoa(pid), pid, pid)
		if err != nil {
			continue
		}
		id, engine, name := containerOf(p)
		if id == "" {
			continue
		}
		row := rows[id]
		if row == nil {
			row = map[string]any{"id": id, "runtime": engine, "name": nil, "processes": 0}
			rows[id], order = row, append(order, id)
		}
		row["processes"] = row["processes"].(int) + 1
		if first := len(p.NSPID) > 1 && p.NSPID[1] == 1; !first {
			continue
		}
		if name != "" {
			row["name"] = name
		}
		if err := tellContainer(p, row); err != nil {
			return fmt.Errorf("container %s: %w", id, err)
		}
	}
	for _, id := range order {
		if err := emit(rows[id]); err != nil {
			return err
		}
	}
	return nil
}

// containerOf says which container a process is in, and, of the first one, its name.
func containerOf(p *Process) (id, engine, name string) {
	first := p.PPID                          // the monitor, if p is the first
	if len(p.NSPID) > 1 && p.NSPID[1] != 1 { // its first is above it
		first = firstOf(p)
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", first))
	args := strings.Split(string(cmdline), "\x00")
	after := func(flag string) string {
		for i := range len(args) - 1 {
			if args[i] == flag {
				return args[i+1]
			}
		}
		return ""
	}
	monitor := filepath.Base(args[0])
	if monitor == "conmon" {
		name = after("-n")
	}
	for _, line := range p.Cgroup {
		for _, c := range byCgroup {
			if m := c.path.FindStringSubmatch(line); m != nil && strings.HasPrefix(line, "0::") {
				return m[1], c.runtime, name
			}
		}
	}
	switch {
	case len(p.NSPID) < 2:
	case monitor == "systemd-nspawn":
		for _, a := range args {
			if machine, ok := strings.CutPrefix(a, "--machine="); ok {
				return machine, "nspawn", ""
			}
		}
	case monitor == "conmon":
		return after("-c"), "podman", name
	case monitor == "containerd-shim-runc-v2":
		return after("-id"), "containerd", ""
	}
	return "", "", ""
}

// firstOf is the parent of the first process of the PID namespace of p.
func firstOf(p *Process) int {
	for range 1000 {
		parent, err := process("/proc/"+strconv.Itoa(p.PPID), p.PPID, p.PPID)
		if err != nil {
			return 0
		}
		if p = parent; len(p.NSPID) > 1 && p.NSPID[1] == 1 {
			return p.PPID
		}
	}
	return 0
}

// tellContainer reports a container's first process.
func tellContainer(p *Process, row map[string]any) error {
	dir := "/proc/" + strconv.Itoa(p.PID)
	root, err1 := os.Readlink(dir + "/root")
	hostname, err2 := hostnameOf(p.PID)
	mounts, err3 := os.ReadFile(dir + "/mountinfo")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	boot := time.Unix(0, clock(unix.CLOCK_REALTIME)-clock(unix.CLOCK_BOOTTIME))
	row["started"] = boot.Add(time.Duration(p.StartTicks) * time.Second / time.Duration(clockTicks())).UTC().Format(time.RFC3339Nano)
	row["root_pid"], row["comm"], row["hostname"], row["root"] = p.PID, p.Comm, hostname, root
	row["pid_ns"], row["pod"] = inodeOf(p.NS["pid"]), nil
	for _, line := range p.Cgroup {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			row["cgroup"] = path
		}
		if m := podUID.FindStringSubmatch(line); m != nil {
			row["pod"] = strings.ReplaceAll(m[1], "_", "-")
		}
	}
	for line := range strings.Lines(string(mounts)) {
		m := mountLine(0, line)
		switch m["mount_point"] {
		case "/":
			row["root_type"], row["root_from"] = m["type"], m["source"]
			tellLayers(line, row)
		case "/dev/termination-log":
			_, pod, _ := strings.Cut(m["root"].(string), "/pods/")
			if f := strings.Split(pod, "/"); len(f) == 4 && row["pod"] == f[0] {
				row["name"] = f[2]
			}
		}
	}
	return nil
}

// tellLayers reports the folders of an overlay, from its options in a line of mountinfo.
func tellLayers(line string, row map[string]any) {
	row["lower"], row["upper"], row["work"] = nil, nil, nil
	_, super, _ := strings.Cut(strings.TrimSpace(line), " - ")
	f := strings.SplitN(super, " ", 3)
	if f[0] != "overlay" {
		return
	}
	for o := range strings.SplitSeq(f[2], ",") {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "lowerdir":
			row["lower"] = strings.Split(unescape(value), ":")
		case "upperdir":
			row["upper"] = unescape(value)
		case "workdir":
			row["work"] = unescape(value)
		}
	}
}

// hostnameOf asks in the UTS namespace of a process.
func hostnameOf(pid int) (string, error) {
	type answer struct {
		name string
		err  error
	}
	c := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never again another's: the thread ends with us
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/uts", pid))
		if err != nil {
			c <- answer{"", err}
			return
		}
		defer f.Close()
		var u unix.Utsname
		err = errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWUTS), unix.Uname(&u))
		c <- answer{unix.ByteSliceToString(u.Nodename[:]), err}
	}()
	a := <-c
	return a.name, a.err
}
