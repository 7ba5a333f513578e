package check

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/vm"
)

// bootTime bounds how long a kernel is believed that says that it boots: one word of memory
// must not switch the checks off.
const bootTime = 5 * time.Minute

// booting is an error while the kernel of a guest that runs boots: tables are half made then,
// and nothing is sealed yet (mark_rodata_ro).
func booting(l *guest.Look) error {
	if !l.Machine.Live() {
		return nil // there is nothing to wait for
	}
	if state, running, ok := systemState(l); !ok || state >= running {
		return nil // what cannot be read the checks report
	}
	if c, err := l.Linux.Clock(); err == nil && c.Up > bootTime {
		return nil
	}
	return &vm.Error{Kind: vm.ErrNotStarted, What: "judge " + l.Target, Why: "its kernel is still booting", Do: "try again when it has booted"}
}

// systemState is system_state, and what it is when the kernel has booted.
func systemState(l *guest.Look) (state, running int64, ok bool) {
	a, ok := l.Linux.Address("system_state")
	running, unknown := l.Linux.EnumValue("system_states", "SYSTEM_RUNNING")
	now, unread := l.Linux.Space.U32(a)
	return int64(now), running, ok && unknown == nil && unread == nil
}

// lasts is an error if the guest is in another boot than the one with this number, or between two:
// what a kernel leaves in memory that has ended (reboot, kexec, a crash that boots another) is torn
// apart, and no later look is at it. Such memory has a clock that stands still. As that of an idle
// guest may, the kernel is found again then.
func lasts(ctx context.Context, g *guest.Guest, number int) error {
	var up time.Duration
	for i := range lastsLooks {
		if i == lastsLooks-1 {
			g.Doubt()
		} else if i > 0 {
			time.Sleep(lastsAfter)
		}
		l, err := g.Look(ctx)
		if err != nil {
			return err
		}
		c, unknown := l.Linux.Clock()
		if err := l.Close(); err != nil {
			return err
		}
		switch {
		case l.Boot != number:
			return rebooted(g.Target())
		case unknown == nil && i > 0 && c.Up > up:
			return nil
		}
		up = c.Up
	}
	return nil
}

// How often a clock is looked at that stands still, and how long after each other: busy guests
// tick each 1 to 10 ms.
const (
	lastsLooks = 4
	lastsAfter = 20 * time.Millisecond
)

func rebooted(target string) error {
	return &vm.Error{Kind: vm.ErrNotStarted, What: "judge " + target, Why: "it was rebooted meanwhile", Do: "try again when it has booted"}
}
