package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// Driver knows one monitor.
type Driver interface {
	// Recognise reports whether p is one of the driver's machines and what its
	// command line says about it. It must be fast: it sees every process.
	Recognise(p proc.Process) (Info, bool)
	// Survey completes i for a list: run state, and how the memory can be read.
	Survey(ctx context.Context, p proc.Process, i *Info)
	// Open opens the machine that runs as p, recognised as i.
	Open(ctx context.Context, p proc.Process, i Info, opts Options) (*Machine, error)
}

// Prober is a driver that can also recognize a machine by a look that is too costly for
// every process: it is taken when listing, and for a process given by pid.
type Prober interface {
	Driver
	Probe(p proc.Process) (Info, bool)
}

// SocketDriver is a driver whose monitor listens on sockets.
type SocketDriver interface {
	Driver
	// OpenSocket opens the machine whose monitor listens at path. find looks up
	// the machines of this host, for a socket that does not say whose it is.
	OpenSocket(ctx context.Context, path string, opts Options, find func() ([]HostMachine, error)) (*Machine, error)
}

// HostMachine is a machine of this host.
type HostMachine struct {
	Info    Info
	Process proc.Process
}

// Resolver turns what stands after PREFIX: in a target into another target, like
// lab:NAME into qemu:SOCKET.
type Resolver func(ctx context.Context, name string) (target string, err error)

// Options change how a target is opened. The zero value is the default.
type Options struct {
	// NoQMP opens without asking the monitor, as if it had no QMP socket.
	NoQMP bool
	// NoMap reads through the monitor's process even where memory is shared.
	NoMap bool
}

// Host finds and opens machines with the drivers it has. Its first driver that
// recognises a process opens it.
type Host struct {
	Drivers   []Driver
	Resolvers map[string]Resolver // by prefix: "lab"
}

// find lists the machines of this host, by pid, with what their command lines
// say.
func (h *Host) find() ([]HostMachine, error) { return h.search(h.recognise) }

func (h *Host) search(is func(proc.Process) (Info, bool)) ([]HostMachine, error) {
	pids, err := proc.PIDs()
	if err != nil {
		return nil, &Error{What: "list virtual machines", Why: "/proc cannot be read: " + err.Error(), Do: "mount it", Err: err}
	}
	slices.Sort(pids)
	var found []HostMachine
	for _, pid := range pids {
		p, err := proc.Get(pid)
		if err != nil || len(p.Args) == 0 { // ended meanwhile, or a kernel thread
			continue
		}
		if i, ok := is(p); ok {
			found = append(found, HostMachine{i, p})
		}
	}
	return found, nil
}

func (h *Host) recognise(p proc.Process) (Info, bool) {
	for _, d := range h.Drivers {
		if i, ok := d.Recognise(p); ok {
			return Complete(i, p, d), true
		}
	}
	return Info{}, false
}

// probe is recognise with the costly looks too.
func (h *Host) probe(p proc.Process) (Info, bool) {
	if i, ok := h.recognise(p); ok {
		return i, true
	}
	for _, d := range h.Drivers {
		if d, ok := d.(Prober); ok {
			if i, ok := d.Probe(p); ok {
				return Complete(i, p, d), true
			}
		}
	}
	return Info{}, false
}

// Complete adds to i what every driver's machines have: the facts of process p.
func Complete(i Info, p proc.Process, d Driver) Info {
	i.PID, i.UID, i.User, i.driver = p.PID, p.UID, userName(p.UID), d
	// The clocks are read one after the other: finer than seconds, it would be
	// another time at every look.
	i.Created, i.Command = p.CreatedAt().Truncate(time.Second), p.Args
	return i
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return strconv.Itoa(uid)
}

// List finds every machine of this host, ordered by pid, and how each can be
// read. A machine that does not answer delays it by a fraction of a second.
func (h *Host) List(ctx context.Context) ([]Info, error) {
	found, err := h.search(h.probe)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, len(found))
	var wg sync.WaitGroup
	for n, f := range found {
		infos[n] = f.Info
		wg.Go(func() { f.Info.driver.Survey(ctx, f.Process, &infos[n]) })
	}
	wg.Wait()
	return infos, ctx.Err()
}

// Title names the machine in a sentence: "web1 (pid 71)".
func (i Info) Title() string {
	switch {
	case i.PID == 0:
		return i.Name
	case i.Name == "":
		return fmt.Sprintf("the %s machine with pid %d", i.VMM, i.PID)
	}
	return fmt.Sprintf("%s (pid %d)", i.Name, i.PID)
}

// byPID opens the machine that runs as pid.
func (h *Host) byPID(ctx context.Context, what string, pid int, opts Options) (*Machine, error) {
	p, err := proc.Get(pid)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Error{Kind: ErrNotFound, What: what, Why: fmt.Sprintf("no process has pid %d", pid), Do: "list the machines with: outsight vms", Err: err}
	}
	if err != nil {
		return nil, &Error{What: what, Why: err.Error(), Err: err}
	}
	i, ok := h.probe(p)
	if !ok {
		name := p.Base()
		if name == "" {
			name = "a kernel thread"
		}
		return nil, &Error{Kind: ErrNotVM, What: what, Why: fmt.Sprintf("process %d (%s) is not a virtual machine", pid, name), Do: "list the machines with: outsight vms"}
	}
	return i.driver.Open(ctx, p, i, opts)
}

// only opens the one machine of this host.
func (h *Host) only(ctx context.Context, opts Options) (*Machine, error) {
	found, err := h.find()
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return nil, &Error{Kind: ErrNotFound, What: "open the machine of this host", Why: "no virtual machine runs here", Do: "name a dump file, or start one (outsight lab up)"}
	case 1:
		return found[0].Info.driver.Open(ctx, found[0].Process, found[0].Info, opts)
	}
	return nil, &Error{
		Kind: ErrAmbiguous, What: "open the machine of this host",
		Why: fmt.Sprintf("%d virtual machines run here: %s", len(found), titles(found)),
		Do:  "name one of them",
	}
}

// byName opens the machine that the monitor calls name.
func (h *Host) byName(ctx context.Context, name string, opts Options) (*Machine, error) {
	found, err := h.find()
	if err != nil {
		return nil, err
	}
	var named, also []HostMachine
	for _, f := range found {
		switch name {
		case f.Info.Name:
			named = append(named, f)
		case f.Info.Alias:
			also = append(also, f)
		}
	}
	if len(named) == 0 {
		named = also
	}
	what := "open " + strconv.Quote(name)
	switch len(named) {
	case 1:
		return named[0].Info.driver.Open(ctx, named[0].Process, named[0].Info, opts)
	case 0:
		why := "no such file, and no virtual machine of that name runs here"
		if len(found) > 0 {
			why += ", only " + titles(found)
		}
		return nil, &Error{Kind: ErrNotFound, What: what, Why: why, Do: "list the machines with: outsight vms"}
	}
	return nil, &Error{Kind: ErrAmbiguous, What: what, Why: fmt.Sprintf("%d machines have that name: %s", len(named), titles(named)), Do: "name one by pid:N"}
}

// titles lists machines, not more than fit a sentence.
func titles(found []HostMachine) string {
	const most = 8
	var names []string
	for n, f := range found {
		if n == most {
			names = append(names, fmt.Sprintf("and %d more", len(found)-most))
			break
		}
		if f.Info.Name == "" {
			names = append(names, fmt.Sprintf("pid:%d", f.Info.PID))
			continue
		}
		names = append(names, fmt.Sprintf("%s (pid:%d)", f.Info.Name, f.Info.PID))
	}
	return strings.Join(names, ", ")
}
