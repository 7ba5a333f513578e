package main

import (
	"context"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/check"
)

// roundsOf are options for who judges a guest once in a time: what the guest is changing must not keep a short round from the next.
func roundsOf(every time.Duration) []check.Option {
	const short = 10 * time.Second
	if every <= 0 || every > short {
		return nil
	}
	return []check.Option{check.AcrossRuns()}
}

// wait waits for the time of the next round. In the middle it glances at what takes little to judge, and
// begins to settle what it finds at once. It is false if the user wants no more.
func (r *checkRun) wait(ctx context.Context, yield func(*check.Finding) bool) bool {
	next := time.Now().Add(pause(r.flags.every, time.Since(r.began)))
	middle := r.began.Add(r.flags.every / 2)
	if quick := check.Quick(r.checks); len(quick) > 0 && r.flags.every >= minGlanced && time.Now().Before(middle) && !r.booting {
		if !r.sleep(ctx, middle) {
			return false
		}
		// What a glance cannot read the next round reports.
		if result, err := check.Glance(ctx, r.guest, quick, r.options...); err == nil {
			if suspects := r.suspects(result); len(suspects) > 0 && !r.round(ctx, suspects, yield) {
				return false
			}
		}
	}
	return r.sleep(ctx, next)
}

// minGlanced is the shortest period that there is a glance in: shorter ones need none.
const minGlanced = 500 * time.Millisecond

// suspects are the checks that found something at a glance that is not known yet.
func (r *checkRun) suspects(glance *check.Result) (checks []*check.Check) {
	found, _ := check.Without(glance.Findings, r.allowed, time.Now())
	for _, f := range r.known.New(found) {
		if r.before[f.Key()] == nil && !slices.Contains(checks, f.Check) {
			checks = append(checks, f.Check)
		}
	}
	return checks
}

// sleep waits until a time. It is false if the user wants no more.
func (r *checkRun) sleep(ctx context.Context, until time.Time) bool {
	select {
	case <-ctx.Done():
		r.failed = ctx.Err()
		return false
	case <-time.After(time.Until(until)):
		return true
	}
}

// pause is how long to wait after a round, so that one begins every so often. A round that
// takes longer than that does not take a processor for good.
func pause(every, took time.Duration) time.Duration { return max(every-took, every/4) }
