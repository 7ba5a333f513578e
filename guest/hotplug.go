package guest

import (
	"context"
	"errors"
	"slices"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
)

// maxPlugged bounds how often memory may be plugged in during a session: each time costs a machine
// that stays open.
const maxPlugged = 64

// lastPage is the number of pages up to the end of RAM, as the guest's kernel knows it; 0 where
// it cannot be read.
func lastPage(s *linux.System) uint64 {
	a, ok := s.Address("max_pfn")
	if !ok {
		return 0
	}
	n, err := s.Space.U64(a)
	if err != nil {
		return 0
	}
	return n
}

// grown opens the machine again if its guest has got memory that the session does not know of:
// memory can be plugged in while a machine runs. g.mu is held.
func (g *Guest) grown(ctx context.Context) error {
	pages := lastPage(g.system)
	if pages == g.pages {
		return nil
	}
	var end phys.Addr
	for _, r := range g.machine.Memory.Ranges() {
		end = max(end, r.End)
	}
	// A guest that lies about it costs one attempt for each lie.
	if pages <= uint64(end)/phys.PageSize || g.opened == "" || len(g.plugged) >= maxPlugged {
		g.pages = pages
		return nil
	}
	fresh, err := Open(ctx, g.opened, g.opts)
	if err != nil {
		return err
	}
	g.pages = pages
	if slices.Equal(fresh.machine.Memory.Ranges(), g.machine.Memory.Ranges()) {
		return fresh.Close() // it lies, or the memory is not there yet
	}
	if g.another(fresh.system, fresh.marks) {
		return fresh.Close() // it was rebooted meanwhile, which the next look finds out
	}
	// Looks at the machine as it was go on.
	g.plugged = append(g.plugged, g.machine)
	if fresh.process != nil {
		fresh.process.Close()
	}
	g.machine, g.system = fresh.machine, fresh.system
	return nil
}

// unplug closes the machines as they were. g.mu is held.
func (g *Guest) unplug() error {
	var errs []error
	for _, m := range g.plugged {
		errs = append(errs, m.Close())
	}
	g.plugged = nil
	return errors.Join(errs...)
}
