package check

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux"
)

// TestRestless: who has the guest say that it changes something, and moves it, gets a gap in the end.
func TestRestless(t *testing.T) {
	c := &Check{ID: "text"}
	const all = 1 + maxBusyLooks
	for name, x := range map[string]struct {
		looks    int
		stuck    bool
		explain  bool
		works    bool
		seen     func(i int) string // empty: nothing is found
		findings int
		gaps     int
	}{
		"moves":                           {looks: all + len(settleAfter), seen: func(i int) string { return string(rune('a' + i)) }, gaps: 1},
		"moves, and was in order once":    {looks: all + len(settleAfter), seen: func(i int) string { return string(rune('a' + i))[:min(1, max(i-7, 7-i))] }},
		"moves, not looked at to the end": {looks: all, seen: func(i int) string { return string(rune('a' + i)) }},
		"stays":                           {looks: all + len(settleAfter), seen: func(int) string { return "jmp" }, findings: 1},
		"stays, in a guest that is stuck": {looks: all + len(settleAfter), stuck: true, seen: func(int) string { return "jmp" }, gaps: 1},
		"stays, and is explained":         {looks: all + len(settleAfter), explain: true, seen: func(int) string { return "jmp" }, findings: 1},
		"who changes it is at work":       {looks: all + len(settleAfter), explain: true, works: true, seen: func(int) string { return "jmp" }, gaps: 1},
		"is explained, and ends":          {looks: all + len(settleAfter), explain: true, seen: func(i int) string { return "jmp"[:3*min(1, max(0, 30-i))] }},
		"is explained, and came later":    {looks: all + len(settleAfter), explain: true, seen: func(i int) string { return []string{"nop", "jmp"}[min(1, i)] }, gaps: 1},
	} {
		at := func(i int) *Result {
			r := &Result{}
			if seen := x.seen(i); seen != "" {
				r.Findings = []*Finding{{Check: c, Title: "jump label", Expected: "as built", Seen: seen, Busy: true, Explained: x.explain}}
				if x.works {
					r.Findings[0].work = fmt.Sprint(i)
				}
			}
			return r
		}
		r := at(0)
		r.startle()
		for i := range x.looks - 1 {
			r.settle(at(i+1), []*Check{c}, i)
		}
		if r.confirm(x.looks, x.stuck, false); len(r.Findings) != x.findings || len(r.Gaps) != x.gaps {
			t.Errorf("%s: findings %v, gaps %v", name, r.Findings, r.Gaps)
		}
	}
	// An explained one is looked at to the end.
	o := chosen(nil)
	r := &Result{Findings: []*Finding{{Check: c, Busy: true, Explained: true}}}
	if _, again := o.next(len(settleAfter)+busyLooks, busyLooks, r, []*Check{c}, false); len(again) != 1 {
		t.Errorf("%d checks are looked at again", len(again))
	}
	// So is what a guest is changing that is stuck, and for longer, as is what a task changes that is at work.
	const looked, busy, long = 8, 33, 63
	for _, x := range []struct {
		i, alike           int
		stuck, explain     bool
		again, acrossAgain int
	}{
		{i: looked, alike: busyLooks},
		{i: looked, alike: busyLooks, stuck: true, again: 1, acrossAgain: 1},
		{i: busy, alike: busyLooks},
		{i: busy, alike: busyLooks, stuck: true, again: 1},
		{i: busy, alike: busyLooks, explain: true, again: 1},
		{i: busy, alike: busy, explain: true},
		{i: long, alike: busyLooks, stuck: true},
		{i: long, alike: busyLooks, explain: true},
	} {
		r := &Result{Findings: []*Finding{{Check: c, Busy: true, Explained: x.explain}}}
		_, again := o.next(x.i, x.alike, r, []*Check{c}, x.stuck)
		across := chosen([]Option{AcrossRuns()})
		_, acrossAgain := across.next(x.i, x.alike, r, []*Check{c}, x.stuck)
		if len(again) != x.again || len(acrossAgain) != x.acrossAgain {
			t.Errorf("%+v: %d checks are looked at again, over runs %d", x, len(again), len(acrossAgain))
		}
	}
}

// TestStuckGap: what a guest that is stuck was changing while it was read is read again until the guest gets on.
func TestStuckGap(t *testing.T) {
	c, other := &Check{ID: "programs"}, &Check{ID: "other"}
	r := &Result{Gaps: []Gap{{Checks: []*Check{c}, Err: errors.New("the list is broken")}}}
	o := chosen(nil)
	for _, x := range []struct {
		i     int
		stuck bool
		again int
	}{{0, false, 1}, {1, false, 1}, {2, false, 0}, {2, true, 1}, {10, false, 0}, {10, true, 1}, {63, true, 0}} {
		if _, again := o.next(x.i, 0, r, []*Check{c, other}, x.stuck); len(again) != x.again {
			t.Errorf("%+v: %d checks are looked at again", x, len(again))
		}
	}
}

// TestHeldBy: what looks the same is not, if the task that changes it has run since.
func TestHeldBy(t *testing.T) {
	c := &Check{ID: "text"}
	at := func(runtime uint64) []*Finding {
		f := &Finding{Check: c, Title: "recorded as traced, and is not", Busy: true}
		f.heldBy([]linux.Work{{Mutex: "text_mutex", Task: 0xffff_8880_0000_1000, Runtime: runtime}})
		return []*Finding{f}
	}
	if both := staying(at(1), at(1)); len(both) != 1 || len(both[0].Evidence) != 1 {
		t.Errorf("nobody did anything: %v", both)
	}
	if both := staying(at(2), at(1)); len(both) != 0 {
		t.Errorf("the holder was at work: %v", both)
	}
}

// TestAcrossRuns: a run does not wait for what the guest is changing, and reports what else it found; over many runs
// what stays the same is found, and what does not is a gap.
func TestAcrossRuns(t *testing.T) {
	c, other := &Check{ID: "text"}, &Check{ID: "other"}
	all := []*Check{c, other}
	for name, x := range map[string]struct {
		explain      bool
		works        bool
		stuckFrom    int // runs in which the guest does not get on
		stuckTo      int
		seen         func(run int) string
		finding, gap int // the first run with it; 0: none
	}{
		"stays":                     {seen: func(int) string { return "jmp" }, finding: 3},
		"stays, and is explained":   {explain: true, seen: func(int) string { return "jmp" }, finding: 30},
		"the guest is stuck":        {stuckFrom: 1, stuckTo: 20, seen: func(run int) string { return "jmp"[:3*min(1, max(0, 21-run))] }},
		"stays, after it was stuck": {stuckFrom: 1, stuckTo: 10, seen: func(int) string { return "jmp" }, finding: 12},
		"is stuck for good":         {stuckFrom: 1, stuckTo: 100, seen: func(int) string { return "jmp" }, gap: 30},
		"is at work":                {explain: true, works: true, seen: func(int) string { return "jmp" }, gap: 30},
		"moves":                     {seen: func(i int) string { return string(rune('a' + i)) }, gap: 30},
		"ends":                      {seen: func(i int) string { return "jmp"[:3*min(1, max(0, 2-i))] }},
	} {
		h, start := &History{}, time.Now()
		o := chosen([]Option{Remember(h), AcrossRuns()})
		finding, gap := 0, 0
		clock := uint64(0)
		for run := range 40 {
			at := func() *Result {
				r := &Result{Findings: []*Finding{{Check: other, Title: "plain"}}}
				if seen := x.seen(run); seen != "" {
					r.Findings = append(r.Findings, &Finding{Check: c, Title: "jump label", Expected: "as built", Seen: seen, Busy: true, Explained: x.explain})
					if x.works {
						r.Findings[1].work = fmt.Sprint(run)
					}
				}
				return r
			}
			r := at()
			r.startle()
			looks := 1
			for i := 0; ; i++ {
				_, again := o.next(i, i, r, all, false)
				if len(again) == 0 {
					break
				}
				r.settle(at(), again, i)
				looks++
			}
			if looks > 1+len(settleAfter) {
				t.Fatalf("%s: a run took %d looks", name, looks)
			}
			r.confirm(looks, false, true)
			if run >= x.stuckFrom && run < x.stuckTo {
				clock -= uint64(time.Second)
			}
			clock += uint64(time.Second)
			p := progress{processors: map[int]processor{0: {clock: clock, switches: clock, waiting: 2}}}
			r.await(h, all, start.Add(time.Duration(run)*time.Second), p)
			if r.anyOf(other, false) == nil {
				t.Errorf("%s: run %d did not report what is not being changed", name, run)
			}
			if finding == 0 && r.anyOf(c, false) != nil {
				finding = run
			}
			if gap == 0 && r.Gap(c) {
				gap = run
			}
		}
		if finding != x.finding || gap != x.gap {
			t.Errorf("%s: found at run %d, a gap at run %d", name, finding, gap)
		}
	}
}
