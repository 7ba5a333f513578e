package check

import (
	"fmt"
	"slices"
	"time"
)

// AcrossRuns has [Run] wait for what the guest is changing not by itself, which takes seconds in which nothing else is
// looked at, but from one run to the next. It is for who runs the same checks every few seconds with one
// [History] (see [Remember]).
func AcrossRuns() Option { return func(o *options) { o.acrossRuns = true } }

const (
	// busyFor is how long what the guest is changing looks the same over runs before it counts.
	busyFor = busyLooks * busyAfter
	// restlessFor is how long a guest may go on to change what a check judges in one run before that is a gap, and the longest
	// time between two runs that one follows the other in.
	restlessFor = maxBusyLooks * busyAfter
	// explainedFor is busyFor where it is known who changes it, and restlessFor over runs, which keep nobody waiting.
	explainedFor = 2 * restlessFor
	// stalledFor is how long a guest may take to come far before the time until then counts for nothing.
	stalledFor = 2 * time.Second
)

// restless is a check that found something at each look since, which the guest was changing.
type restless struct {
	first       *Finding
	since, last time.Time
	same        map[string]time.Time // since when findings have looked the same
	from        progress             // how far the guest had come, when it was seen to get on last
	moved       time.Time            // when that was
}

// stalled reports whether the guest has not come far for long.
func (b *restless) stalled(p progress, now time.Time) bool {
	if p.since(b.from) {
		b.from, b.moved = p, now
		return false
	}
	return now.Sub(b.moved) > stalledFor
}

// anyOf is a finding of a check, one that the guest is changing if only those are asked for; nil if there is none.
func (r *Result) anyOf(c *Check, busy bool) *Finding {
	i := slices.IndexFunc(r.Findings, func(f *Finding) bool { return f.Check == c && (f.Busy || !busy) })
	if i < 0 {
		return nil
	}
	return r.Findings[i]
}

// startle notes which checks found something, at the first look, that the guest was changing.
func (r *Result) startle() {
	r.restless = map[*Check]*Finding{}
	for _, f := range r.Findings {
		if f.Busy {
			r.restless[f.Check] = f
		}
	}
}

// calm takes out the checks that have found nothing at a look since.
func (r *Result) calm(second *Result, again []*Check) {
	for c := range r.restless {
		f := second.anyOf(c, false)
		switch {
		case !slices.Contains(again, c):
		case f != nil:
			r.restless[c] = f
		case !second.Gap(c):
			delete(r.restless, c)
		}
	}
}

// unrest is the gap that is left if what a check judges goes on to change: somebody may have the guest say that it does.
func (r *Result) unrest(c *Check, f *Finding, d time.Duration) {
	r.Gaps = append(r.Gaps, Gap{Checks: []*Check{c}, Err: fmt.Errorf("the guest has been changing what this judges, or says so, for %v, and it was not in order at any look: %s", d, f.Title)})
}

// await leaves out what the guest is changing, until that has been so for long enough over several runs, in which the guest got
// on. Checks were run, what is left of Busy findings was the same at all looks of this run, and p is how far the guest had come at
// the last.
func (r *Result) await(h *History, checks []*Check, now time.Time, p progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.restless == nil {
		h.restless = map[*Check]*restless{}
	}
	for _, c := range checks {
		last, is := r.restless[c]
		if !is {
			delete(h.restless, c)
			continue
		}
		b := h.restless[c]
		if b == nil || now.Sub(b.last) > restlessFor {
			b = &restless{first: last, since: now, from: p, moved: now} // the same gap each time
			h.restless[c] = b
		}
		stalled := b.stalled(p, now)
		same := map[string]time.Time{}
		r.Findings = slices.DeleteFunc(r.Findings, func(f *Finding) bool {
			if f.Check != c || !f.Busy {
				return false
			}
			key, enough := f.Key()+f.state(), busyFor
			if f.Explained {
				enough = explainedFor
			}
			if same[key] = now; !b.same[key].IsZero() && !stalled {
				same[key] = b.same[key]
			}
			return now.Sub(same[key]) < enough
		})
		b.last, b.same = now, same
		if r.anyOf(c, true) == nil && now.Sub(b.since) >= explainedFor {
			r.unrest(c, b.first, explainedFor)
		}
	}
}
