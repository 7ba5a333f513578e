package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/look"
	"github.com/outsight-vmi/outsight/vm"
)

// Look is what one look at a guest shows: what views and checks get. Each page of a live
// guest is read once and kept, for all that read through Linux (package phys/look). Close
// it, so that what it keeps of the guest's memory is freed.
type Look struct {
	// Target is the TARGET as the user gave it, for messages.
	Target string
	// Machine is the virtual machine, or the dump of one.
	Machine *vm.Machine
	// Linux is the system that runs in it, as it is at this look.
	Linux *linux.System
	// At is when the look began, by the host's clock.
	At time.Time
	// Boot is [Guest.Boot] as it was then.
	Boot int

	paused bool
	kept   *look.Memory // nil for a dump
	guest  *Guest       // to be closed with the look; nil if others close it
	of     *Guest       // that is looked at; nil for a look that was made by hand

	sockets socketsByPID
}

// LookAt is one look at a TARGET, for those who need no more than one: [Open] and
// [Guest.Look]. Closing the look closes the guest.
func LookAt(ctx context.Context, target string, opts Options) (*Look, error) {
	g, err := Open(ctx, target, opts)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.look() // opening has just found what runs: nothing is checked again
	l.guest = g
	return l, nil
}

// Look begins a look at the guest. A guest that was rebooted since the last look is
// found again, which takes as long as opening it did; [Look.Boot] shows it. The error is a
// [*vm.Error] of kind [vm.ErrGone] if the machine has ended, and of kind
// [vm.ErrNotStarted] while its kernel boots: look again later.
func (g *Guest) Look(ctx context.Context) (*Look, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.current(ctx); err != nil {
		return nil, err
	}
	return g.look(), nil
}

// look begins a look at the system that was found. g.mu is held.
func (g *Guest) look() *Look {
	l := &Look{Target: g.target, Machine: g.machine, At: time.Now(), Boot: g.boot, paused: g.resume != nil, of: g}
	if g.machine.Live() {
		l.kept = look.New(g.system.Memory, look.DefaultLimit)
		l.Linux = g.system.Over(l.kept)
	} else { // a dump does not change, and is mapped as a whole
		l.Linux = g.system.Over(g.system.Memory)
	}
	return l
}

// Close ends the look, and lets go of what it kept. Nothing may be read through it any
// more.
func (l *Look) Close() error {
	if l.kept != nil {
		l.kept.Close()
	}
	if l.guest != nil {
		return l.guest.Close()
	}
	return nil
}

// Noted is the same look, with all that is read through its Linux noted; nil for a guest of which nothing is
// kept, as of a dump, which does not change. Owners are whose code lies where, if that is known already.
func (l *Look) Noted(owners *linux.Owners) (*Look, *look.Noted) {
	kept := l.memory()
	if kept == nil {
		return nil, nil
	}
	notes := kept.Note()
	return &Look{
		Target: l.Target, Machine: l.Machine, Linux: l.Linux.Through(notes, owners), At: l.At, Boot: l.Boot,
		paused: l.paused, kept: l.kept, of: l.of,
	}, notes
}

// Same reports whether all that was noted at a look before is the same at this one.
func (l *Look) Same(n *look.Noted) bool {
	kept := l.memory()
	return kept != nil && n.Same(kept)
}

// memory is what the look keeps of the guest's memory; nil for a dump.
func (l *Look) memory() *look.Memory {
	kept, _ := phys.As[*look.Memory](l.Linux.Memory)
	return kept
}

// Profile is one line that says which kernel was found, and where what is known of
// it came from: every answer about the guest rests on that.
func (l *Look) Profile() string {
	k := l.Linux
	return fmt.Sprintf("kernel %s, build-id %s, profile from %s", k.Release, cmp.Or(k.BuildID, "unknown"), k.Origin)
}

// Paused says whether the guest is stopped for as long as it is looked at.
func (l *Look) Paused() bool { return l.paused }

// Still says whether the guest's memory does not change while it is looked at.
func (l *Look) Still() bool {
	return l.Machine != nil && (l.paused || !l.Machine.Live() || l.Machine.State == vm.StatePaused)
}
