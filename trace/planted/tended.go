package planted

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/vm"
)

const (
	// tendEvery is how often it is seen whether the probes are as they were planted.
	tendEvery = time.Second
	// quiet is after how long without a sign of them the monitor is asked whether the machine runs.
	quiet = 3 * time.Second
	// silence is how long the programs may not show that they run: they do once a second, in an idle guest too.
	silence = 10 * time.Second
	// removal is how long removing may take, when the stream is closed.
	removal = 2 * time.Minute
)

// Tended is the events of probes that it looks after: it plants them, unless they are there already, and says so as a finding, a second after it was
// done, if they were changed, detached or silenced in the guest. It is a [trace.Stream].
type Tended struct {
	*Stream
	planting *plant.Planting
	mine     bool // planted by this stream, and removed by it
	watch    *reader

	stop  context.CancelFunc
	ended chan struct{}

	mu     sync.Mutex
	alarms []trace.Event
	wake   context.CancelFunc // ends what Next waits by; nil: it never waited
	gone   bool               // an alarm has said that the probes are gone
	fatal  error              // ends it

	// of is what Next was called with, and waiting what it waits by: made again only where an alarm has ended it.
	of, waiting context.Context
}

// Plant plants probes in a guest and reads them; before is called with what is to be written, and nothing is if it returns an error.
// Where probes are planted already, those are read, and stay when the stream is closed.
func Plant(ctx context.Context, g *guest.Guest, o Options, before func(*plant.Plan) error) (t *Tended, err error) {
	t = &Tended{ended: make(chan struct{})}
	t.planting, err = plant.Find(ctx, g)
	switch {
	case errors.Is(err, plant.ErrNothing):
		if t.planting, err = plantNew(ctx, g, o, before); err != nil {
			return nil, err
		}
		t.mine = true
	case err != nil:
		return nil, err
	default:
		err = t.settled(ctx)
	}
	switch {
	case err != nil:
		return nil, err
	case t.mine:
	case len(t.planting.Problems) > 0 || t.planting.Ring() == 0:
		return nil, fmt.Errorf("the probes in the guest are not as they were planted (outsight probe list): outsight probe remove, and plant again")
	default:
		if err := t.reports(ctx, g, o); err != nil {
			return nil, err
		}
	}
	made := t
	defer func() {
		if err != nil && made.mine {
			err = errors.Join(err, made.remove(ctx))
		}
	}()
	if t.Stream, err = Open(ctx, g, t.planting.Ring(), o); err != nil {
		return nil, err
	}
	if err = t.openWatch(ctx, g); err != nil {
		return nil, err
	}
	tending, stop := context.WithCancel(context.WithoutCancel(ctx))
	t.stop = stop
	go t.tend(tending)
	return t, nil
}

// underWay is for how long a job that another has begun is waited for: its process may have been killed, or a snapshot of that moment restored.
const underWay = time.Minute

// settled waits until no job of the probes in the guest is under way: they are half there until then.
func (t *Tended) settled(ctx context.Context) error {
	for end := time.Now().Add(underWay); !t.planting.Settled(); {
		if time.Now().After(end) {
			return fmt.Errorf("a job of the probes in the guest is %s, and does not end: outsight probe remove, and plant again", t.planting.State)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if err := t.planting.Check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reports checks that probes which are planted already report what is asked for.
func (t *Tended) reports(ctx context.Context, g *guest.Guest, o Options) error {
	l, err := g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	load, err := Compile(ctx, l, o)
	if err != nil {
		return err
	}
	if len(o.Calls) == 0 && !o.All && len(o.Tracepoints) == 0 {
		if o.Calls == nil {
			return nil // whatever they report
		}
		if lacks := t.planting.Lacks(load); len(lacks) > 0 {
			return fmt.Errorf("other probes are planted already, without %s: outsight probe remove, and plant again", strings.Join(lacks, ", "))
		}
		return nil
	}
	same, err := t.planting.Is(load)
	if err == nil && !same {
		err = errors.New("probes for other system calls or tracepoints are planted already: outsight probe remove, and plant again, or leave --syscalls and --tracepoint out to read what they report")
	}
	return err
}

func plantNew(ctx context.Context, g *guest.Guest, o Options, before func(*plant.Plan) error) (*plant.Planting, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	load, err := Compile(ctx, l, o)
	if err != nil {
		return nil, err
	}
	plan, err := plant.Prepare(ctx, g, *load)
	if err != nil {
		return nil, err
	}
	if err := before(plan); err != nil {
		return nil, err
	}
	return plan.Plant(ctx)
}

// openWatch opens the ring a second time, for who tends it.
func (t *Tended) openWatch(ctx context.Context, g *guest.Guest) error {
	l, err := g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	m, err := ringIn(ctx, l, t.planting.Ring())
	if err != nil {
		return err
	}
	mem, shape, err := memoryOf(l.Linux, m)
	if err != nil {
		return err
	}
	t.watch, err = newReader(mem, shape)
	return err
}

// Planted says whether this stream has planted the probes, and so removes them.
func (t *Tended) Planted() bool { return t.mine }

// Planting is what is planted.
func (t *Tended) Planting() *plant.Planting { return t.planting }

// tend looks after the probes until it is stopped.
func (t *Tended) tend(ctx context.Context) {
	defer close(t.ended)
	said, before := map[string]bool{}, map[string]bool{}
	beats, beat := uint64(0), time.Now()
	ticks := time.NewTicker(tendEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		var now []string
		if err := t.planting.Check(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			continue // it is paused, boots, or just changes what is read: the stream sees what matters of that
		}
		t.report()
		now = append(now, t.planting.Problems...)
		n, err := t.watch.beats()
		if err == nil && n != beats {
			beats, beat = n, time.Now()
		}
		if time.Since(beat) > quiet {
			switch state := t.state(ctx); {
			case state == postMigrate:
				t.end(ErrMigrated)
				return
			case state != vm.StateUnknown && state != vm.StateRunning:
				beat = time.Now() // it is paused, or sleeps
			case time.Since(beat) > silence:
				now = append(now, fmt.Sprintf("the programs have not run for more than %s", silence))
			}
		}
		// What two looks agree on: one may have caught the kernel at work.
		again := map[string]bool{}
		for _, problem := range now {
			again[problem] = true
			if before[problem] && !said[problem] {
				said[problem] = true
				t.alarm(problem)
			}
		}
		before = again
	}
}

// postMigrate is the state of a machine that runs elsewhere now.
const postMigrate vm.State = "postmigrate"

// ErrMigrated says that the machine has migrated, and the probes with it.
var ErrMigrated = errors.New("the machine has migrated, and the probes with it: trace it where it runs now")

// state is what the monitor says that the machine does; unknown if it cannot be asked.
func (t *Tended) state(ctx context.Context) vm.State {
	st := t.g.Machine().Control.Stater
	if st == nil {
		return vm.StateUnknown
	}
	state, err := st.State(ctx)
	if err != nil {
		return vm.StateUnknown
	}
	return state
}

// end has Next return an error.
func (t *Tended) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fatal = err
	if t.wake != nil {
		t.wake()
	}
}

// report tells the stream what was just seen, unless the ring is gone: it finds out why.
func (t *Tended) report() {
	if t.planting.Ring() == 0 {
		return
	}
	seen := &sight{at: time.Now()}
	for _, o := range t.planting.Objects {
		if counts(o.Name) {
			seen.missed += o.Missed
		}
	}
	t.seen.Store(seen)
}

// alarm has Next return a finding.
func (t *Tended) alarm(problem string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarms = append(t.alarms, trace.Event{
		Time: time.Now(), Source: trace.FromPlanted, Kind: trace.KindFinding, VCPU: -1, Name: "planted-probe", Object: "planted probes", Args: problem,
		Note: "what is planted in the guest was tampered with",
	})
	if t.wake != nil {
		t.wake()
	}
}

// Next implements [trace.Stream].
func (t *Tended) Next(ctx context.Context, e *trace.Event) error {
	for {
		waiting, alarmed, err := t.begin(ctx, e)
		if alarmed || err != nil {
			return err
		}
		err = t.Stream.Next(waiting, e)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case waiting.Err() != nil: // an alarm
		case errors.Is(err, ErrRemoved) && !t.gone:
			t.gone = true
			t.alarm(err.Error())
		default:
			return err
		}
	}
}

// begin returns what Next waits by, or writes an alarm into e.
func (t *Tended) begin(ctx context.Context, e *trace.Event) (waiting context.Context, alarmed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.alarms) > 0 {
		*e, t.alarms = t.alarms[0], t.alarms[1:]
		e.Lost = t.Lost()
		return nil, true, nil
	}
	if t.fatal != nil {
		return nil, false, t.fatal
	}
	if t.of != ctx || t.waiting.Err() != nil {
		if t.wake != nil {
			t.wake()
		}
		t.of = ctx
		t.waiting, t.wake = context.WithCancel(ctx)
	}
	return t.waiting, false, nil
}

// Close implements [trace.Stream]. Probes that this stream has planted are removed.
func (t *Tended) Close() error {
	t.stop()
	<-t.ended
	t.mu.Lock()
	if t.wake != nil {
		t.wake()
	}
	t.mu.Unlock()
	err := t.Stream.Close()
	if t.mine {
		err = errors.Join(err, t.remove(context.Background()))
	}
	return err
}

// remove removes the probes, whatever ended the trace.
func (t *Tended) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	err := t.planting.Remove(ctx)
	if errors.Is(err, plant.ErrNothing) || errors.Is(err, vm.ErrGone) {
		return nil // the guest has booted again, or ended
	}
	if err != nil {
		return fmt.Errorf("the probes may still be in the guest (outsight probe list): %w", err)
	}
	return nil
}
