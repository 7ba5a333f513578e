// Package polling is a source of events that needs nothing of the monitor but the guest's memory: what
// differs between two looks has happened in between. What came and went in less time than that is
// not seen; where the kernel counts it, events of kind [trace.KindLost] say how much it was.
//
// Each kind of thing is looked at as often as it is cheap to: processes ten times a second, by the
// words of each task that show whether anything happened to it; sockets when the kernel's counters
// of them change; the rest once in a second or more.
package polling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// How often what is looked at.
const (
	// DefaultEvery is from one look at the processes to the next.
	DefaultEvery = 100 * time.Millisecond
	// MinEvery bounds it: beyond 100 looks a second there is little left to see.
	MinEvery = 10 * time.Millisecond

	everySockets  = 250 * time.Millisecond // at the counts, and at all of them if those changed
	everySecond   = time.Second            // modules, interfaces, BPF programs
	everyMounts   = 2 * time.Second
	everyFindings = 30 * time.Second
	retry         = 250 * time.Millisecond // of what could not be looked at
)

// Options say what is looked at. The zero value is the default: everything but findings.
type Options struct {
	// Every is from one look at the processes to the next; 0 is [DefaultEvery]. Nothing is looked at
	// more often.
	Every time.Duration
	// Kinds are the events that are wanted; nil for all. What leads to no other is not looked at.
	Kinds []trace.Kind
	// Findings judges the guest; nil for no events of that kind.
	Findings Judge
	// FindingsEvery is from one judgement to the next; 0: 30 seconds.
	FindingsEvery time.Duration
	// Beside says that another source sees each process and connection: nothing is said of how many no look saw, and of
	// changes of credentials only of those that were made in place, which no function of the kernel does.
	Beside bool
	// Warn gets what could not be looked at, when it fails twice in a row, and once in a while as long as it stays so. It
	// may be nil.
	Warn func(error)
}

// Stream is a [trace.Stream]: the events of one guest.
type Stream struct {
	g     *guest.Guest
	o     Options
	kinds map[trace.Kind]bool // nil for all
	parts []*scheduled

	processes *processes
	judge     *judge

	queue []trace.Event
	next  int // of the queue
	lost  uint64

	boot   int
	booted placed // the kernel of the last event of a boot
	away   bool   // no kernel runs
	closed bool
}

var _ trace.Stream = (*Stream)(nil)

// part is one kind of thing that is looked at.
type part interface {
	// look compares with the look before; the first one, and the first after forget, has nothing to
	// compare with and yields no events.
	look(ctx context.Context, r *round) error
	// forget forgets what was seen: another kernel runs.
	forget()
}

type scheduled struct {
	part
	name  string
	every time.Duration
	due   time.Time
	fails int       // see failed
	told  time.Time // when that was last reported
}

// maxQueue bounds the events of one look: a guest that starts processes without end costs bounded
// memory, and what finds no room is counted.
const maxQueue = 1 << 16

// Blind are the kinds of the feed's events that polling cannot see: nothing is left of them at the next look.
func Blind() []trace.Kind {
	return []trace.Kind{trace.KindUnlink, trace.KindNewCode, trace.KindRefused}
}

// Start looks at g for the first time, and then whenever Next waits. Closing the stream does not
// close g.
func Start(ctx context.Context, g *guest.Guest, o Options) (*Stream, error) {
	if o.Every == 0 {
		o.Every = DefaultEvery
	}
	if o.Every < MinEvery {
		return nil, fmt.Errorf("polling every %v: at least %v", o.Every, MinEvery)
	}
	if o.FindingsEvery == 0 {
		o.FindingsEvery = everyFindings
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	s := &Stream{g: g, o: o, boot: g.Boot()}
	if o.Kinds != nil {
		s.kinds = map[trace.Kind]bool{trace.KindLost: true, trace.KindBoot: true}
		for _, k := range o.Kinds {
			s.kinds[k] = true
		}
	}
	s.processes = &processes{}
	// Processes are always looked at: the others say whose their events are.
	s.add("processes", o.Every, s.processes)
	if s.wants(trace.KindConnect, trace.KindAccept, trace.KindListen, trace.KindClose) {
		s.add("sockets", everySockets, &sockets{})
	}
	if s.wants(trace.KindModule, trace.KindUnload) {
		s.add("modules", everySecond, newModules())
	}
	if s.wants(trace.KindDevice) {
		s.add("interfaces", everySecond, newInterfaces())
	}
	if s.wants(trace.KindBPF) {
		s.add("BPF programs", everySecond, newPrograms())
	}
	if s.wants(trace.KindMount, trace.KindUnmount) {
		s.add("mounts", everyMounts, newMounts())
	}
	if o.Findings != nil && s.wants(trace.KindFinding) {
		s.judge = startJudge(o.Findings, o.FindingsEvery)
	}
	if err := s.look(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stream) add(name string, every time.Duration, p part) {
	s.parts = append(s.parts, &scheduled{part: p, name: name, every: max(every, s.o.Every)})
}

func (s *Stream) wants(kinds ...trace.Kind) bool {
	return s.kinds == nil || slices.ContainsFunc(kinds, func(k trace.Kind) bool { return s.kinds[k] })
}

// Next implements [trace.Stream]. It looks at the guest itself, so a reader that takes its time sees
// what happened meanwhile with the time of the next look.
func (s *Stream) Next(ctx context.Context, e *trace.Event) error {
	for s.next == len(s.queue) {
		clear(s.queue)
		s.queue, s.next = s.queue[:0], 0
		if err := s.wait(ctx); err != nil {
			return err
		}
		if err := s.look(ctx); err != nil {
			return err
		}
	}
	*e = s.queue[s.next]
	s.next++
	return nil
}

// Pending reports whether the next event is there already: Next returns it without waiting.
func (s *Stream) Pending() bool { return s.next < len(s.queue) }

// Lost implements [trace.Stream]. What was too short to be seen is not among them: events of kind
// [trace.KindLost] count that.
func (s *Stream) Lost() uint64 { return s.lost }

// Close implements [trace.Stream].
func (s *Stream) Close() error {
	if s.judge != nil && !s.closed {
		s.judge.stop()
	}
	s.closed = true
	return nil
}

// errClosed says that the stream was closed.
var errClosed = errors.New("polling: the stream is closed")

// wait waits until something is to be looked at.
func (s *Stream) wait(ctx context.Context) error {
	if s.closed {
		return errClosed
	}
	due := s.parts[0].due
	for _, p := range s.parts[1:] {
		if p.due.Before(due) {
			due = p.due
		}
	}
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	var found <-chan verdict
	if s.judge != nil {
		found = s.judge.verdicts
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case v := <-found:
		s.judged(ctx, v)
	case <-timer.C:
	}
	return nil
}

// round is one look at what is due.
type round struct {
	s    *Stream
	at   time.Time
	kept *guest.Look // nil until something needs it
}

// toldAgain is after what time it is reported again that something cannot be looked at.
const toldAgain = time.Minute

// errAnother says that another kernel runs than the one that is compared with.
var errAnother = errors.New("another kernel runs")

// look is the guest as it is in this round.
func (r *round) look(ctx context.Context) (*guest.Look, error) {
	if r.kept == nil {
		l, err := r.s.g.Look(ctx)
		if err != nil {
			return nil, err
		}
		r.kept = l
	}
	if r.kept.Boot != r.s.boot {
		return nil, errAnother
	}
	return r.kept, nil
}

// ended reports whether an error says that there is nothing to look at, now or any more.
func ended(err error) bool { return errors.Is(err, vm.ErrGone) || errors.Is(err, vm.ErrNotStarted) }

// look looks at what is due.
func (s *Stream) look(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &round{s: s, at: time.Now()}
	defer func() {
		if r.kept != nil {
			r.kept.Close()
		}
	}()
	had := len(s.queue)
	for _, p := range s.parts {
		if p.due.After(r.at) {
			continue
		}
		p.due = r.at.Add(p.every)
		err := p.look(ctx, r)
		switch {
		case err == nil:
			p.fails = max(p.fails-1, 0)
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errAnother):
			// What the parts before this one found was of both kernels.
			s.queue = s.queue[:had]
			s.rebooted(ctx, r)
			return nil
		case ended(err):
			return s.gone(ctx, r, err)
		default:
			p.failed(s, r, err)
		}
	}
	if s.away {
		s.away = false
	}
	return nil
}

// failed deals with what could not be looked at. A list that the guest changed under the look is whole at the next one;
// what fails half the time is reported.
func (p *scheduled) failed(s *Stream, r *round, err error) {
	const each, much, most = 2, 3, 6 // a success takes one away
	if p.fails = min(p.fails+each, most); p.fails < much {
		p.due = r.at.Add(max(retry, s.o.Every))
		return
	}
	if p.told.IsZero() || r.at.Sub(p.told) > toldAgain {
		p.told = r.at
		s.o.Warn(fmt.Errorf("%s: %w", p.name, err))
	}
}

// placed is what distinguishes a kernel from that of another boot, where its address is random.
type placed struct {
	text   virt.Addr
	pa     phys.Addr
	banner string
}

// rebooted begins again with the kernel that runs now.
func (s *Stream) rebooted(_ context.Context, r *round) {
	s.boot = r.kept.Boot
	// A kernel that was found before it had processes is found once more, and is the same.
	k := placed{r.kept.Linux.Text, r.kept.Linux.TextPA, r.kept.Linux.Banner}
	same := len(s.processes.known) == 0 && k == s.booted
	s.booted = k
	s.forget()
	if same {
		return
	}
	release, up := r.kept.Linux.Release, ""
	if c, err := r.kept.Linux.Clock(); err == nil && c.Up > 0 {
		up = fmt.Sprintf("it had been up for %v", c.Up.Round(time.Second))
	}
	r.emit(trace.Event{Kind: trace.KindBoot, Object: release, Note: up})
}

// gone deals with a guest that has no kernel: for good, or until it has booted.
func (s *Stream) gone(_ context.Context, r *round, err error) error {
	if errors.Is(err, vm.ErrGone) {
		return fmt.Errorf("%w: %w", trace.ErrEnded, err)
	}
	if !s.away {
		s.o.Warn(err)
	}
	s.away = true
	for _, p := range s.parts {
		p.due = r.at.Add(max(retry, s.o.Every))
	}
	return nil
}

func (s *Stream) forget() {
	for _, p := range s.parts {
		p.forget()
		p.due = time.Time{}
	}
}

// emit queues an event, if it is wanted.
func (r *round) emit(e trace.Event) {
	s := r.s
	if s.kinds != nil && !s.kinds[e.Kind] {
		return
	}
	if len(s.queue) >= maxQueue {
		s.lost++
		return
	}
	e.Time, e.Source, e.VCPU, e.Lost = r.at, trace.FromPolling, -1, s.lost
	s.queue = append(s.queue, e)
}

// unseen is what the kernel counted and no look saw, since that was last reported.
type unseen struct {
	n         uint64
	one, many string
	told      time.Time
}

// everyUnseen is from one report of what was not seen to the next.
const everyUnseen = 5 * time.Second

func (u *unseen) add(n uint64, one, many string) { u.n, u.one, u.many = u.n+n, one, many }

// tell reports it, if the last report is old enough.
func (u *unseen) tell(r *round) {
	if u.n == 0 || r.s.o.Beside || r.at.Sub(u.told) < everyUnseen {
		return
	}
	what := fmt.Sprintf("%d %s", u.n, u.many)
	if u.n == 1 {
		what = "1 " + u.one
	}
	r.emit(trace.Event{Kind: trace.KindLost, Object: what, Note: "too short to be seen: the kernel counted what no look saw"})
	u.n, u.told = 0, r.at
}
