package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// pidNamespaces nests three deep; each level has a first process and two more.
func (c *crowd) pidNamespaces() error {
	return c.again("nest", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, "3")
}

// otherNamespaces makes a process for each other kind of namespace, and one with all.
func (c *crowd) otherNamespaces() error {
	root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
	var errs []error
	for _, sys := range []syscall.SysProcAttr{
		{Cloneflags: unix.CLONE_NEWUTS},
		{Cloneflags: unix.CLONE_NEWIPC},
		{Cloneflags: unix.CLONE_NEWNET},
		{Cloneflags: unix.CLONE_NEWCGROUP},
		{Cloneflags: unix.CLONE_NEWUSER, UidMappings: root, GidMappings: root},
		{
			Cloneflags:  unix.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 200000, Size: 1000}},
			Credential:  &syscall.Credential{Uid: 5, Gid: 6},
		},
		{
			Cloneflags:  unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWCGROUP,
			UidMappings: root, GidMappings: root,
		},
	} {
		_, err := c.sleep(&os.ProcAttr{Sys: &sys})
		errs = append(errs, err)
	}
	if _, err := os.Stat("/proc/self/ns/time"); err == nil { // since 5.6
		errs = append(errs, c.again("time", nil))
	}
	return errors.Join(errs...)
}

// nest is one level of PID namespaces.
func (c *crowd) nest(level int) error {
	for i := range 2 {
		user := uint32(2000 + 10*level + i)
		if _, err := c.sleep(&os.ProcAttr{Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}}); err != nil {
			return err
		}
	}
	if level == 1 {
		return nil
	}
	return c.again("nest", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}, fmt.Sprint(level-1))
}

func (c *crowd) chroot() error {
	root := filepath.Join(c.dir, "root")
	if err := c.copyBusybox(filepath.Join(root, "bin", "busybox")); err != nil {
		return err
	}
	_, err := c.start("/bin/busybox", []string{"sleep", forever}, &os.ProcAttr{Dir: "/", Sys: &syscall.SysProcAttr{Chroot: root}})
	return err
}

// mountNamespace runs a program from a bind mount that nobody else sees.
func (c *crowd) mountNamespace() error {
	return c.again("mount", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS})
}

// mount is that program, before it becomes a sleep.
func (c *crowd) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	from, to := filepath.Join(c.dir, "bind-source"), filepath.Join(c.dir, "bind-target")
	if err := c.copyBusybox(filepath.Join(from, "tool")); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Mount("tmpfs", from, "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	fmt.Println(0)
	return syscall.Exec(filepath.Join(to, "tool"), []string{"sleep", forever}, []string{"PATH=/bin"})
}
