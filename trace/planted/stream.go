package planted

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	Beats uint64 // how often they showed that they run: once a second at least, in an idle guest too
	Lost  uint64 // records that were overwritten before they were read, and Missed
	// Missed is how many runs the kernel left out, because the same program was running on the processor: of preemptible kernels since 7.0, also for
	// calls that nobody asked for.
	Missed  uint64
	Damaged uint64 // how often the ring had what no program of outsight's writes
	At      time.Time
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
	unsure  bool         // whether the ring is still there: nothing is read
	over    error        // how it ended
	say     *trace.Event // comes next
	// tampered says that a finding has said of the ring that somebody has changed it.
	tampered bool
	// seen is what who tends the probes last saw of them, so that they are not looked for twice; nil: nobody does.
	seen atomic.Pointer[sight]

	mu     sync.Mutex
	status Status
}

// sight is that the ring is there, and how many runs the kernel has left out.
type sight struct {
	at     time.Time
	missed uint64
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
	points, err := o.tracepoints(l)
	if err != nil {
		return nil, err
	}
	if err := s.decode.Use(ctx, l, calls, o.kinds(), points...); err != nil {
		return nil, err
	}
	s.before, s.checked = missed(ctx, l), time.Now()
	return s, s.note(s.checked)
}

// missed is how often the kernel left a run of outsight's programs out.
func missed(ctx context.Context, l *guest.Look) (n uint64) {
	for p, err := range bpf.Programs(ctx, l.Linux) {
		if err == nil && counts(p.Name) {
			n += p.Missed
		}
	}
	return n
}

// Next implements [trace.Stream].
func (s *Stream) Next(ctx context.Context, e *trace.Event) error {
	for {
		if s.say != nil {
			*e, s.say = *s.say, nil
			return nil
		}
		for s.decode.Next(e) {
			if s.first(e) {
				e.Lost += s.Lost()
				return nil
			}
		}
		if s.over != nil {
			return s.over
		}
		if err := s.more(ctx); err != nil {
			if ctx.Err() == nil {
				s.over = err // memory that was the ring's is another's now
			}
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

// How long it sleeps where there is nothing: a ring should not fill meanwhile, which takes 8 ms where a million calls a second begin and end
// on one processor.
const (
	minNap = 250 * time.Microsecond
	maxNap = 10 * time.Millisecond
	// listNap is for a list of system calls, which are rare beside all of them.
	listNap = 25 * time.Millisecond
)

// more takes in a record, or waits for one.
func (s *Stream) more(ctx context.Context) error {
	var rec plugin.Record
	ok, err := s.reader.take(&rec)
	// Before anything is made of what was read, it is known that it is the ring's.
	for s.unsure || s.reader.doubt {
		rewound := s.reader.rewound
		if err := s.doubt(ctx); err != nil || rewound && !s.unsure {
			return err
		}
	}
	switch {
	case errors.Is(err, errSoon):
		return s.sleep(ctx, window/4)
	case err != nil:
		return over(err)
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
	now := time.Now()
	if now.Sub(s.status.At) > noteEvery { // nobody else writes it
		if err := s.note(now); err != nil {
			return over(err)
		}
	}
	if now.Sub(s.checked) > checkEvery {
		if err := s.check(ctx); err != nil {
			return err
		}
	}
	if ok {
		return nil
	}
	most := maxNap
	if !s.o.All {
		most = listNap
	}
	s.nap = min(max(2*s.nap, minNap), most)
	return s.sleep(ctx, s.nap)
}

// over is the error with which events end where memory cannot be read.
func over(err error) error {
	if errors.Is(err, phys.ErrGone) {
		return trace.ErrEnded
	}
	return fmt.Errorf("read planted probes: %w", err)
}

func (s *Stream) sleep(ctx context.Context, d time.Duration) error {
	time.Sleep(d)
	return ctx.Err()
}

const (
	checkEvery = 2 * time.Second
	// doubtful is how long it waits where it is not known whether the ring is still there.
	doubtful = 50 * time.Millisecond
	// surely is for how long it is believed that a ring is still there which makes no sense.
	surely = time.Second
)

// doubt finds out what has become of a ring that is not as it was left. Nothing is read of it meanwhile.
func (s *Stream) doubt(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := s.reader
	if !s.unsure && !r.rewound && time.Since(s.checked) < surely {
		r.doubt = false
		return nil
	}
	s.g.Doubt() // another kernel may have booted
	if err := s.check(ctx); err != nil {
		return err
	}
	if s.unsure {
		return s.sleep(ctx, doubtful)
	}
	if r.rewound {
		clear(s.ended)
		now := time.Now()
		s.finding(now, "the ring is as it was at an earlier moment: a snapshot of the guest was restored, or somebody has changed the ring",
			"events are shown from here on: what happened since that moment was not seen")
		if err := r.restart(); err != nil {
			return over(err)
		}
		return s.note(now)
	}
	r.doubt = false
	if !s.tampered {
		s.tampered = true
		s.finding(time.Now(), "the ring has what no program of outsight's writes: somebody has changed it", "what is planted in the guest was tampered with")
	}
	return nil
}

// finding has Next return a finding.
func (s *Stream) finding(now time.Time, what, note string) {
	s.say = &trace.Event{
		Time: now, Source: trace.FromPlanted, Kind: trace.KindFinding, VCPU: -1, Name: "planted-probe", Object: "planted probes", Lost: s.Lost(), Args: what, Note: note,
	}
}

// check sees whether the ring is still there.
func (s *Stream) check(ctx context.Context) error {
	defer func() { s.checked = time.Now() }()
	l, err := s.g.Look(ctx)
	if s.unsure = err != nil; s.unsure {
		if errors.Is(err, vm.ErrGone) {
			return trace.ErrEnded
		}
		return nil // it boots, or is paused: later
	}
	defer l.Close()
	if l.Boot != s.boot {
		return fmt.Errorf("%w: it has booted again", ErrRemoved)
	}
	var n uint64
	if seen := s.seen.Load(); seen != nil && time.Since(seen.at) < checkEvery && !s.reader.rewound {
		n = seen.missed
	} else {
		if _, err := ringIn(ctx, l, s.at); errors.Is(err, ErrNoRing) {
			return fmt.Errorf("%w: %w", ErrRemoved, err)
		}
		n = missed(ctx, l)
	}
	if s.reader.rewound {
		s.decode.Booted() // what was under way has not begun
		s.before = n - s.missed
	}
	if n > s.before+s.missed {
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

// Status is what the ring said of the programs lately: while events are read, some times a second. It is safe for concurrent use.
func (s *Stream) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

const noteEvery = 250 * time.Millisecond

// note keeps what the ring says of the programs.
func (s *Stream) note(now time.Time) error {
	beats, err := s.reader.beats()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = Status{Beats: beats, Lost: s.Lost(), Missed: s.missed, Damaged: s.reader.damaged, At: now}
	return nil
}

// Close implements [trace.Stream]. The programs stay in the guest: who planted them removes them.
func (s *Stream) Close() error { return nil }

var (
	_ trace.Stream = (*Stream)(nil)
	_ tcg.Records  = (*Stream)(nil)
)
