package breakpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
)

const (
	// everyBoot is how often it is looked whether the guest has booted again.
	everyBoot = time.Second
	// everyState is how often a machine that another has stopped is asked whether it runs again.
	everyState = 100 * time.Millisecond
	// resumeFlag is RF of RFLAGS: no breakpoint stops the next instruction.
	resumeFlag = 1 << 16
)

// errPaused says that another has stopped the machine, when the loop ends.
var errPaused = errors.New("the machine is paused")

// run handles what stops the machine until ctx ends or something fails, and takes the breakpoints away.
func (s *stream) run(ctx context.Context) {
	defer close(s.done)
	err := s.loop(ctx)
	if errors.Is(err, gdb.ErrClosed) {
		err = s.closedBy()
	}
	s.err = err
	s.stop()
	late, cancel := context.WithTimeout(context.Background(), patienceClose)
	defer cancel()
	s.failed = s.leave(late)
}

// loop handles stops until an error.
func (s *stream) loop(ctx context.Context) error {
	looked := time.Now()
	for {
		stop, err := s.wait(ctx, everyBoot)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			err = s.handle(ctx, stop)
		case errors.Is(err, context.DeadlineExceeded):
			err = nil
		}
		if err == nil && time.Since(looked) >= everyBoot {
			err, looked = s.rebooted(ctx), time.Now()
		}
		if err != nil {
			return err
		}
	}
}

func (s *stream) wait(ctx context.Context, most time.Duration) (gdb.Stop, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if s.quiet != nil {
		return s.quiet.wait(ctx)
	}
	return s.conn.Wait(ctx)
}

// closedBy says why the stub closed the connection. A QEMU that ends closes it first.
func (s *stream) closedBy() error {
	const most = time.Second
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	for ctx.Err() == nil {
		l, err := s.g.Look(ctx)
		if err != nil {
			return trace.ErrEnded
		}
		l.Close()
		time.Sleep(most / 50)
	}
	return fmt.Errorf("%s: another has closed its gdb stub", s.g.Target())
}

// handle deals with one stop, and lets the machine run. What reads and resumes is not ended by ctx: a
// machine that was stopped runs again.
func (s *stream) handle(ctx context.Context, stop gdb.Stop) error {
	at := time.Now()
	switch {
	case stop.Ended:
		return trace.ErrEnded
	case stop.Signal != gdb.SignalTrap:
		return s.paused(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	regs, err := s.conn.Registers(ctx)
	if err != nil {
		return err
	}
	rip, _ := regs.Get("rip")
	p := s.pointOf(stop, virt.Addr(rip))
	if p == nil { // of a breakpoint that has just been removed
		return s.goOn(ctx)
	}
	eflags, _ := regs.Get("eflags")
	intact := s.happened(ctx, p, stop, regs, at)
	return s.pass(ctx, p, stop.CPU, rip, eflags, intact)
}

// pointOf is the point at which the machine stopped.
func (s *stream) pointOf(stop gdb.Stop, rip virt.Addr) *point {
	for _, p := range s.points {
		switch {
		case p.watch == nil && stop.Access == 0 && p.addr == rip:
			return p
		case p.watch != nil && stop.Access != 0 && uint64(p.addr) <= stop.Addr && stop.Addr < uint64(p.addr)+uint64(p.watch.Size):
			return p
		}
	}
	return nil
}

// pass lets the machine run on from p. The cheapest way is to set a register in the request that resumes
// it: each stop more takes as long as the first. (Who resets the machine by its monitor within that half
// millisecond, under TCG, has it begin at a wrong address, and must reset it again.)
func (s *stream) pass(ctx context.Context, p *point, cpu int, rip, eflags uint64, intact bool) error {
	switch {
	case p.watch != nil: // it has stopped behind the access
		return s.conn.Continue()
	case p.nop > 0 && intact && s.quiet != nil:
		return s.conn.ContinueQuietly(ctx, "rip", rip+uint64(p.nop))
	case p.nop > 0 && intact && !s.kvm:
		return s.conn.ContinueWith(ctx, "rip", rip+uint64(p.nop))
	case s.kvm:
		// Whatever the instruction is now: the processor itself passes it.
		return s.conn.ContinueWith(ctx, "eflags", eflags|resumeFlag)
	case cpu < 0:
		if cpu = s.cpuAt(ctx, p.addr); cpu < 0 { // it was reset meanwhile
			return s.goOn(ctx)
		}
	}
	// A step of TCG's passes a breakpoint (check_for_breakpoints in accel/tcg/cpu-exec.c).
	if _, err := s.conn.Step(ctx, cpu); err != nil {
		return err
	}
	return s.goOn(ctx)
}

// paused waits until the machine that another has stopped runs again.
func (s *stream) paused(ctx context.Context) error {
	if err := s.conn.Acknowledge(); err != nil {
		return err
	}
	stater := s.g.Machine().Control.Stater
	for {
		state := vm.StateUnknown
		if stater != nil {
			state, _ = stater.State(ctx) // busy: again
		}
		switch state {
		case vm.StateRunning:
			// The stub says nothing of stops unless it was asked to resume the machine.
			late := context.WithoutCancel(ctx)
			if _, err := s.conn.Halt(late); err != nil {
				return err
			}
			return s.goOn(late)
		case stateDebug:
			return s.silent(ctx)
		}
		switch stop, err := s.wait(ctx, everyState); {
		case ctx.Err() != nil:
			return errPaused
		case err == nil:
			return s.handle(ctx, stop)
		case !errors.Is(err, context.DeadlineExceeded):
			return err // it has ended
		}
	}
}

// stateDebug is that of a machine that a breakpoint has stopped (qapi/run-state.json).
const stateDebug vm.State = "debug"

// silent deals with a breakpoint of which the stub said nothing.
func (s *stream) silent(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	for _, p := range s.points {
		if p.watch != nil {
			continue
		}
		if cpu := s.cpuAt(ctx, p.addr); cpu >= 0 {
			return s.handle(ctx, gdb.Stop{Signal: gdb.SignalTrap, CPU: cpu})
		}
	}
	return s.goOn(ctx)
}

// cpuAt selects the processor that is about to execute what is at addr; -1: none is.
func (s *stream) cpuAt(ctx context.Context, addr virt.Addr) int {
	for cpu := range max(s.g.Machine().CPUs, 1) {
		if err := s.conn.Select(ctx, cpu); err != nil {
			return -1
		}
		regs, err := s.conn.Registers(ctx)
		if err != nil {
			return -1
		}
		if rip, _ := regs.Get("rip"); virt.Addr(rip) == addr {
			return cpu
		}
	}
	return -1
}

// rebooted sets the breakpoints again if the guest has booted again: its kernel lies elsewhere.
func (s *stream) rebooted(ctx context.Context) error {
	l, err := s.g.Look(ctx)
	if err != nil {
		return nil //nolint:nilerr // it boots, or has ended, which the stub says
	}
	boot := l.Boot
	l.Close()
	if boot == s.boot {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	points, err := s.resolve(ctx)
	if err != nil {
		return nil //nolint:nilerr // not yet
	}
	if _, err := s.conn.Halt(ctx); err != nil {
		return err
	}
	for _, p := range s.points {
		if err := s.remove(ctx, p); err != nil && !errors.Is(err, gdb.ErrRefused) {
			return err
		}
	}
	if err := s.set(ctx, points); err != nil {
		return err
	}
	s.emit(trace.Event{Time: time.Now(), Source: trace.FromBreakpoint, Kind: trace.KindBoot, VCPU: -1})
	return s.goOn(ctx)
}
