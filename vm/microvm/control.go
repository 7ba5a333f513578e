package microvm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/ram"
)

// control is a [vm.Control] over the API of the monitor, or, without one, by signals to its
// process.
type control struct {
	p    proc.Process
	info vm.Info
	api  *api // nil: none that answers

	mu     sync.Mutex
	resume func(context.Context) error // while we have the machine paused, else nil
}

var (
	_ vm.Pauser = (*control)(nil)
	_ vm.Stater = (*control)(nil)
)

// patienceResume is how long letting the machine go on may take after a pause that failed.
const patienceResume = 10 * time.Second

// State implements [vm.Stater].
func (c *control) State(ctx context.Context) (vm.State, error) {
	if c.api == nil {
		return vm.StateUnknown, nil
	}
	t, err := c.api.ask(ctx)
	if err != nil {
		return vm.StateUnknown, c.failed("ask for the run state", err)
	}
	return t.state, nil
}

// Pause implements [vm.Pauser].
func (c *control) Pause(ctx context.Context) (resume func(context.Context) error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume != nil {
		return nil, &vm.Error{Kind: vm.ErrBusy, What: "pause the machine", Why: "it is paused already", Do: "resume it first"}
	}
	if c.api == nil {
		resume, err = c.pauseBySignal(ctx)
	} else {
		resume, err = c.pauseByAPI(ctx)
	}
	if err != nil {
		return nil, err
	}
	c.resume = resume
	return c.goOn, nil
}

func (c *control) goOn(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resume == nil {
		return nil
	}
	resume := c.resume
	c.resume = nil
	return resume(ctx)
}

func (c *control) pauseByAPI(ctx context.Context) (func(context.Context) error, error) {
	t, err := c.api.ask(ctx)
	if err != nil {
		return nil, c.failed("pause the machine", err)
	}
	switch t.state {
	case vm.StatePaused, vm.StatePrelaunch, vm.StateShutdown: // whoever stopped it will know when to start it
		return func(context.Context) error { return nil }, nil
	}
	g, err := c.guard(ctx)
	if err != nil {
		return nil, err
	}
	resume := func(ctx context.Context) error {
		err := c.api.setPaused(ctx, false)
		if err == nil {
			g.Done()
			return nil
		}
		if g.Abandon(ctx) == nil { // it has done it
			return nil
		}
		return c.failed("resume the machine", err)
	}
	if err := c.api.setPaused(ctx, true); err != nil {
		e := c.failed("pause the machine", err)
		// The monitor may have done it all the same.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceResume)
		defer cancel()
		if t, again := c.api.ask(late); again == nil && t.state == vm.StatePaused {
			again = resume(late)
			if again != nil {
				e.Why += ", and it is paused now: " + again.Error()
			}
			return nil, e
		}
		_ = g.Abandon(late) // which looks once more
		return nil, e
	}
	return resume, nil
}

func (c *control) pauseBySignal(ctx context.Context) (func(context.Context) error, error) {
	var g *guardian.Guard
	thaw, err := freeze(ctx, c.p, func() (err error) {
		g, err = c.guard(ctx)
		return err
	})
	if err != nil {
		if g != nil {
			g.Done() // freeze has thawed it
		}
		var e *vm.Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, signalError("pause the machine", c.p, c.info, err)
	}
	return func(ctx context.Context) error {
		err := thaw()
		if g != nil {
			if err == nil {
				g.Done()
			} else {
				_ = g.Abandon(ctx)
			}
		}
		if err != nil {
			e := signalError("resume the machine", c.p, c.info, err)
			if !errors.Is(err, unix.ESRCH) {
				e.Do = fmt.Sprintf("kill -CONT %d", c.p.PID)
			}
			return e
		}
		return nil
	}, nil
}

// failed is the sentence for an API that did not do what it was asked.
func (c *control) failed(what string, err error) *vm.Error {
	e := &vm.Error{What: what, Why: err.Error(), Err: err}
	switch {
	case ram.IsPermission(err):
		e.Kind, e.Why, e.Do = vm.ErrPermission, "this user may not connect to "+c.api.path, "run as the machine's user or root"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		e.Kind, e.Why, e.Do = vm.ErrGone, "no process listens at "+c.api.path+" any more", "start the machine again"
	case errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Why, e.Do = vm.ErrBusy, "its API at "+c.api.path+" does not answer", "try again"
	}
	return e
}
