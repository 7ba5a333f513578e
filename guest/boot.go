package guest

import (
	"context"
	"errors"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// standing is how long the guest's clock may stand still before its kernel is looked
// for again: an idle guest does not tick, one that was reset into its firmware neither.
const standing = 5 * time.Second

// marks are what distinguishes one boot of a guest from the next.
type marks struct {
	task virt.Addr     // of the first process
	born time.Duration // when it started, since boot
	up   time.Duration // time since boot at the last look
	at   time.Time     // when up last changed, by the host's clock
}

// readMarks reads the marks of s as they are now. A clock that cannot be found (in a kernel
// that names functions only) stands still.
func readMarks(ctx context.Context, s *linux.System) (m marks, err error) {
	if c, err := s.Clock(); err == nil {
		m.up = c.Up
	}
	reader := s.NewProcessReader()
	for t, err := range s.Processes(ctx) {
		if err != nil {
			return m, err
		}
		p, err := reader.Pulse(t)
		m.task, m.born = t.Addr, p.SinceBoot
		return m, err
	}
	return m, errors.New("no process")
}

// same reports whether now can be a later look at the boot that had the marks m.
func (m marks) same(now marks) bool {
	return m.task == now.task && m.born == now.born && now.up >= m.up
}

// current makes sure that g.system is the system that runs, and finds it again where
// that is in doubt. g.mu is held.
func (g *Guest) current(ctx context.Context) error {
	if !g.machine.Live() || g.resume != nil {
		return nil
	}
	if g.process != nil && !g.process.Alive() {
		return &vm.Error{Kind: vm.ErrGone, What: "look into " + g.target, Why: "its monitor has ended", Do: "start the machine again"}
	}
	now := time.Now()
	if !g.doubt.Load() {
		m, err := readMarks(ctx, g.system)
		if err == nil && g.marks.same(m) {
			if m.up != g.marks.up {
				g.marks.up, g.marks.at = m.up, now
			}
			if now.Sub(g.marks.at) < standing {
				return g.grown(ctx)
			}
		}
	}
	return g.again(ctx, now)
}

// Doubt has the next look find the kernel again, which takes as long as opening the guest did:
// for those who see that what they read is of no kernel that runs.
func (g *Guest) Doubt() { g.doubt.Store(true) }

// again looks for the kernel again.
func (g *Guest) again(ctx context.Context, now time.Time) error {
	// A reset that comes while this looks must be seen by the next look.
	g.doubt.Store(false)
	s, err := g.find(ctx, nil)
	if err != nil {
		g.doubt.Store(true)
		return err
	}
	m, err := readMarks(ctx, s)
	if err != nil { // no process yet: it has just begun to boot
		g.doubt.Store(true)
	}
	m.at = now
	// A snapshot that was restored puts the clock back, and is the same boot.
	rebooted := g.another(s, m)
	g.marks = m
	if !rebooted {
		return nil
	}
	if err := g.system.Save(); err != nil {
		g.opts.Warn(err)
	}
	g.system = s
	g.pages = lastPage(s)
	g.boot++
	return nil
}

// another reports whether s, with the marks m, is another boot than the session's.
func (g *Guest) another(s *linux.System, m marks) bool {
	return !sameKernel(g.system.Kernel, s.Kernel) || m.task != g.marks.task || m.born != g.marks.born
}

// sameKernel says whether two kernels lie at one place. What their memory calls them does not count: who writes to the
// banner of a kernel that runs must not be able to pass for a reboot.
func sameKernel(a, b *kernel.Kernel) bool {
	return a.Text == b.Text && a.TextPA == b.TextPA
}

// Reopen opens the target again, for a machine that has ended and may run again as
// another process. Looks from before must be closed. The session must be one of [Open]'s.
// After an error it is as it was.
func (g *Guest) Reopen(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opts.Host == nil {
		return &vm.Error{Kind: vm.ErrUnsupported, What: "open " + g.target + " again", Why: "it was opened without a target"}
	}
	fresh, err := Open(ctx, g.opened, g.opts)
	if err != nil {
		return err
	}
	rebooted := g.another(fresh.system, fresh.marks)
	if g.resume != nil {
		err = g.resume()
	}
	err = errors.Join(err, g.release())
	g.machine, g.process, g.system, g.marks, g.resume, g.pages = fresh.machine, fresh.process, fresh.system, fresh.marks, fresh.resume, fresh.pages
	g.doubt.Store(fresh.doubt.Load())
	if rebooted {
		g.boot++
	}
	return err
}
