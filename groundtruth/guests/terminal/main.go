// Terminal runs a program on a pseudo-terminal of its own and types into it as a script says, which it reads
// from its standard input. What it typed and what it was shown it writes down: /terminal TYPED SHOWN COMMAND [ARGUMENT...].
//
// The lines of a script, with texts as Go quotes them:
//
//	expect "text"     wait until this was shown, since what was last waited for
//	type "text"       type
//	resize 100x30     change the size of the window
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, "terminal:", err)
		os.Exit(1)
	}
}

func run(typed, shown string, command []string) error {
	master, slave, err := open()
	if err != nil {
		return err
	}
	if err := resize(master, "80x24"); err != nil {
		return err
	}
	c := exec.Command(command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = slave, slave, slave
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	c.Env = append(os.Environ(), "TERM=xterm-256color")
	if err := c.Start(); err != nil {
		return err
	}
	slave.Close()
	s := &screen{ended: make(chan struct{})}
	go s.read(master)
	in, err := s.play(master)
	if err == nil {
		err = c.Wait()
	} else {
		_ = c.Process.Kill()
	}
	<-s.ended
	return errors.Join(err, os.WriteFile(typed, in, 0o600), os.WriteFile(shown, s.all, 0o600))
}

// open makes a pseudo-terminal.
func open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("/dev/ptmx: %w", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	return os.NewFile(uintptr(fd), "ptmx"), slave, err
}

func resize(master *os.File, size string) error {
	var w unix.Winsize
	if _, err := fmt.Sscanf(size, "%dx%d", &w.Col, &w.Row); err != nil {
		return err
	}
	return unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &w)
}

// screen is what was shown.
type screen struct {
	mu    sync.Mutex
	all   []byte
	from  int // of what was not waited for yet
	ended chan struct{}
}

func (s *screen) read(master *os.File) {
	defer close(s.ended)
	b := make([]byte, 64<<10)
	for {
		n, err := master.Read(b)
		s.mu.Lock()
		s.all = append(s.all, b[:n]...)
		s.mu.Unlock()
		if err != nil { // EIO: nobody has the other side any more
			return
		}
	}
}

// play does what the script says, and returns what was typed.
func (s *screen) play(master *os.File) (typed []byte, err error) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		text := rest
		if verb != "resize" && verb != "" {
			if text, err = strconv.Unquote(rest); err != nil {
				return typed, fmt.Errorf("%s: %w", lines.Text(), err)
			}
		}
		switch verb {
		case "expect":
			err = s.expect(text)
		case "type":
			typed = append(typed, text...)
			_, err = master.WriteString(text)
		case "resize":
			err = resize(master, text)
		}
		if err != nil {
			return typed, err
		}
	}
	return typed, nil
}

func (s *screen) expect(text string) error {
	for range 6000 {
		s.mu.Lock()
		at := bytes.Index(s.all[s.from:], []byte(text))
		if at >= 0 {
			s.from += at + len(text)
		}
		s.mu.Unlock()
		if at >= 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%q was not shown in a minute, but %q", text, s.all[s.from:])
}
