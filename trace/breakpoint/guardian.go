package breakpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/local"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// guarded is the kind of the recipe by which a guardian frees a machine from breakpoints.
const guarded = "breakpoint"

func init() { guardian.Register(guarded, free) }

// recipe names the machine to be freed.
type recipe struct {
	Path    string // of the stub's socket
	Ours    bool   // the stub is to be closed
	Target  string // by which the machine is opened
	PID     int    // of QEMU; 0: unknown
	Started uint64 // as [proc.Process] has it
}

// guard starts a guardian for the time in which breakpoints are set.
func (s *stub) guard(ctx context.Context, m *vm.Machine, target string) (*guardian.Guard, error) {
	r := recipe{Path: s.path, Ours: s.ours, Target: target, PID: m.PID}
	if m.QMP != "" {
		r.Target = "qemu:" + m.QMP
	}
	if p, err := proc.Get(m.PID); m.PID != 0 && err == nil {
		r.Started = p.Started
	}
	return guardian.Start(ctx, guarded, r)
}

// free is the [guardian.Resume] of a machine whose tracer was killed.
func free(ctx context.Context, data json.RawMessage) error {
	var r recipe
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	return guardian.Retry(ctx, func(ctx context.Context) error {
		if r.ended() {
			return nil
		}
		// The stub first: that takes a millisecond, opening the machine many.
		err := gdb.Free(ctx, r.Path)
		if err == nil {
			r.close(ctx)
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
			err = r.reopen(ctx)
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", guardian.ErrAgain, err)
		}
		return err
	})
}

// ended says whether the machine's QEMU is known to have ended.
func (r *recipe) ended() bool {
	if r.Started == 0 {
		return false
	}
	h, err := proc.Open(proc.Process{PID: r.PID, Started: r.Started})
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer h.Close()
	return !h.Alive()
}

// close closes the stub if it can. That it stays open does no harm: the next trace takes it.
func (r *recipe) close(ctx context.Context) {
	if !r.Ours {
		return
	}
	m, err := local.Open(ctx, r.Target)
	if err != nil {
		return
	}
	defer m.Close()
	if s := (&stub{monitor: m.Control.Monitor, qemu: proc.Process{PID: m.PID}, path: r.Path, ours: true}); s.monitor != nil {
		_ = s.close(ctx)
	}
}

// reopen frees a machine whose stub another has closed, which leaves what was set.
func (r *recipe) reopen(ctx context.Context) error {
	m, err := local.Open(ctx, r.Target)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := checkMachine(m, "remove the breakpoints from "+r.Target); err != nil {
		return err
	}
	s := &stub{monitor: m.Control.Monitor, qemu: proc.Process{PID: m.PID}, ours: true}
	switch path, found, err := s.existing(ctx); {
	case err != nil:
		return err
	case path == "" && found != "":
		return nil // whoever debugs it now has removed them (gdb asks "?")
	case path != "":
		return gdb.Free(ctx, path)
	}
	if err := s.open(ctx, m, "remove the breakpoints from "+r.Target); err != nil {
		return err
	}
	err = gdb.Free(ctx, s.path)
	return errors.Join(err, s.close(ctx))
}
