package microvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// guarded is the kind of the recipe by which a guardian resumes a machine.
const guarded = "microvm"

func init() { guardian.Register(guarded, resumeGuarded) }

// recipe names the machine to be resumed.
type recipe struct {
	VMM     string
	API     string // path of its socket; "": it was stopped by a signal
	PID     int
	Started uint64 // as [proc.Process] has it
}

// guard starts a guardian for a pause.
func (c *control) guard(ctx context.Context) (*guardian.Guard, error) {
	r := recipe{VMM: c.info.VMM, PID: c.p.PID, Started: c.p.Started}
	if c.api != nil {
		r.API = c.api.path
	}
	g, err := guardian.Start(ctx, guarded, r)
	if err == nil {
		if err = g.Arm(); err != nil {
			g.Done()
		}
	}
	if err != nil {
		return nil, &vm.Error{What: "pause the machine", Why: err.Error(), Do: "leave the pause out", Err: err}
	}
	return g, nil
}

// resumeGuarded is the [guardian.Resume] of a machine whose pauser was killed.
func resumeGuarded(ctx context.Context, data json.RawMessage) error {
	var r recipe
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	// A request to pause, or the signal, may take effect only now.
	const looks = 3
	for n := range looks {
		if n > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		if err := guardian.Retry(ctx, r.resume); err != nil {
			return err
		}
	}
	return nil
}

// resume resumes the machine if it is paused. A machine that is gone needs nothing.
func (r recipe) resume(ctx context.Context) error {
	p, err := proc.Get(r.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && p.Started != r.Started:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	case r.API == "":
		if stopped, err := proc.Stopped(r.PID); err != nil || !stopped {
			return err
		}
		return unix.Kill(r.PID, unix.SIGCONT)
	}
	a := api{vmm: r.VMM, path: r.API, pid: r.PID}
	t, err := a.ask(ctx)
	if err == nil && t.state == vm.StatePaused {
		err = a.setPaused(ctx, false)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	return nil
}
