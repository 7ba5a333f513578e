// Package guest is one session with one guest: the one door for commands, daemons
// and programs that embed outsight.
//
// [Open] finds a virtual machine or a dump, and the Linux kernel that runs in it.
// The [Guest] stays open for as long as it is watched; each [Guest.Look] is what its
// memory holds at one time, to be read with package linux or as views (package
// table). A look is cheap: nothing of what opening did is repeated.
package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/reference"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// Options say how to look into a machine. The zero value is the default.
type Options struct {
	// Host finds the machine; nil is [local.Host], with every driver.
	Host *vm.Host
	// VM says how the machine is opened.
	VM vm.Options
	// Target is how messages call the machine; [Open] sets it to its target.
	Target string
	// Pause stops the machine until the Guest is closed or the context of Open ends.
	Pause bool
	// PostMortem looks even where nothing runs any more.
	PostMortem bool
	// Cache is the folder of kernel profiles; empty for none. See
	// [kernel.DefaultCache].
	Cache string
	// References gives boot images to compare kernels with, beside the file that the host
	// boots the machine with. It may be nil.
	References image.Source
	// Profiles is the folder of the user's own store of kernels and modules, and of the
	// authorities whose signatures are believed beside those of distributions; empty for none.
	// See [reference.Default].
	Profiles string
	// Images is the folder in which boot images are kept unpacked; empty for none. See
	// [image.DefaultCache].
	Images string
	// Warn gets what went wrong without being fatal. It may be nil.
	Warn func(error)
}

// Guest is a session with one guest. It is safe for concurrent use. Close it.
type Guest struct {
	target string // in messages
	opened string // by Open
	opts   Options

	store       *reference.Store // nil for none
	reference   cachedReference
	moduleFiles moduleFiles

	doubt atomic.Bool // whether system may not be what runs any more

	mu      sync.Mutex
	machine *vm.Machine
	process *proc.Handle // of the monitor; nil where there is none, or none to be seen
	system  *linux.System
	marks   marks
	boot    int
	resume  func() error  // nil unless paused
	pages   uint64        // up to the end of RAM, as the guest's kernel has it
	plugged []*vm.Machine // as the machine was before memory was plugged in
}

// Open opens a TARGET (see [vm.Host.Open] for its forms) and finds the Linux system
// that runs in it. Errors are sentences for people; those of opening are a
// [*vm.Error], whose kind programs can check.
func Open(ctx context.Context, target string, opts Options) (*Guest, error) {
	if opts.Host == nil {
		opts.Host = local.Host()
	}
	m, err := opts.Host.Open(ctx, target, opts.VM)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil { // what failed meanwhile says nothing of the machine
		return nil, errors.Join(err, m.Close())
	}
	for _, note := range m.Notes {
		if opts.Warn != nil {
			opts.Warn(errors.New(note))
		}
	}
	opts.Target = cmp.Or(opts.Target, target)
	g, err := Attach(ctx, m, opts)
	if err != nil {
		return nil, err
	}
	g.opened = target
	return g, nil
}

// Attach finds the Linux system that runs in m, which was opened otherwise. Closing
// the Guest closes m, and so does an error.
func Attach(ctx context.Context, m *vm.Machine, opts Options) (g *Guest, err error) {
	if opts.Warn == nil {
		opts.Warn = func(error) {}
	}
	g = &Guest{target: cmp.Or(opts.Target, m.Title()), opts: opts, machine: m}
	if opts.Profiles != "" {
		g.store = reference.Open(opts.Profiles, opts.Images)
	}
	defer func() {
		if err != nil {
			if e := g.Close(); errors.Is(e, ErrStillPaused) {
				err = fmt.Errorf("%w; and %w", err, e)
			}
			g = nil
		}
	}()
	if err := m.CheckStarted(); err != nil {
		return g, err
	}
	if m.State == vm.StateShutdown && !opts.PostMortem {
		return g, ended("it has shut down, so nothing runs in it", g.target)
	}
	if opts.Pause {
		if g.resume, err = Pause(ctx, m, g.target); err != nil {
			return g, err
		}
	}
	if g.process, err = monitorOf(m); err != nil {
		return g, ended("its monitor has ended", g.target)
	}
	known := m.Registers
	if opts.Pause {
		known = nil // they are of before the pause
	}
	if g.system, err = g.find(ctx, known); err != nil {
		return g, err
	}
	if m.Live() {
		// What cannot be read now is in doubt at the first look.
		g.marks, err = readMarks(ctx, g.system)
		g.marks.at = time.Now()
		g.doubt.Store(err != nil)
		g.pages = lastPage(g.system)
	}
	return g, nil
}

// monitorOf is the process that runs m. One of which nothing can be known (it is in
// another PID namespace) is nil: then the memory must show it.
func monitorOf(m *vm.Machine) (*proc.Handle, error) {
	if m.PID == 0 {
		return nil, nil
	}
	p, err := proc.Get(m.PID)
	if err == nil {
		var h *proc.Handle
		if h, err = proc.Open(p); err == nil {
			return h, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return nil, nil
}

// find finds the kernel in the machine's memory. known are the registers of its CPUs, if
// the monitor has shown them just now.
func (g *Guest) find(ctx context.Context, known []vm.Registers) (*linux.System, error) {
	m := g.machine
	// The monitor takes its time to answer: meanwhile memory is searched.
	processors := make(chan paging, 1)
	go func() {
		if known != nil {
			processors <- pagingOf(known)
			return
		}
		processors <- askPaging(ctx, m)
	}()
	first := sync.OnceValue(func() paging { return <-processors })
	asked := false
	s, err := linux.Open(ctx, m.Memory, kernel.Options{
		Cache: g.opts.Cache, Proven: m.Proven, Warn: g.opts.Warn,
		Roots: func() []uint64 {
			if asked { // again: what they did then was not what it looked for
				return askPaging(ctx, m).roots
			}
			asked = true
			return first().roots
		},
	})
	if first().off {
		return s, firmware(g.target, "its processors have not switched paging on")
	}
	if err != nil {
		return s, explain(err, g.target, m.Live())
	}
	if !g.opts.PostMortem && m.Live() {
		switch state := s.State; state {
		case kernel.StateHalted, kernel.StatePoweredOff:
			return s, ended(fmt.Sprintf("its kernel has %s, so nothing runs in it", state), g.target)
		case kernel.StateRestarting:
			return s, &vm.Error{Kind: vm.ErrNotStarted, What: "look into " + g.target, Why: "it is restarting", Do: "try again when it has booted"}
		}
	}
	return s, nil
}

// Target is the TARGET as the user gave it, for messages.
func (g *Guest) Target() string { return g.target }

// Machine is the virtual machine, or the dump of one. [Guest.Reopen] replaces it.
func (g *Guest) Machine() *vm.Machine {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.machine
}

// Boot counts the reboots that the session has seen: looks with the same number are at the
// same boot of the same kernel.
func (g *Guest) Boot() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.boot
}

// Paused says whether the session stopped the guest, until it is closed.
func (g *Guest) Paused() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resume != nil
}

// Close lets the guest go on, if it was paused, keeps what was learned of its
// kernel, and releases the machine.
func (g *Guest) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var err error
	if g.resume != nil {
		err = g.resume()
	}
	return errors.Join(err, g.release())
}

// release closes the machine. g.mu is held.
func (g *Guest) release() error {
	if g.process != nil {
		g.process.Close()
		g.process = nil
	}
	if g.system != nil {
		if err := g.system.Save(); err != nil {
			g.opts.Warn(err)
		}
	}
	return errors.Join(g.unplug(), g.machine.Close())
}
