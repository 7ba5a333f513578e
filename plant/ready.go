package plant

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/vm"
)

// minUptime is how long a guest must be up: while it boots, work items and memory are still being set up.
const minUptime = 10 * time.Second

// ready checks that a guest is in a state in which something may be written into it.
func (p *places) ready(ctx context.Context, l *guest.Look) error {
	m := l.Machine
	if !m.Live() {
		return refuse("a dump stands still: nothing happens in it")
	}
	if m.Arch != "" && m.Arch != "x86_64" {
		return refuse("a guest of %s is not supported yet", m.Arch)
	}
	if st := m.Control.Stater; st != nil {
		state, err := st.State(ctx)
		if err := standing(state, err); err != nil {
			return err
		}
	}
	if err := migrating(ctx, m); err != nil {
		return err
	}
	s := p.s
	if !s.Since(6, 1) {
		return refuse("kernel %s is older than 6.1", s.Release)
	}
	running, err := s.EnumValue("system_states", "SYSTEM_RUNNING")
	if err != nil {
		return refuse("%v", err)
	}
	r := s.Reader()
	if a, ok := s.Address("system_state"); !ok || int64(r.U32(a)) != running {
		return refuse("the guest's kernel is not in normal operation: it boots, shuts down, or sleeps")
	}
	const died = 1 << 7 // TAINT_DIE
	if a, ok := s.Address("tainted_mask"); ok && r.U64(a)&died != 0 {
		return refuse("the guest's kernel has had an oops")
	}
	if c, err := s.Clock(); err != nil || c.Up < minUptime {
		return refuse("the guest has been up for less than %s: wait", minUptime)
	}
	for mod, err := range s.Modules(ctx) {
		if err != nil {
			return refuse("the guest's modules: %v", err)
		}
		if slices.Contains(guards, mod.Name) {
			return refuse("module %s guards the guest's kernel, and would take what is planted for an attack", mod.Name)
		}
	}
	// Stacks that lead through the code have no unwind information, which live patching goes by.
	if a, ok := s.Address("klp_transition_patch"); ok && r.U64(a) != 0 {
		return refuse("a live patch is being put in place or taken out")
	}
	if r.Err != nil {
		return r.Err
	}
	return p.idle()
}

// guards are modules that watch the kernel's code and data.
var guards = []string{"lkrg", "p_lkrg"}

// idle checks that the work item is as the kernel has it.
func (p *places) idle() error {
	v, err := p.s.Space.Live().U64(p.slot)
	switch {
	case err != nil:
		return err
	case v != uint64(p.original):
		return refuse("the work item shepherd leads to %#x, expected vmstat_shepherd at %#x: a probe is being planted, or the guest's kernel was tampered with", v, uint64(p.original))
	}
	return nil
}

// migrating refuses a machine whose memory is on its way to another: what is written from outside is in no dirty log, and would
// stay behind.
func migrating(ctx context.Context, m *vm.Machine) error {
	if m.Control.Monitor == nil {
		return nil
	}
	var info struct{ Status string }
	if err := m.Control.Monitor.QMP(ctx, "query-migrate", nil, &info); err != nil {
		return fmt.Errorf("ask whether the machine migrates: %w", err)
	}
	if !slices.Contains([]string{"", "none", "completed", "failed", "cancelled"}, info.Status) {
		return refuse("a migration of the machine is under way (%s): what is written now would not migrate; wait until it ends", info.Status)
	}
	return nil
}
