package check

import (
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
