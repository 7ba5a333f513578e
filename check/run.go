package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/vm"
)

// Result is what checks found.
type Result struct {
	Findings []*Finding
	// Release is the guest's kernel's.
	Release string
	// Ran is how many checks were run to their end.
	Ran int
	// Unsupported are checks that the guest's kernel gives nothing to do, with why.
	Unsupported []Gap
	// Gaps are what could not be checked, though it is there.
	Gaps []Gap

	text    *textReference    // nil if no check compares the kernel's text
	modules *moduleReferences // what modules were compared with; nil: they were not
	heard   *heard            // nil: nobody listened

	// restless are the checks that found something at each look so far which the guest was changing at the first, with the last of that.
	restless map[*Check]*Finding
}

// Gap is something that could not be read or compared.
type Gap struct {
	// Checks are those that need it: one, or all that share it.
	Checks []*Check
	// Part is what could not be read, if checks share it: "tasks", "programs", "sockets" …
	Part string
	Err  error
}

func (g Gap) String() string {
	if g.Part != "" {
		return fmt.Sprintf("%s: %v", g.Part, g.Err)
	}
	var ids []string
	for _, c := range g.Checks {
		ids = append(ids, c.ID)
	}
	return fmt.Sprintf("%s: %v", strings.Join(ids, ", "), g.Err)
}

// How long after each other a running guest is looked at again before a finding counts: a
// process that is just being made or ended is not in every list, for as long as its CPU needs,
// which may have been taken away from it.
var settleAfter = []time.Duration{20 * time.Millisecond, 80 * time.Millisecond, 300 * time.Millisecond}

// How often, and how long after each other, what the kernel was just changing is looked at
// after that: a guest that enables the function tracer is busy for seconds. So is everything that is
// found in a guest that hardly gets on.
const (
	busyLooks = 5
	busyAfter = 500 * time.Millisecond
	// maxBusyLooks is how often as long as what the kernel is changing goes on to change, or the guest has not come
	// far: one that has little of a processor is busy with the tracer for ten seconds.
	maxBusyLooks = 30
	// maxStuckLooks is how often if the guest does not come far, of which the kernel itself complains after 21 seconds, and if
	// who changes it is at work.
	maxStuckLooks = 60
)

// Option adds to what checks know.
type Option func(*options)

type options struct {
	told  *Told
	ask   func(context.Context) (*Told, error)
	mute  error // why the guest's programs did not answer
	again int
	// listen is for how long the guest's programs are listened to, and heard what was heard.
	listen time.Duration
	heard  *heard
	// spaces are the address spaces that ran meanwhile.
	spaces *addrspace.Watched
	// history is what earlier looks saw.
	history *History
	// progress is told what is done; nil: nobody wants to know.
	progress func(text string)
	// acrossRuns: see [AcrossRuns].
	acrossRuns bool
}

func chosen(opts []Option) options {
	o := options{again: len(settleAfter), history: &History{once: true}}
	for _, set := range opts {
		set(&o)
	}
	return o
}

// WithTold compares with what the guest's own programs say.
func WithTold(t *Told) Option { return func(o *options) { o.told = t } }

// WithAgent asks the guest's own programs, through an agent, before each look at it that
// [Run] takes. What an answer leaves out and the looks before and after it have is found.
func WithAgent(a vm.Agent) Option {
	return func(o *options) { o.ask = func(ctx context.Context) (*Told, error) { return ask(ctx, a, o.say) } }
}

// look takes a look for checks, with what the guest says just before.
func (o *options) look(ctx context.Context, g *guest.Guest, checks []*Check) (*guest.Look, error) {
	if o.ask != nil && slices.ContainsFunc(checks, func(c *Check) bool { return c.Told }) {
		// A guest that does not answer must not switch the other checks off.
		o.told, o.mute = o.ask(ctx)
	}
	l, err := g.Look(ctx)
	if err == nil {
		if err = booting(l); err != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return l, err
}

// Again says how often what is found is looked at again, three times at most and if not set:
// less gives an answer sooner, and findings of what was only being made or ended.
func Again(times int) Option { return func(o *options) { o.again = times } }

// Run runs checks over the guest of a session. What is found is looked at again until it is
// certain that it stays: unless the guest stands still, as in a dump or under --pause.
func Run(ctx context.Context, g *guest.Guest, checks []*Check, opts ...Option) (*Result, error) {
	o := chosen(opts)
	if o.listen > 0 && slices.ContainsFunc(checks, func(c *Check) bool { return c.Listens }) {
		var err error
		if o.heard, err = listenTo(ctx, g, o.listen, o.say); err != nil {
			return nil, err
		}
		o.spaces = o.heard.spaces
	}
	l, err := o.look(ctx, g, checks)
	if err != nil {
		return nil, err
	}
	still, looks, number := l.Still(), 1, l.Boot
	result := runOnce(ctx, l, checks, o)
	first, stuck := progressOf(l.Linux), false
	latest := first
	changing, alike := result.changing(), 0
	result.startle()
	if err := l.Close(); err != nil {
		return nil, err
	}
	for i := 0; ; i++ {
		after, again := o.next(i, alike, result, checks, stuck)
		if i >= len(settleAfter) {
			after = o.history.stretch(after)
		}
		if still || len(again) == 0 || ctx.Err() != nil {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(after):
		}
		o.sayAgain(i, result, again)
		if l, err = o.look(ctx, g, again); err != nil {
			return nil, err
		}
		if l.Boot != number {
			return nil, errors.Join(rebooted(g.Target()), l.Close())
		}
		second := runOnce(ctx, l, again, o)
		latest = progressOf(l.Linux)
		stuck = !latest.since(first)
		if err := l.Close(); err != nil {
			return nil, err
		}
		if now := second.changing(); maps.Equal(now, changing) {
			alike++
		} else {
			changing, alike = now, 0
		}
		result.settle(second, again, i)
		looks++
	}
	if looks > 1 {
		result.confirm(looks, stuck, o.acrossRuns)
	}
	if o.acrossRuns && !still && ctx.Err() == nil {
		result.await(o.history, checks, o.history.pacedNow(), latest)
	}
	if !still && len(result.Findings)+len(result.Gaps) > 0 && ctx.Err() == nil {
		if err := lasts(ctx, g, number); err != nil {
			return nil, err
		}
	}
	result.assure()
	sortFindings(result.Findings)
	return result, ctx.Err()
}

// Glance runs checks over one look at the guest of a session, and no more: it is for who runs all of them
// once in a while, and looks between that whether there is a reason to do so sooner. What it finds may be
// something that the guest was in the middle of; [Run] takes that out.
func Glance(ctx context.Context, g *guest.Guest, checks []*Check, opts ...Option) (*Result, error) {
	o := chosen(opts)
	l, err := o.look(ctx, g, checks)
	if err != nil {
		return nil, err
	}
	r := runOnce(ctx, l, checks, o)
	return r, errors.Join(l.Close(), ctx.Err())
}

// changing is what the kernel was just changing, with what was seen of it.
func (r *Result) changing() map[string]string {
	c := map[string]string{}
	for _, f := range r.Findings {
		if f.Busy {
			c[f.Key()] = f.state()
		}
	}
	return c
}

// next are the checks that are run again, for the i-th time, and how long after the last look. alike is at how
// many looks in a row nothing of what the kernel is changing had changed. stuck says that the guest has not come far
// since the first.
func (o *options) next(i, alike int, r *Result, checks []*Check, stuck bool) (after time.Duration, again []*Check) {
	slow := !o.acrossRuns && (stuck || r.explained() && alike < i)
	switch {
	case i < min(o.again, len(settleAfter)):
		return settleAfter[i], r.unsettled(checks, i, stuck)
	case o.again < len(settleAfter), i >= len(settleAfter)+busyLooks && alike >= busyLooks && !stuck && !r.explained(),
		i >= len(settleAfter)+maxBusyLooks && !slow, i >= len(settleAfter)+maxStuckLooks:
		return 0, nil
	}
	for _, c := range checks {
		if stuck && r.Gap(c) || slices.ContainsFunc(r.Findings, func(f *Finding) bool { return f.Check == c && (f.Busy && !o.acrossRuns || stuck) }) {
			again = append(again, c)
		}
	}
	return busyAfter, again
}

// explained reports whether something was found of which it is known who changes it: that takes as long as it takes.
func (r *Result) explained() bool {
	return slices.ContainsFunc(r.Findings, func(f *Finding) bool { return f.Explained })
}

// confirm leaves out what was found once and could not be looked at again: that is a gap, and no
// finding. A list that cannot be followed at any of the looks would keep all that was passing.
//
// What does not change by itself and was found elsewhere at each look is a gap: somebody moves it. What the kernel
// was just changing was found at as many looks in a row as it takes to be done with it, or at all if it is known who
// changes it. If it was not in order at any look, to the end, and counts for nothing, that is a gap, too: as it is if the
// guest is stuck, as who is changing it does not get on either. Across runs [Result.await] says so.
func (r *Result) confirm(looks int, stuck, acrossRuns bool) {
	moving := map[*Check]*Finding{}
	for _, f := range r.Findings {
		if f.Check.Steady && f.again == 0 && !f.Busy && !r.Gap(f.Check) {
			moving[f.Check] = f
		}
	}
	for c, f := range moving {
		r.Gaps = append(r.Gaps, Gap{Checks: []*Check{c}, Err: fmt.Errorf("something was found at every look, and elsewhere each time, as what moves is: %s", f.Title)})
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f *Finding) bool {
		enough := busyLooks
		if f.Explained {
			enough = looks - 1
		}
		return f.again == 0 || f.Busy && (f.again < min(enough, looks-1) || stuck && looks > len(settleAfter)+busyLooks)
	})
	for c, f := range r.restless {
		if !acrossRuns && looks > len(settleAfter)+maxBusyLooks && r.anyOf(c, true) == nil && moving[c] == nil && !r.Gap(c) {
			r.unrest(c, f, time.Duration(looks-1-len(settleAfter))*busyAfter)
		}
	}
}

// gapsAgain is how often what could not be checked is looked at again: a list that changed
// while it was followed is whole the next time, one that is broken stays so. In a guest that is stuck, a task may be in
// the middle of changing it for longer.
const gapsAgain = 2

// unsettled are the checks of which the result is looked at again, for the i-th time: those
// that found something, and those that could not read all.
func (r *Result) unsettled(checks []*Check, i int, stuck bool) (again []*Check) {
	for _, c := range checks {
		if slices.ContainsFunc(r.Findings, func(f *Finding) bool { return f.Check == c }) || (i < gapsAgain || stuck) && r.Gap(c) {
			again = append(again, c)
		}
	}
	return again
}

// Gap reports whether a check could not read all.
func (r *Result) Gap(c *Check) bool {
	return slices.ContainsFunc(r.Gaps, func(g Gap) bool { return slices.Contains(g.Checks, c) })
}

// settle takes in what checks found that were run again, for the i-th time. A check that
// could not read all before may find more now: that is looked at again, if there is time.
func (r *Result) settle(second *Result, again []*Check, i int) {
	kept := staying(second.Findings, r.Findings)
	// What a check cannot read now it does not take back, if it was found more than once in the end.
	for _, f := range r.Findings {
		if second.Gap(f.Check) && !slices.ContainsFunc(kept, func(k *Finding) bool { return k.Key() == f.Key() }) {
			kept = append(kept, f)
		}
	}
	if i+1 < len(settleAfter) {
		for _, f := range second.Findings {
			if r.Gap(f.Check) && !slices.Contains(kept, f) {
				kept = append(kept, f)
			}
		}
	}
	for _, f := range second.Findings {
		if (f.Check.Steady || f.Busy) && !slices.Contains(kept, f) {
			kept = append(kept, f)
		}
	}
	r.Findings = kept
	r.calm(second, again)
	gaps := second.Gaps
	for _, g := range r.Gaps {
		// What is shared stays a gap of those that were not run again.
		g.Checks = slices.DeleteFunc(slices.Clone(g.Checks), func(c *Check) bool { return slices.Contains(again, c) })
		if len(g.Checks) > 0 {
			gaps = append(gaps, g)
		}
	}
	r.Gaps = gaps
	if second.text != nil {
		r.text = second.text
	}
	if second.modules != nil {
		r.modules = second.modules
	}
}

// staying are those of now that were found before, too. What the kernel was just changing has changed if it
// looks otherwise now.
func staying(now, before []*Finding) (both []*Finding) {
	known := map[string]*Finding{}
	for _, f := range before {
		known[f.Key()] = f
	}
	for _, f := range now {
		if was := known[f.Key()]; was != nil && (was.state() == f.state() || !was.Busy && !f.Busy) {
			f.again = was.again + 1
			both = append(both, f)
		}
	}
	return both
}

// maxFindings bounds what one check finds: a guest of lies must not fill memory.
const maxFindings = 1000

// Over runs checks over one look, once: what is found may be something that the guest was in
// the middle of. It is for a guest that stands still, and for who compares looks himself.
func Over(ctx context.Context, l *guest.Look, checks []*Check, opts ...Option) *Result {
	return runOnce(ctx, l, checks, chosen(opts))
}

// runOnce runs checks over one look, as many at once as there are processors.
func runOnce(ctx context.Context, l *guest.Look, checks []*Check, o options) *Result {
	s := newSubject(ctx, l, o)
	results := make([]Result, len(checks))
	if len(checks) == 1 {
		results[0] = runCheck(ctx, s, checks[0])
	} else {
		var wg sync.WaitGroup
		slots := make(chan struct{}, runtime.GOMAXPROCS(0))
		for i, c := range checks {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				results[i] = runCheck(ctx, s, c)
			})
		}
		wg.Wait()
	}
	all := &Result{Release: l.Linux.Release}
	for _, r := range results {
		all.Findings = append(all.Findings, r.Findings...)
		all.Unsupported = append(all.Unsupported, r.Unsupported...)
		all.Gaps = append(all.Gaps, r.Gaps...)
		all.Ran += r.Ran
	}
	all.Gaps = append(all.Gaps, s.gaps()...)
	all.text, all.modules, all.heard = referenceOf(ctx, l, checks), s.parts.compared, o.heard
	all.assure()
	return all
}

// when is the time of the look.
func (s *Subject) when() time.Time {
	if s.Look == nil {
		return time.Time{}
	}
	return s.At
}

// boot is the boot of the look.
func (s *Subject) boot() int {
	if s.Look == nil {
		return 0
	}
	return s.Boot
}

// runCheck runs a check, if its result is not that of an earlier look for certain.
func runCheck(ctx context.Context, s *Subject, c *Check) (r Result) {
	if c.Kept {
		r, _ = conclude(s.of(c), "check "+c.ID, func(s *Subject) (Result, bool) {
			r := runNow(ctx, s, c)
			return r, ctx.Err() == nil && len(r.Findings)+len(r.Gaps) == 0
		})
	} else {
		r = runNow(ctx, s.of(c), c)
	}
	if ctx.Err() == nil && s.history != nil {
		s.history.bound(c, s.boot(), s.paced, r.Findings)
	}
	return r
}

func runNow(ctx context.Context, s *Subject, c *Check) (r Result) {
	gap := func(err error) Gap { return Gap{Checks: []*Check{c}, Err: err} }
	for f, err := range c.Run(ctx, s) {
		switch shared := (partError{}); {
		case ctx.Err() != nil:
			return r
		case errors.As(err, &shared): // it is reported once, for all who need it
		case errors.Is(err, kobj.ErrUnsupported), errors.Is(err, errNotAsked), errors.Is(err, errNotListened), errors.Is(err, errNotWatched), errors.Is(err, errNoRegisters):
			r.Unsupported = append(r.Unsupported, gap(err))
		case err != nil:
			r.Gaps = append(r.Gaps, gap(err))
		}
		if f != nil {
			f.Check, f.At = c, s.when()
			if f.Severity == "" {
				f.Severity = c.Severity
			}
			r.Findings = append(r.Findings, f)
		}
		if len(r.Findings)+len(r.Gaps) >= maxFindings {
			r.Gaps = append(r.Gaps, gap(fmt.Errorf("more than %d findings; the rest is left out", maxFindings)))
			break
		}
	}
	if len(r.Unsupported) == 0 || len(r.Findings)+len(r.Gaps) > 0 {
		r.Ran++ // else it had nothing to compare
	}
	return r
}
