package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// guarded is the kind of the recipe by which a guardian resumes a domain.
const guarded = "libvirt"

func init() { guardian.Register(guarded, resumeGuarded) }

// recipe names the domain to be resumed.
type recipe struct {
	Socket  string
	Session bool
	UUID    UUID
	PID     int    // of its QEMU
	Started uint64 // as [proc.Process] has it
}

// guard starts a guardian for a pause.
func (d *domain) guard(ctx context.Context) (*guardian.Guard, error) {
	g, err := guardian.Start(ctx, guarded, recipe{
		Socket: d.at.socket, Session: d.at.session, UUID: UUID(d.dom.UUID), PID: d.process.PID, Started: d.process.Started,
	})
	if err != nil {
		return nil, err
	}
	if err := g.Arm(); err != nil {
		g.Done()
		return nil, err
	}
	return g, nil
}

// resumeGuarded is the [guardian.Resume] of a domain whose pauser was killed.
func resumeGuarded(ctx context.Context, data json.RawMessage) error {
	var r recipe
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	// The daemon may be about to carry out a suspension that it read from the connection
	// which has just ended, so one look at a domain that runs is not enough.
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

var errResumed = errors.New("the domain was resumed")

// resume resumes the domain if it is suspended: [errResumed]. One that is gone needs
// nothing. A daemon that was stopped finds the domain suspended when it is back.
func (r recipe) resume(ctx context.Context) error {
	p, err := proc.Get(r.PID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && p.Started != r.Started {
		return nil
	}
	dom, err := New().lookUp(ctx, daemon{r.Socket, r.Session}, r.UUID, p)
	if err != nil {
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	defer dom.Close()
	s, reason, err := dom.state(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	case !suspended(s, reason):
		return nil
	}
	if err := dom.with(ctx, func(c *conn) error { return c.l.DomainResume(dom.dom) }); err != nil {
		return fmt.Errorf("%w: %w", guardian.ErrAgain, err)
	}
	return errResumed
}

// suspended reports whether that is how a suspension leaves a domain. One that migrated
// meanwhile, or whose disk failed, is not resumed.
func suspended(s golibvirt.DomainState, reason int32) bool {
	return s == golibvirt.DomainPaused && golibvirt.DomainPausedReason(reason) == golibvirt.DomainPausedUser
}
