package planted

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

// Status is what is known of planted programs by their ring.
type Status struct {
	Beats   uint64 // how often they showed that they run: once a second at least, in an idle guest too
	Lost    uint64 // records that were overwritten before they were read, or that the kernel left out
	Damaged uint64 // how often the ring had what no program of outsight's writes
}

// Stream is the events of planted programs. It is a [trace.Stream].
type Stream struct {
	g       *guest.Guest
	o       Options
	at      virt.Addr // of the ring's struct bpf_map
	reader  *reader
	decode  *tcg.Decoder
	boot    int
	missed  uint64 // events that the kernel left out: a program was running on the processor
	before  uint64 // … before this stream
	checked time.Time
	ended   map[ended]bool // processes that have ended, the last ones
	taken   int
	nap     time.Duration
}

type ended struct {
	pid  int32
	born time.Duration
}

var (
	errSoon = errors.New("an older record may come")
	// ErrRemoved says that the ring is no longer in the guest: it has booted again, or somebody has removed the probes.
	ErrRemoved = errors.New("the planted probes are gone from the guest")
)

// Open reads the ring of programs that run in the guest already, from now on. o is what they were compiled with ([Compile]); address is
// that of the ring's struct bpf_map, 0 if the guest has one ring only.
func Open(ctx context.Context, g *guest.Guest, address virt.Addr, o Options) (*Stream, error) {
	s, err := open(ctx, g, address, o)
	if err != nil {
		return nil, fmt.Errorf("read planted probes: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, g *guest.Guest, address virt.Addr, o Options) (*Stream, error) {
	l, err := g.Look(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	m, err := ringIn(ctx, l, address)
	if err != nil {
		return nil, err
	}
	mem, shape, err := memoryOf(l.Linux, m)
	if err != nil {
		return nil, err
	}
	s := &Stream{g: g, o: o, at: m.Addr, boot: l.Boot, ended: map[ended]bool{}}
	if s.reader, err = newReader(mem, shape); err != nil {
		return nil, err
	}
	calls, err := o.calls(ctx, l)
	if err != nil {
		return nil, err
	}
	s.decode = tcg.NewDecoder(g, trace.FromPlanted, o.limit(), o.Fields)
	if err := s.decode.Use(ctx, l, calls, o.kinds()); err != nil {
		return nil, err
	}
	s.before, s.checked = missed(ctx, l), time.Now()
	return s, nil
}

// missed is how often the kernel left a run of outsight's programs out.
func missed(ctx context.Context, l *guest.Look) (n uint64) {
	for p, err := range bpf.Programs(ctx, l.Linux) {
		if err == nil && programs[p.Name] {
			n += p.Missed
		}
	}
	return n
}

// Next implements [trace.Stream].
func (s *Stream) Next(ctx context.Context, e *trace.Event) error {
	for {
		for s.decode.Next(e) {
			if s.first(e) {
				e.Lost += s.Lost()
				return nil
			}
		}
		if err := s.more(ctx); err != nil {
			return err
		}
	}
}

// maxEnded bounds the processes that are known to have ended.
const maxEnded = 1024

// first says whether an event is the first of its kind that there can be one of only: when two threads of a process end at the same time, each
// may see that none is left.
func (s *Stream) first(e *trace.Event) bool {
	if e.Kind != trace.KindExit || e.Process == nil {
		return true
	}
	k := ended{e.Process.PID, e.Process.Started}
	if s.ended[k] {
		return false
	}
	if len(s.ended) >= maxEnded {
		clear(s.ended)
	}
	s.ended[k] = true
	return true
}

// How long it sleeps where there is nothing: a ring must not fill meanwhile.
const (
	minNap = 250 * time.Microsecond
	maxNap = 4 * time.Millisecond
)

// more takes in a record, or waits for one.
func (s *Stream) more(ctx context.Context) error {
	var rec plugin.Record
	ok, err := s.reader.take(&rec)
	switch {
	case errors.Is(err, errSoon):
		return s.sleep(ctx, window/4)
	case errors.Is(err, phys.ErrGone):
		return trace.ErrEnded
	case err != nil:
		return err
	}
	s.taken++
	if ok {
		s.nap = 0
		s.decode.Take(ctx, s, &rec)
		// The clock is looked at now and then only.
		if s.taken%1024 != 0 {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if time.Since(s.checked) > checkEvery {
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	if ok {
		return nil
	}
	s.nap = min(max(2*s.nap, minNap), maxNap)
	return s.sleep(ctx, s.nap)
}

func (s *Stream) sleep(ctx context.Context, d time.Duration) error {
	time.Sleep(d)
	return ctx.Err()
}

const checkEvery = 2 * time.Second

// check sees whether the ring is still there.
func (s *Stream) check(ctx context.Context) error {
	defer func() { s.checked = time.Now() }()
	l, err := s.g.Look(ctx)
	if err != nil {
		if errors.Is(err, vm.ErrGone) {
			return trace.ErrEnded
		}
		return nil // it boots, or is paused: later
	}
	defer l.Close()
	if l.Boot != s.boot {
		return fmt.Errorf("%w: it has booted again", ErrRemoved)
	}
	if _, err := ringIn(ctx, l, s.at); errors.Is(err, ErrNoRing) {
		return fmt.Errorf("%w: %w", ErrRemoved, err)
	}
	if n := missed(ctx, l); n > s.before+s.missed {
		s.missed = n - s.before
	}
	s.decode.Learn(l)
	return nil
}

// Lost implements [trace.Stream].
func (s *Stream) Lost() uint64 { return s.reader.lost() + s.missed }

// Before implements [tcg.Records].
func (s *Stream) Before() (least, most uint64) { return s.Lost(), s.Lost() }

// Time implements [tcg.Records].
func (s *Stream) Time(rec *plugin.Record) time.Time { return s.reader.clock.host(rec.Ticks) }

// Status reads what the ring says of the programs. It may not be called during [Stream.Next].
func (s *Stream) Status() (Status, error) {
	beats, err := s.reader.beats()
	if err != nil {
		return Status{}, fmt.Errorf("read planted probes: %w", err)
	}
	return Status{Beats: beats, Lost: s.Lost(), Damaged: s.reader.damaged}, nil
}

// Close implements [trace.Stream]. The programs stay in the guest: who planted them removes them.
func (s *Stream) Close() error { return nil }

var (
	_ trace.Stream = (*Stream)(nil)
	_ tcg.Records  = (*Stream)(nil)
)
