// Package libvirt is the driver for QEMU machines that libvirt runs: the domains of
// libvirtd or of the modular virtqemud, of the system or of a user's session.
//
// The monitor of such a QEMU has one client, the daemon, so everything that has to be
// asked or done goes through the daemon: the memory map and the registers by its monitor
// pass-through, pause and resume by its own calls, so that its idea of the domain stays
// right. Memory itself is read from the process of QEMU, as ever. Where the daemon is
// unavailable the process is read without it, and the memory map is a guess.
//
// The first monitor command that goes through makes libvirt write "Domain id=N is tainted:
// custom-monitor" into the log of the domain. Listing machines does not.
package libvirt

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qemu"
)

// How long a daemon may take, for one call and for everything that opening a machine
// needs. A daemon that a socket of systemd's activates takes a second to start.
const (
	patienceList = time.Second
	patienceDial = 3 * time.Second
	patienceCall = 10 * time.Second
)

// Driver implements [vm.Driver]. Its machines share connections: use one for all.
type Driver struct {
	hub hub
}

// New returns a driver that has no connection yet.
func New() *Driver { return &Driver{} }

var _ vm.Driver = (*Driver)(nil)

// Recognise implements [vm.Driver].
func (d *Driver) Recognise(p proc.Process) (vm.Info, bool) {
	uuid, ok := managed(p)
	if !ok {
		return vm.Info{}, false
	}
	i, ok := qemu.Driver{}.Recognise(p)
	i.UUID, i.Manager = uuid.String(), "libvirt"
	return i, ok
}

// managed reports whether libvirt started p, and the UUID of its domain. Since version
// 0.8 it calls the character device of its monitor "charmonitor", and always gives a UUID.
func managed(p proc.Process) (uuid UUID, ok bool) {
	at := slices.Index(p.Args, "-uuid")
	if at < 0 || at+1 >= len(p.Args) || !slices.ContainsFunc(p.Args, isMonitor) {
		return uuid, false
	}
	return parseUUID(p.Args[at+1])
}

// Survey implements [vm.Driver].
func (d *Driver) Survey(ctx context.Context, p proc.Process, i *vm.Info) {
	qemu.Driver{}.SurveyProcess(p, i)
	ctx, cancel := context.WithTimeout(ctx, patienceList)
	defer cancel()
	dom, err := d.find(ctx, p, true)
	if err == nil {
		i.State, err = dom.listState(ctx)
		dom.Close()
	}
	if err != nil && i.Missing == "" {
		i.Missing = explain("", err).Why + ": run state and registers are unavailable, and the memory map is a guess"
	}
}

// Open implements [vm.Driver].
func (d *Driver) Open(ctx context.Context, p proc.Process, i vm.Info, opts vm.Options) (*vm.Machine, error) {
	if opts.NoQMP {
		m, err := qemu.Driver{}.OpenWith(p, i, nil, opts)
		if err == nil {
			m.Control.Events = vm.ExitEvents{Process: p}
		}
		return m, err
	}
	dom, err := d.find(ctx, p, false)
	var answers *qemu.MonitorAnswers
	if err == nil {
		answers, err = qemu.Ask(ctx, dom)
	}
	m, openErr := qemu.Driver{}.OpenWith(p, i, answers, opts)
	switch {
	case openErr != nil:
		if dom != nil {
			dom.Close()
		}
		return nil, openErr
	case err != nil:
		if dom != nil {
			dom.Close()
		}
		why := explain("", err)
		note := why.Why + ": the memory map is a guess"
		if why.Do != "" {
			note += "; " + why.Do
		}
		m.Notes = append(m.Notes, note)
		m.Control = vm.Control{Pauser: unavailable{err}, Events: vm.ExitEvents{Process: p}}
		return m, nil
	}
	m.Control = dom.control()
	return m, nil
}

// unavailable is the [vm.Pauser] of a domain whose daemon is.
type unavailable struct{ err error }

func (u unavailable) Pause(context.Context) (func(context.Context) error, error) {
	return nil, explain("pause the domain", u.err)
}

// find finds the domain that runs as p, and connects to its daemon. The error is that of
// the daemon that came closest. Close the domain.
func (d *Driver) find(ctx context.Context, p proc.Process, readOnly bool) (*domain, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceDial)
	defer cancel()
	uuid, _ := managed(p)
	best := errNone
	for _, at := range daemonsOf(p, readOnly) {
		dom, err := d.lookUp(ctx, at, uuid, p)
		if err == nil {
			return dom, nil
		}
		if rank(err) > rank(best) {
			best = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, best
}

// lookUp finds a domain at one daemon, and is content only if it runs as process p.
func (d *Driver) lookUp(ctx context.Context, at daemon, uuid UUID, p proc.Process) (*domain, error) {
	dom := &domain{hub: &d.hub, at: at, process: p}
	err := dom.with(ctx, func(c *conn) (err error) {
		dom.dom, err = c.lookUp(uuid)
		return err
	})
	switch {
	case err != nil:
	case dom.dom.ID <= 0:
		err = &unknownError{at.socket} // another daemon runs one of that UUID
	case !at.runs(dom.dom.Name, p.PID):
		err = &unknownError{at.socket}
	}
	if err != nil {
		dom.Close()
		return nil, err
	}
	return dom, nil
}

// rank orders what went wrong by how close it came to an answer.
func rank(err error) int {
	switch {
	case errors.Is(err, errNone):
		return 0
	case errors.As(err, new(*unknownError)):
		return 2
	case errors.As(err, new(*staleError)):
		return 1
	}
	return 3
}
