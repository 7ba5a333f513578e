package libvirt

import (
	"context"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/guardian"
	"github.com/outsight-vmi/outsight/vm/qemu"
	"github.com/outsight-vmi/outsight/vm/qga"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// control is what can be done with an open domain.
func (d *domain) control() vm.Control {
	return vm.Control{Pauser: d, Stater: d, Registers: d, Events: d, Monitor: d, Agent: d, Closer: d}
}

// State implements [vm.Stater]. It is QEMU's own, which knows more states than libvirt.
func (d *domain) State(ctx context.Context) (vm.State, error) {
	s, err := qemu.State(ctx, d)
	if err != nil {
		return s, explain("ask for the run state", err)
	}
	return s, nil
}

// Registers implements [vm.RegisterReader].
func (d *domain) Registers(ctx context.Context) ([]vm.Registers, error) {
	regs, err := qemu.Registers(ctx, d)
	if err != nil {
		return regs, explain("read the registers", err)
	}
	return regs, nil
}

// QMP implements [vm.Monitor].
func (d *domain) QMP(ctx context.Context, command string, args, result any) error {
	if err := d.ExecuteAll(ctx, &qmp.Command{Name: command, Args: args, Result: result}); err != nil {
		return explain("run "+command, err)
	}
	return nil
}

// HMP implements [vm.Monitor].
func (d *domain) HMP(ctx context.Context, line string) (out string, err error) {
	if err := d.ExecuteAll(ctx, qmp.HMP(line, &out)); err != nil {
		return "", explain(fmt.Sprintf("run %q", line), err)
	}
	return out, nil
}

// agentPatience is how long the guest agent may take to answer a command.
const agentPatience = 10 * time.Second

// Run implements [vm.Agent].
func (d *domain) Run(ctx context.Context, program string, args ...string) (vm.AgentOutput, error) {
	return qga.Run(ctx, d, program, args...)
}

// Ask implements [qga.Asker]: the daemon has the agent's port.
func (d *domain) Ask(ctx context.Context, cmd *qmp.Command) error {
	request, err := marshal(cmd)
	if err != nil {
		return err
	}
	var text golibvirt.OptString
	err = d.with(ctx, func(c *conn) (err error) {
		text, err = c.l.QEMUDomainAgentCommand(d.dom, request, int32(agentPatience/time.Second), 0)
		return err
	})
	if err != nil {
		return explain("ask the guest agent", err)
	}
	if len(text) == 0 {
		return qga.ErrSilent
	}
	return qga.Answer([]byte(text[0]), cmd)
}

// state is the state of the domain in libvirt's words.
func (d *domain) state(ctx context.Context) (s golibvirt.DomainState, reason int32, err error) {
	err = d.with(ctx, func(c *conn) error {
		n, r, err := c.l.DomainGetState(d.dom, 0)
		s, reason = golibvirt.DomainState(n), r
		return err
	})
	return s, reason, err
}

// listState is the state as libvirt has it, which costs QEMU nothing.
func (d *domain) listState(ctx context.Context) (vm.State, error) {
	s, reason, err := d.state(ctx)
	if err != nil {
		return vm.StateUnknown, err
	}
	return stateOf(s, reason), nil
}

// stateOf brings a state of libvirt's into QEMU's words. libvirt calls a domain paused
// that was never started, too.
func stateOf(s golibvirt.DomainState, reason int32) vm.State {
	switch s {
	case golibvirt.DomainRunning, golibvirt.DomainBlocked:
		return vm.StateRunning
	case golibvirt.DomainPaused:
		switch golibvirt.DomainPausedReason(reason) {
		case golibvirt.DomainPausedIoerror:
			return "io-error"
		case golibvirt.DomainPausedWatchdog:
			return "watchdog"
		case golibvirt.DomainPausedCrashed:
			return "guest-panicked"
		case golibvirt.DomainPausedStartingUp:
			return vm.StatePrelaunch
		}
		return vm.StatePaused
	case golibvirt.DomainShutdown, golibvirt.DomainShutoff:
		return vm.StateShutdown
	case golibvirt.DomainCrashed:
		return "guest-panicked"
	case golibvirt.DomainPmsuspended:
		return "suspended"
	}
	return vm.StateUnknown
}

// patienceResume is how long resuming may take after a suspension that failed.
const patienceResume = 10 * time.Second

// hold is a domain that we have paused.
type hold struct {
	guard *guardian.Guard // resumes it if this process is killed
}

// Pause implements [vm.Pauser] with libvirt's suspension.
func (d *domain) Pause(ctx context.Context) (resume func(context.Context) error, err error) {
	const what = "pause the domain"
	d.pause.Lock()
	defer d.pause.Unlock()
	if d.held != nil {
		return nil, &vm.Error{Kind: vm.ErrBusy, What: what, Why: "it is paused already", Do: "resume it first"}
	}
	s, _, err := d.state(ctx)
	if err != nil {
		return nil, explain(what, err)
	}
	if s != golibvirt.DomainRunning { // whoever stopped it will know when to start it
		return func(context.Context) error { return nil }, nil
	}
	g, err := d.guard(ctx)
	if err != nil {
		return nil, &vm.Error{What: what, Why: err.Error(), Do: "leave the pause out", Err: err}
	}
	h := &hold{guard: g}
	if err := d.with(ctx, func(c *conn) error { return c.l.DomainSuspend(d.dom) }); err != nil {
		// It may have been done all the same, or be about to: the guardian looks again.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceResume)
		defer cancel()
		e := explain(what, err)
		if again := d.resumeNow(late); again != nil {
			e.Why += ", and it may be paused now: " + again.Error()
		}
		_ = g.Abandon(late)
		return nil, e
	}
	d.held = h
	return func(ctx context.Context) error { return d.resume(ctx, h) }, nil
}

// resume resumes what h paused, once.
func (d *domain) resume(ctx context.Context, h *hold) error {
	d.pause.Lock()
	defer d.pause.Unlock()
	if d.held != h || h == nil {
		return nil
	}
	d.held = nil
	err := d.resumeNow(ctx)
	if err == nil {
		h.guard.Done()
		return nil
	}
	if h.guard.Abandon(ctx) == nil { // it has done it
		return nil
	}
	return explain("resume the domain", err)
}

// resumeHeld resumes the domain if it is paused.
func (d *domain) resumeHeld() error {
	d.pause.Lock()
	h := d.held
	d.pause.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patienceResume)
	defer cancel()
	return d.resume(ctx, h)
}

// resumeNow starts nothing that a suspension did not stop: since then a migration may have
// ended, or the disk may have failed.
func (d *domain) resumeNow(ctx context.Context) error {
	if s, reason, err := d.state(ctx); err == nil && !suspended(s, reason) {
		return nil
	}
	return d.with(ctx, func(c *conn) error { return c.l.DomainResume(d.dom) })
}
