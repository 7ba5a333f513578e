// Package breakpoint is events of any QEMU, with KVM too: the machine stops at a few functions of its
// kernel, by breakpoints that QEMU's gdb stub sets, and goes on as soon as what happened has been read
// from its memory.
//
// That is for rare events: each stops all of the guest's processors for about a millisecond. KVM has
// four hardware breakpoints, which the guest does not see; while they are set, those that the guest
// itself sets do not work. Under TCG there are as many as one likes.
//
// The guest never stays stopped: a guardian (package vm/guardian) removes what was set and lets the
// machine run if this process is killed.
package breakpoint

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/gdb"
	"github.com/outsight-vmi/outsight/vm/guardian"
)

// Options say which events are wanted. The zero value asks for [Default].
type Options struct {
	// Kinds are what is waited for, most wanted first; nil: [Default].
	Kinds []trace.Kind
	// Watches are ranges of which stores are events.
	Watches []Watch
	// Processes knows the guest's processes; nil: the stream's own.
	Processes *trace.Processes
	// Room is how many events may wait for the reader; 0: 4096. What finds no room is counted.
	Room int
}

// Watch is a range of the guest's kernel memory: 1, 2, 4 or 8 bytes, aligned to their number.
type Watch struct {
	Name string // of the event
	Addr virt.Addr
	Size int
	Read bool // reading is an event too
}

// Default are the kinds that four hardware breakpoints are for.
func Default() []trace.Kind {
	return []trace.Kind{trace.KindExec, trace.KindExit, trace.KindConnect, trace.KindModule}
}

const defaultRoom = 4096

// stream is a [trace.Stream].
type stream struct {
	g         *guest.Guest
	opts      Options
	processes *trace.Processes

	stub   *stub
	conn   *gdb.Conn
	guard  *guardian.Guard
	kvm    bool
	boot   int
	layout *layout
	points []*point // that are set
	// happened makes an event of a point that was hit; intact says that the code there is as it was found.
	happened func(ctx context.Context, p *point, stop gdb.Stop, regs *gdb.Registers, at time.Time) (intact bool)

	quiet *quiet // how stops are heard of otherwise than by the stub; nil: by it

	events chan trace.Event
	lost   atomic.Uint64
	stop   context.CancelFunc
	done   chan struct{} // the loop has ended
	err    error         // why, once done is closed
	failed error         // of leaving
}

// Start sets breakpoints in the running guest of g, and gives what happens there. g must stay open until
// the stream is closed. The error says which kinds find no place.
func Start(ctx context.Context, g *guest.Guest, o Options) (trace.Stream, error) {
	if o.Kinds == nil && o.Watches == nil {
		o.Kinds = Default()
	}
	if o.Room <= 0 {
		o.Room = defaultRoom
	}
	if o.Processes == nil {
		o.Processes = trace.NewProcesses(g)
	}
	s := newStream(g, o)
	s.happened = s.linux
	m := g.Machine()
	if err := checkMachine(m, s.what()); err != nil {
		return nil, err
	}
	points, err := s.resolve(ctx)
	if err == nil {
		err = s.start(ctx, points)
	}
	if err != nil {
		var e *vm.Error
		if errors.As(err, &e) {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", s.what(), err)
	}
	return s, nil
}

func newStream(g *guest.Guest, o Options) *stream {
	return &stream{g: g, opts: o, processes: o.Processes, events: make(chan trace.Event, o.Room), done: make(chan struct{})}
}

// what is what errors say was to be done.
func (s *stream) what() string { return "set breakpoints in " + s.g.Target() }

// start sets points, and handles what stops there. After an error the machine runs without.
func (s *stream) start(ctx context.Context, points []*point) (err error) {
	m := s.g.Machine()
	s.kvm = m.Accel == "kvm"
	if s.stub, err = openStub(ctx, m, s.what()); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stub.close(context.WithoutCancel(ctx)))
		}
	}()
	if s.guard, err = s.stub.guard(ctx, m, s.g.Target()); err != nil {
		return err
	}
	loop, stop := context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			stop()
		}
	}()
	if !s.kvm && mayBeQuiet(m, points) {
		s.quiet = listen(loop, m)
	}
	if err = s.guard.Arm(); err != nil {
		s.guard.Done()
		return err
	}
	if err = s.attach(ctx, points); err != nil {
		// However far it came: the guardian lets the machine run.
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), patienceClose)
		defer cancel()
		if s.conn != nil {
			_ = s.conn.Close()
		}
		return errors.Join(err, s.guard.Abandon(late))
	}
	s.stop = stop
	go s.run(loop)
	return nil
}

// attach connects, which stops the machine, sets the breakpoints, and lets it run.
func (s *stream) attach(ctx context.Context, points []*point) (err error) {
	if s.conn, err = gdb.Dial(ctx, s.stub.path); err != nil {
		return err
	}
	if err := s.set(ctx, points); err != nil {
		return err
	}
	return s.goOn(ctx)
}

// goOn lets the machine run.
func (s *stream) goOn(ctx context.Context) error {
	if s.quiet != nil {
		return s.conn.ContinueQuietly(ctx, "", 0)
	}
	return s.conn.Continue()
}

// Next implements [trace.Stream].
func (s *stream) Next(ctx context.Context, e *trace.Event) error {
	select {
	case *e = <-s.events:
		return nil
	default:
	}
	select {
	case *e = <-s.events:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
	}
	select { // what was left
	case *e = <-s.events:
		return nil
	default:
		return s.err
	}
}

// Lost implements [trace.Stream].
func (s *stream) Lost() uint64 { return s.lost.Load() }

// patienceClose bounds how long closing may take.
const patienceClose = 10 * time.Second

// Close implements [trace.Stream]: it removes the breakpoints, and closes the stub.
func (s *stream) Close() error {
	s.stop()
	<-s.done
	return s.failed
}

// leave lets the machine run without breakpoints, or stand still without them if another has stopped it.
// It is called by the loop at its end.
func (s *stream) leave(ctx context.Context) error {
	var err error
	switch {
	case errors.Is(s.err, trace.ErrEnded):
	case errors.Is(s.err, context.Canceled): // it runs
		if _, err = s.conn.Halt(ctx); err == nil {
			err = s.conn.Detach(ctx)
		}
	case errors.Is(s.err, errPaused):
		for _, p := range s.points {
			err = errors.Join(err, s.remove(ctx, p))
		}
	default:
		err = s.err
	}
	_ = s.conn.Close()
	if err == nil {
		s.guard.Done()
	} else if err = s.guard.Abandon(ctx); err != nil { // who connects again
		err = fmt.Errorf("%s may still be stopped: %w; resume it by hand (QMP cont)", s.g.Target(), err)
	}
	if errors.Is(s.err, trace.ErrEnded) {
		s.stub.forget()
		return nil
	}
	return errors.Join(err, s.stub.close(ctx))
}

// emit hands an event on, or counts it.
func (s *stream) emit(e trace.Event) {
	e.Lost = s.lost.Load()
	select {
	case s.events <- e:
	default:
		s.lost.Add(1)
	}
}
