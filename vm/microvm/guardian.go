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
	// A request to pause may be carried out only now.
	const looks = 3
	for n := range looks {
		if n > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		err := guardian.Retry(ctx, r.resume)
		if errors.Is(err, errResumed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errResumed = errors.New("the machine was resumed")

// resume resumes the machine if it is paused: [errResumed]. A machine that is gone needs
// nothing.
func (r recipe) resume(ctx context.Context) error {
	p, err := proc.Get(r.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && p.Started != r.Started:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	case r.API == "":
		// Some of its threads may not have stopped yet. It was not stopped when this
		// guardian was armed, and a SIGCONT does nothing to what runs.
		if err := unix.Kill(r.PID, unix.SIGCONT); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
		return errResumed
	}
	a := api{vmm: r.VMM, path: r.API, pid: r.PID}
	t, err := a.ask(ctx)
	if err == nil && t.state != vm.StatePaused {
		return nil
	}
	if err == nil {
		err = a.setPaused(ctx, false)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	return errResumed
}
