package table

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm"
)

// OpenOptions say how to look into a machine.
type OpenOptions struct {
	Target string // as the user gave it
	// Pause stops the machine until the Guest is closed or ctx is cancelled.
	Pause bool
	// PostMortem looks even where nothing runs any more.
	PostMortem bool
	// Cache is the folder of kernel profiles; empty for none.
	Cache string
	// Warn is told of what went wrong without being fatal. It may be nil.
	Warn func(error)
}

// Open finds the Linux system that runs in m. Closing the Guest closes m, and so
// does an error.
func Open(ctx context.Context, m *vm.Machine, opts OpenOptions) (g *Guest, err error) {
	if opts.Warn == nil {
		opts.Warn = func(error) {}
	}
	if opts.Target == "" {
		opts.Target = m.Title()
	}
	g = &Guest{Target: opts.Target, Machine: m, warn: opts.Warn}
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
		return g, ended("it has shut down, so nothing runs in it", opts.Target)
	}
	if opts.Pause {
		if err := g.pause(ctx); err != nil {
			return g, err
		}
	}
	// The monitor takes its time to answer: meanwhile memory is searched.
	processors := make(chan paging, 1)
	go func() {
		if m.Registers != nil && !opts.Pause { // else they are of before the pause
			processors <- pagingOf(m.Registers)
			return
		}
		processors <- g.paging(ctx)
	}()
	first := sync.OnceValue(func() paging { return <-processors })
	asked := false
	g.Linux, err = linux.Open(ctx, m.Memory, kernel.Options{
		Cache: opts.Cache, Proven: m.Proven, Warn: opts.Warn,
		Roots: func() []uint64 {
			if asked { // again: what they did then was not what it looked for
				return g.paging(ctx).roots
			}
			asked = true
			return first().roots
		},
	})
	if first().off {
		return g, firmware(opts.Target, "its processors have not switched paging on")
	}
	if err != nil {
		return g, explain(err, opts.Target, m.Live())
	}
	if !opts.PostMortem && m.Live() {
		switch s := g.Linux.State; s {
		case kernel.StateHalted, kernel.StatePoweredOff:
			return g, ended(fmt.Sprintf("its kernel has %s, so nothing runs in it", s), opts.Target)
		case kernel.StateRestarting:
			return g, &vm.Error{Kind: vm.ErrNotStarted, What: "look into " + opts.Target, Why: "it is restarting", Do: "try again when it has booted"}
		}
	}
	return g, nil
}

// ErrStillPaused says that a guest which was paused could not be resumed.
var ErrStillPaused = errors.New("the guest may still be paused")

// Close lets the guest go on, if it was paused, keeps what was learned of its
// kernel, and lets go of the machine.
func (g *Guest) Close() error {
	var err error
	if g.resume != nil {
		err = g.resume()
	}
	if g.Linux != nil {
		if err := g.Linux.Save(); err != nil {
			g.warn(err)
		}
	}
	return errors.Join(err, g.Machine.Close())
}

func (g *Guest) pause(ctx context.Context) error {
	resume, err := Pause(ctx, g.Machine, g.Target)
	g.resume = resume
	return err
}

// Pause stops a machine, which messages call target, until resume is called or ctx
// ends. A dump stands still already. resume may be called more than once; an error
// of its is [ErrStillPaused].
func Pause(ctx context.Context, m *vm.Machine, target string) (resume func() error, err error) {
	if !m.Live() {
		return func() error { return nil }, nil
	}
	p := m.Control.Pauser
	if p == nil {
		return nil, &vm.Error{Kind: vm.ErrUnsupported, What: "pause " + target, Why: "that needs a QMP socket, and the machine has none that can be used", Do: "leave --pause out, free its QMP socket, or add -qmp to its command line"}
	}
	goOn, err := p.Pause(ctx)
	if err != nil {
		return nil, err
	}
	once := sync.OnceValue(func() error {
		// Whatever happened to ctx, the guest must go on.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := goOn(ctx); err != nil && !errors.Is(err, vm.ErrGone) {
			return fmt.Errorf("%w: %w; then resume %s by hand (%s)", ErrStillPaused, err, target, byHand(m))
		}
		return nil
	})
	// A Ctrl-C lets it go on at once, however long the work takes to notice.
	stop := context.AfterFunc(ctx, func() { _ = once() })
	return func() error {
		stop()
		return once()
	}, nil
}

// byHand is how a person lets m go on.
func byHand(m *vm.Machine) string {
	if m.VMM == "qemu" {
		return "QMP cont, virsh resume"
	}
	return fmt.Sprintf("the monitor's API, or kill -CONT %d", m.PID)
}

// paging is what the processors' registers tell of page tables.
type paging struct {
	roots []uint64 // CR3 of those that have paging on
	off   bool     // none has
}

// paging asks the machine for its registers. Where it does not show them, memory
// alone must do.
func (g *Guest) paging(ctx context.Context) (p paging) {
	r := g.Machine.Control.Registers
	if r == nil {
		return p
	}
	regs, err := r.Registers(ctx)
	if err != nil {
		return p
	}
	return pagingOf(regs)
}

func pagingOf(regs []vm.Registers) (p paging) {
	const pg = 1 << 31
	for _, cpu := range regs {
		if cpu.CR0&pg != 0 {
			p.roots = append(p.roots, cpu.CR3)
		}
	}
	p.off = len(p.roots) == 0 && len(regs) > 0
	return p
}

func ended(why, target string) error {
	return &vm.Error{Kind: vm.ErrGone, What: "look into " + target, Why: why, Do: "add --post-mortem to see what its memory held last"}
}

func firmware(target, why string) error {
	return &vm.Error{Kind: vm.ErrNotStarted, What: "look into " + target, Why: "it is in its firmware or boot loader: " + why, Do: "try again when its kernel has booted"}
}

// explain makes one sentence with a remedy of what [linux.Open] says.
func explain(err error, target string, live bool) error {
	e := &vm.Error{What: "look into " + target, Why: err.Error(), Err: err}
	switch {
	case errors.Is(err, kernel.ErrEmpty) && live:
		e.Kind, e.Why, e.Do = vm.ErrNotStarted, "its memory is all zeros: nothing has run in it yet", "try again when it has booted"
	case errors.Is(err, kernel.ErrEmpty):
		e.Kind, e.Do = vm.ErrNotDump, "check how the dump was made"
	case errors.Is(err, kernel.ErrNoKernel) && live:
		e.Kind, e.Why, e.Do = vm.ErrNotStarted, err.Error()+": it is in its firmware or boot loader, or runs another system", "try again when its kernel has booted"
	case errors.Is(err, kernel.ErrNoKernel):
		e.Kind, e.Do = vm.ErrNotDump, "give a raw image of the whole memory of an amd64 Linux guest; this one may be cut short, compressed or of another system"
	case errors.Is(err, kernel.ErrNotRunning) && live:
		e.Kind, e.Do = vm.ErrNotStarted, "try again when its kernel has booted"
	case errors.Is(err, kernel.ErrNotRunning):
		e.Kind, e.Do = vm.ErrNotDump, "check that the dump is whole"
	}
	return e
}
