package plant

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// alive waits until the guest's kernel is seen to run, and refuses a machine whose memory is not its own alone.
//
// Memory alone does not say so: after a reset, or while kexec puts another kernel in place, page tables, symbols and mailbox of the last one still
// lie there, and what is written by them goes into whatever the next one has there. A kernel whose clock has just ticked has not been left: to
// begin another takes longer than the host needs to write.
func (p *places) alive(ctx context.Context, h *hand, m *vm.Machine) error {
	if st := m.Control.Stater; st != nil {
		state, err := st.State(ctx)
		if err := standing(state, err); err != nil {
			return err
		}
	}
	if err := migrating(ctx, m); err != nil {
		return err
	}
	var last uint64
	for deadline := time.Now().Add(patience); ; {
		now, err := h.space.U64(p.jiffies)
		if err != nil {
			return fmt.Errorf("the guest's clock at %#x: %w", uint64(p.jiffies), err)
		}
		if ticked(last, now) {
			return nil
		}
		last = now
		if err := pause(ctx, deadline); err != nil {
			if errors.Is(err, errPatience) {
				err = refuse("the clock of the guest's kernel stands still: it has halted, sleeps, or boots again")
			}
			return err
		}
	}
}

// maxTicks is for how many ticks a guest may have slept (CONFIG_HZ is 1000 at most).
const maxTicks = 1 << 20

// ticked says whether a clock that was read twice within [pace] has gone on: as a clock does, not as memory that another kernel uses now.
func ticked(last, now uint64) bool { return last != 0 && now > last && now-last < maxTicks }

// standing refuses a machine that does not run.
func standing(state vm.State, err error) error {
	switch {
	case err != nil:
		return err
	case state == "postmigrate": // of QEMU's source
		return refuse("the machine has migrated: what is planted is where it runs now")
	case state != vm.StateRunning:
		return refuse("the machine is %s: resume it first", state)
	}
	return nil
}
