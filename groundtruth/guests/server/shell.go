package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// typed is what is typed into each shell. Another line has the shell itself write down what
// it remembers.
var typed = []string{
	"echo one; cd /proc",
	"ls | head -3",
	"true wget -q http://10.99.0.77/payload.sh  # with  spaces",
	"echo $$ 'quo\"ted' \\",
	"",
}

// writeDown is what has a shell write it down: with the times as numbers, where it has times.
func writeDown(list, dir string) string {
	return fmt.Sprintf("%[1]s > %[2]s/history.$$.new; mv %[2]s/history.$$.new %[2]s/history.$$", list, dir)
}

// shells starts an interactive shell of each kind that is there, on a terminal of its own.
func (s *server) shells() error {
	errs := []error{s.shell("history", s.busybox, "ash", "-i")}
	if path, err := exec.LookPath("bash"); err == nil {
		errs = append(errs, s.shell("history", path, "--norc", "-i"))
	}
	if path, err := exec.LookPath("zsh"); err == nil {
		errs = append(errs, s.shell("fc -l -t %s 1", path, "-f", "-i"))
	}
	others, err := filepath.Glob("/shells/*/*")
	errs = append(errs, err)
	for _, path := range others {
		folder, name := filepath.Base(filepath.Dir(path)), filepath.Base(path)
		switch {
		case folder == "readline":
			errs = append(errs, s.shell("", path, s.dir))
		case strings.HasPrefix(name, "bash"):
			errs = append(errs, s.shell("history", path, "--norc", "-i"))
		case strings.HasPrefix(name, "zsh"):
			errs = append(errs, s.shell("fc -l -t %s 1", path, "-f", "-i"))
		default:
			errs = append(errs, s.shell("history", path, "ash", "-i"))
		}
	}
	return errors.Join(errs...)
}

// shell starts one, which lists its history with list.
func (s *server) shell(list string, argv ...string) error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (devpts is not mounted)", err)
	}
	if err != nil {
		return err
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99})
	}
	if err != nil {
		return err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = slave.Close() }()
	var size []string
	if strings.HasSuffix(argv[0], "/bash-static") {
		size = []string{"HISTSIZE=3"} // less than what is typed: the first number is not 1
	}
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{
		Env:   append([]string{"HISTTIMEFORMAT=%s ", "HISTFILE=/dev/null", "PATH=/bin:/usr/bin:/sbin:/usr/sbin", "TERM=dumb"}, size...),
		Files: []*os.File{slave, slave, slave}, Sys: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	})
	if err != nil {
		return err
	}
	s.keep = append(s.keep, master)
	go func() { // what it prints has to go somewhere
		b := make([]byte, 4096)
		for {
			if _, err := master.Read(b); err != nil {
				return
			}
		}
	}()
	for _, line := range append(slices.Clone(typed), writeDown(list, s.dir)) {
		if _, err := master.WriteString(line + "\n"); err != nil {
			return err
		}
	}
	const tries = 200
	for range tries {
		if _, err := os.Stat(s.path(fmt.Sprintf("history.%d", p.Pid))); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s did not do what was typed", argv[0])
}
