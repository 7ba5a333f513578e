// Crowd fills a guest with processes of every kind that a view of processes has to cope
// with: zombies, threads, namespaces, odd names, a command line of 100 kB, and so on. It
// runs inside a guest as root, prints READY when all are there, and then keeps still: from
// then on the processes neither come nor go.
//
// Most of them are busybox's sleep, which costs a few hundred kB each. What sleep cannot
// do, crowd does itself, started again under a role.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const forever = "1000000"

func init() {
	// Names, credentials and traced children belong to a thread: the first.
	runtime.LockOSThread()
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("crowd: ")
	role := flag.String("role", "", "play this part (used by crowd itself)")
	count := flag.Int("count", 300, "how many processes to make")
	busybox := flag.String("busybox", "/bin/busybox", "a static busybox")
	dir := flag.String("dir", "/tmp/crowd", "directory to work in")
	flag.Parse()
	if *role != "" {
		play(*role, flag.Args())
		return
	}
	c := &crowd{busybox: *busybox, dir: *dir}
	for _, act := range acts {
		if err := act.run(c); err != nil {
			// A kernel without a feature still gets all the rest.
			log.Printf("%s: %v", act.name, err)
		}
	}
	for i := 0; c.made < *count; i++ {
		if err := c.ordinary(i); err != nil {
			log.Fatal(err)
		}
	}
	settle()
	fmt.Println("READY", c.made)
	pause()
}

// settle waits until what the shells among the crowd start has come to rest.
func settle() {
	before, calm := "", 0
	for range 200 {
		now := descendants()
		if calm++; now != before {
			before, calm = now, 0
		}
		if calm == 3 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// descendants lists our processes with names, states and parents.
func descendants() string {
	lines, parents := map[int]string{}, map[int]int{}
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		stat, _ := os.ReadFile(name + "/stat")
		var state string
		var parent int
		end := max(0, bytes.LastIndexByte(stat, ')'))
		if n, _ := fmt.Sscanf(string(stat[end:]), ") %s %d", &state, &parent); n == 2 {
			pid, _ := strconv.Atoi(filepath.Base(name))
			lines[pid], parents[pid] = fmt.Sprintln(string(stat[:end]), state, parent), parent
		}
	}
	var all strings.Builder
	for _, pid := range slices.Sorted(maps.Keys(lines)) {
		for p := pid; p > 1; p = parents[p] {
			if p == os.Getpid() {
				all.WriteString(lines[pid])
				break
			}
		}
	}
	return all.String()
}

// pause waits without end; unlike an empty select it does not count as a deadlock.
func pause() {
	for {
		_, _ = syscall.Select(0, nil, nil, nil, nil)
	}
}

type crowd struct {
	busybox string
	dir     string
	made    int // processes, counted where they are made
	keep    []*os.File
}

// An act is one kind of process.
type act struct {
	name string
	run  func(*crowd) error
}

var acts = []act{
	{"directory", (*crowd).directory},
	{"zombies", (*crowd).zombies},
	{"threads", (*crowd).threads},
	{"leaderless", (*crowd).leaderless},
	{"names", (*crowd).names},
	{"long command line", (*crowd).longCommandLine},
	{"empty arguments", (*crowd).emptyArguments},
	{"overwritten arguments", (*crowd).overwrittenArguments},
	{"deleted executable", (*crowd).deletedExecutable},
	{"memfd executable", (*crowd).memfdExecutable},
	{"credentials", (*crowd).credentials},
	{"terminal", (*crowd).terminal},
	{"cgroups", (*crowd).cgroups},
	{"pid namespaces", (*crowd).pidNamespaces},
	{"other namespaces", (*crowd).otherNamespaces},
	{"chroot", (*crowd).chroot},
	{"mount namespace", (*crowd).mountNamespace},
	{"memory", (*crowd).memory},
	{"busy", (*crowd).busy},
	{"family", (*crowd).family},
	{"stopped", (*crowd).stopped},
	{"traced", (*crowd).traced},
}

func (c *crowd) directory() error {
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	return os.MkdirAll(c.dir, 0o755)
}

// start starts a program; it has begun to run when this returns.
func (c *crowd) start(path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	if attr == nil {
		attr = &os.ProcAttr{}
	}
	if attr.Files == nil {
		attr.Files = []*os.File{nil, nil, nil}
	}
	if attr.Env == nil {
		attr.Env = []string{"PATH=/bin"}
	}
	p, err := os.StartProcess(path, argv, attr)
	if err == nil {
		c.made++
	}
	return p, err
}

func (c *crowd) sleep(attr *os.ProcAttr) (*os.Process, error) {
	return c.start(c.busybox, []string{"sleep", forever}, attr)
}

// ordinary makes a plain process of one of some fifty users.
func (c *crowd) ordinary(i int) error {
	user := uint32(1000 + i%50)
	_, err := c.sleep(&os.ProcAttr{Sys: &syscall.SysProcAttr{
		Setsid:     i%3 == 0,
		Credential: &syscall.Credential{Uid: user, Gid: user, Groups: []uint32{user, 100, 4000000000}},
	}})
	return err
}

// again starts crowd itself under a role, and waits until the role is played out to the
// point where it says so. Roles that make further processes say how many.
func (c *crowd) again(role string, sys *syscall.SysProcAttr, args ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	argv := append([]string{"crowd", "-role", role, "-busybox", c.busybox, "-dir", c.dir}, args...)
	_, err = c.start("/proc/self/exe", argv, &os.ProcAttr{Files: []*os.File{nil, w, os.Stderr}, Env: []string{"GOMAXPROCS=2", "GOGC=off"}, Sys: sys})
	w.Close()
	if err != nil {
		return err
	}
	var more int
	if _, err := fmt.Fscanln(r, &more); err != nil {
		return fmt.Errorf("the role %s failed: %w", role, err)
	}
	c.made += more
	return nil
}

// copyBusybox puts a copy of busybox somewhere.
func (c *crowd) copyBusybox(path string) error {
	data, err := os.ReadFile(c.busybox)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o755)
}

// hex64 gives a container id.
func hex64(seed string) string {
	return strings.Repeat(fmt.Sprintf("%x", seed+"0123456789abcdef"), 4)[:64]
}
