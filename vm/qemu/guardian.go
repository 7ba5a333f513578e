package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/proc"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// guarded is the kind of the recipe by which a guardian resumes a QEMU.
const guarded = "qemu"

func init() { guardian.Register(guarded, resumeGuarded) }

// recipe names the machine to be resumed.
type recipe struct {
	Path    string // of the QMP socket
	PID     int    // of QEMU; 0: unknown
	Started uint64 // as [proc.Process] has it
}

// guard starts a guardian for a pause.
func (m *monitor) guard(ctx context.Context) (*guardian.Guard, error) {
	r := recipe{PID: m.pid}
	var err error
	if r.Path, err = filepath.Abs(m.path); err != nil {
		return nil, err
	}
	if p, err := proc.Get(m.pid); m.pid != 0 && err == nil {
		r.Started = p.Started
	}
	return guardian.Start(ctx, guarded, r)
}

// resumeGuarded is the [guardian.Resume] of a QEMU whose pauser was killed.
func resumeGuarded(ctx context.Context, data json.RawMessage) error {
	var r recipe
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	// QEMU may be about to carry out a stop that it read from the connection which has
	// just ended, so one look at a machine that runs is not enough.
	const looks = 3
	for n := range looks {
		if n > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		err := guardian.Retry(ctx, func(ctx context.Context) error { return contOnce(ctx, r) })
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

// contOnce resumes the machine if it is paused: [errResumed]. A machine that is gone
// needs nothing.
func contOnce(ctx context.Context, r recipe) error {
	if p, err := proc.Get(r.PID); r.Started != 0 && (errors.Is(err, fs.ErrNotExist) || err == nil && p.Started != r.Started) {
		return nil
	}
	c, err := qmp.Dial(ctx, r.Path)
	switch {
	case errors.Is(err, qmp.ErrStale), errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	defer c.Close()
	s, err := state(ctx, c)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	case s != vm.StatePaused:
		return nil
	}
	if err := c.Execute(ctx, "cont", nil, nil); err != nil {
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	return errResumed
}
