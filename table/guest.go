package table

import (
	"cmp"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm"
)

// Guest is what a view looks at: one opened guest with all that is known of it.
type Guest struct {
	// Target is the TARGET as the user gave it, for messages.
	Target string
	// Machine is the virtual machine, or the dump of one.
	Machine *vm.Machine
	// Linux is the system that runs in it.
	Linux *linux.System

	warn   func(error)
	resume func() error // nil unless paused
}

// Profile is one line that says which kernel was found, and where what is known of
// it came from: every answer about the guest rests on that.
func (g *Guest) Profile() string {
	k := g.Linux
	return fmt.Sprintf("kernel %s, build-id %s, profile from %s", k.Release, cmp.Or(k.BuildID, "unknown"), k.Origin)
}

// Paused says whether the guest is stopped for as long as it is looked at.
func (g *Guest) Paused() bool { return g.resume != nil }

// Still says whether the guest's memory does not change while it is looked at.
func (g *Guest) Still() bool {
	return g.Machine != nil && (g.Paused() || !g.Machine.Live() || g.Machine.State == vm.StatePaused)
}
