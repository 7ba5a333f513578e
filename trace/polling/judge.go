package polling

import (
	"context"
	"time"

	"github.com/outsight-vmi/outsight/trace"
)

// Finding is something that judging a guest found.
type Finding struct {
	Key    string // distinguishes it from others
	Check  string // which check found it
	Title  string // one sentence
	Object string // what it is about
	PID    int32  // of the process that it is about; 0: none
}

// Judge judges the guest, and returns all that it finds in it now, what it found before included.
type Judge func(ctx context.Context) ([]Finding, error)

// verdict is what one judgement found.
type verdict struct {
	found []Finding
	err   error
}

// judge judges beside the looks: it takes longer than they may wait.
type judge struct {
	verdicts chan verdict
	cancel   context.CancelFunc
	done     chan struct{}
	known    map[string]Finding
	fails    string
}

func startJudge(f Judge, every time.Duration) *judge {
	ctx, cancel := context.WithCancel(context.Background())
	j := &judge{verdicts: make(chan verdict), cancel: cancel, done: make(chan struct{}), known: map[string]Finding{}}
	go func() {
		defer close(j.done)
		for {
			began := time.Now()
			found, err := f(ctx)
			select {
			case <-ctx.Done():
				return
			case j.verdicts <- verdict{found, err}:
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(max(every-time.Since(began), every/4)):
			}
		}
	}()
	return j
}

func (j *judge) stop() {
	j.cancel()
	<-j.done
}

// judged compares a judgement with the one before. Unlike those of looks, its first findings are
// events: a guest that is healthy has none.
func (s *Stream) judged(_ context.Context, v verdict) {
	j, r := s.judge, &round{s: s, at: time.Now()}
	if v.err != nil {
		if !ended(v.err) && v.err.Error() != j.fails {
			j.fails = v.err.Error()
			s.o.Warn(v.err)
		}
		return
	}
	j.fails = ""
	now := make(map[string]Finding, len(v.found))
	for _, f := range v.found {
		now[f.Key] = f
		if _, known := j.known[f.Key]; !known {
			r.finding(f, "")
		}
	}
	for key, f := range j.known {
		if _, still := now[key]; !still {
			r.finding(f, "no longer found")
		}
	}
	j.known = now
}

func (r *round) finding(f Finding, note string) {
	e := trace.Event{Kind: trace.KindFinding, Name: f.Check, Object: f.Object, Args: f.Title, Note: note}
	if f.PID > 0 {
		e.Process, e.TID = r.s.processes.byPID(f.PID), f.PID
	}
	r.emit(e)
}
