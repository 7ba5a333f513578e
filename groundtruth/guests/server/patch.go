package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// churnLivepatch has a live patch in place for a second. It is gone when every task has left the
// functions that it replaced.
func (s *server) churnLivepatch(int) error {
	const dir = "/sys/kernel/livepatch/livepatch"
	file, err := os.Open("/livepatch.ko")
	if err != nil {
		return nil // none was built for this kernel
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load the live patch: %w", err)
	}
	time.Sleep(time.Second)
	text, err := os.ReadFile("/proc/version")
	if err != nil {
		return err
	}
	err = os.WriteFile(dir+"/enabled", []byte("0"), 0)
	for range 100 {
		if _, e := os.Stat(dir); e != nil {
			e := unix.DeleteModule("livepatch", unix.O_NONBLOCK)
			if e == nil || errors.Is(e, unix.ENOENT) {
				break
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(text) == 0 {
		err = errors.Join(err, errors.New("/proc/version is empty"))
	}
	return err
}

// debControl is what dpkg is told of a package.
const debControl = `Package: outsight-churn
Version: %d
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: a program that is upgraded while it runs
`

// churnPackage upgrades a package by dpkg itself, whose program runs meanwhile, and is restarted.
func (s *server) churnPackage(n int) error {
	const program = "/usr/bin/outsight-package"
	if _, err := os.Stat("/var/lib/dpkg/status"); err != nil {
		return nil // no Debian: busybox has applets of these names
	}
	root, deb := s.path("package"), s.path("package.deb")
	defer os.RemoveAll(root)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(sleep)
	if err != nil {
		return err
	}
	err = errors.Join(
		os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755), os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755),
		os.WriteFile(filepath.Join(root, "DEBIAN/control"), fmt.Appendf(nil, debControl, n+1), 0o644),
		os.WriteFile(root+program, fmt.Appendf(data, "%d", n), 0o755))
	if err != nil {
		return err
	}
	for _, command := range [][]string{{"dpkg-deb", "--build", "--root-owner-group", root, deb}, {"dpkg", "--install", deb}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command[0], err, out)
		}
	}
	// What the last round started runs on from the file that was replaced.
	time.Sleep(500 * time.Millisecond)
	err = s.release()
	p, e := os.StartProcess(program, []string{program, "1000000"}, &os.ProcAttr{})
	if e == nil {
		s.keep = append(s.keep, running{p})
	}
	return errors.Join(err, e)
}

// running is a process that ends when it is closed.
type running struct{ *os.Process }

func (r running) Close() error {
	err := r.Kill()
	_, _ = r.Wait()
	return err
}
