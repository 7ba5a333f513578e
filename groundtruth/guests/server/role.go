package main

import (
	"fmt"
	"log"
	"os"
	"strings"
	"syscall"
)

// roles are what server does in processes of its own. A role does its part, says so, and
// stays; what it returns is told as skipped by the server that started it.
var roles = map[string]func(s *server, args []string) error{
	"net namespace": (*server).playNetNamespace,
	"container":     (*server).playContainer,
	"capabilities":  (*server).playCapabilities,
	"seccomp":       (*server).playSeccomp,
	"threads":       (*server).playThreads,
	"signals":       (*server).playSignals,
	"timers":        (*server).playTimers,
	"mounts":        (*server).playMounts,
	"lock":          (*server).playLock,
	"idle":          func(*server, []string) error { return nil },
}

// play plays a role: what it prints, up to the word "played", are its failures.
func (s *server) play(role string, args []string) {
	run, ok := roles[role]
	if !ok {
		log.Fatalf("server: no role %q", role)
	}
	if err := run(s, args); err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\x00", ""))
	}
	fmt.Println("played")
	pause()
}

// again starts server itself under a role and waits until it has played it.
func (s *server) again(role string, sys *syscall.SysProcAttr, args ...string) (*os.Process, error) {
	return s.againAs("/proc/self/exe", role, &os.ProcAttr{Sys: sys}, args...)
}

func (s *server) againAs(path, role string, attr *os.ProcAttr, args ...string) (*os.Process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	argv := append([]string{"server", "-role", role, "-dir", s.dir, "-busybox", s.busybox}, args...)
	attr.Files = []*os.File{nil, w, os.Stderr}
	if attr.Env == nil {
		attr.Env = []string{"GOMAXPROCS=1", "GOGC=off", "ROLE=" + role}
	}
	p, err := os.StartProcess(path, argv, attr)
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("role %s: %w", role, err)
	}
	said, buf := "", make([]byte, 4096)
	for !strings.HasSuffix(said, "played\n") {
		n, err := r.Read(buf)
		if err != nil {
			return p, fmt.Errorf("role %s ended: %s", role, strings.TrimSpace(said))
		}
		said += string(buf[:n])
	}
	said = strings.TrimSpace(strings.TrimSuffix(said, "played\n"))
	if said != "" {
		return p, fmt.Errorf("%s", strings.ReplaceAll(said, "\n", "; "))
	}
	return p, nil
}
