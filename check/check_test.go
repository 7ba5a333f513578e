package check

import (
	"context"
	"errors"
	"iter"
	"maps"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func found(kind, name string, pid int32) *Finding {
	return &Finding{Check: &Check{ID: "x"}, Object: Object{Kind: kind, Name: name, PID: pid}}
}

// TestStaying: a finding counts if it is found again, also where its words differ.
func TestStaying(t *testing.T) {
	before := []*Finding{found("process", "sh", 7), found("process", "sh", 8)}
	again := found("process", "sh", 8)
	again.Title = "other words"
	now := []*Finding{again, found("process", "sh", 9), found("thread", "sh", 7)}
	if got := staying(now, before); len(got) != 1 || got[0] != again {
		t.Errorf("%d findings stay: %v", len(got), got)
	}
}

// TestSettle: what could not be read is looked at again, and what is found then for the first
// time is looked at once more.
func TestSettle(t *testing.T) {
	gappy, sound := &Check{ID: "gappy"}, &Check{ID: "sound"}
	all := []*Check{gappy, sound}
	of := func(c *Check, name string) *Finding { return &Finding{Check: c, Object: Object{Name: name}} }
	r := &Result{Findings: []*Finding{of(sound, "old")}, Gaps: []Gap{{Checks: []*Check{gappy}, Err: errors.New("list changed")}}}
	if got := r.unsettled(all, 0, false); len(got) != 2 {
		t.Fatalf("%d checks are looked at again", len(got))
	}
	r.settle(&Result{Findings: []*Finding{of(gappy, "late"), of(sound, "old"), of(sound, "new")}}, all, 0)
	if len(r.Findings) != 2 || len(r.Gaps) != 0 {
		t.Fatalf("findings %v, gaps %v", r.Findings, r.Gaps)
	}
	r.settle(&Result{Findings: []*Finding{of(gappy, "late")}}, all, 1)
	if len(r.Findings) != 1 || r.Findings[0].Object.Name != "late" {
		t.Fatalf("findings %v", r.Findings)
	}
	r = &Result{Gaps: []Gap{{Checks: []*Check{gappy}, Err: errors.New("broken")}}}
	for i := range settleAfter {
		if got := len(r.unsettled(all, i, false)); got != map[bool]int{true: 1}[i < gapsAgain] {
			t.Errorf("look %d: %d checks", i, got)
		}
		r.settle(&Result{Findings: []*Finding{of(gappy, "x")}, Gaps: []Gap{{Checks: []*Check{gappy}, Err: errors.New("broken")}}}, []*Check{gappy}, len(settleAfter)-1)
	}
	if len(r.Gaps) != 1 || len(r.Findings) != 0 {
		t.Errorf("at the end findings %v, gaps %v", r.Findings, r.Gaps)
	}
}

// TestConfirm: where lists cannot be followed at any look, what was found twice is a finding, and
// what was found once is not.
func TestConfirm(t *testing.T) {
	c := &Check{ID: "gappy"}
	of := func(name string) *Finding { return &Finding{Check: c, Object: Object{Name: name}} }
	gaps := func() []Gap { return []Gap{{Checks: []*Check{c}, Err: errors.New("list changed")}} }
	r := &Result{Findings: []*Finding{of("passing"), of("stays")}, Gaps: gaps()}
	r.settle(&Result{Findings: []*Finding{of("stays"), of("another")}, Gaps: gaps()}, []*Check{c}, 0)
	r.settle(&Result{Gaps: gaps()}, []*Check{c}, 1)
	r.confirm(3, false, false)
	if len(r.Findings) != 1 || r.Findings[0].Object.Name != "stays" || len(r.Gaps) != 1 {
		t.Errorf("findings %v, gaps %v", r.Findings, r.Gaps)
	}
}

// TestMoving: what is elsewhere at every look is a gap where nothing changes by itself, and one
// that was there at an earlier look alone is not.
func TestMoving(t *testing.T) {
	for _, steady := range []bool{true, false} {
		c := &Check{ID: "text", Steady: steady}
		at := func(a virt.Addr) *Result {
			return &Result{Findings: []*Finding{{Check: c, Title: "changed", Object: Object{Addr: a}}}}
		}
		r := at(0)
		for i := range settleAfter {
			if got := len(r.unsettled([]*Check{c}, i, false)); steady && got != 1 {
				t.Fatalf("look %d: not looked at again", i)
			}
			r.settle(at(virt.Addr(i+1)), []*Check{c}, i)
		}
		r.confirm(3, false, false)
		if len(r.Findings) != 0 || (len(r.Gaps) == 1) != steady {
			t.Errorf("steady %v: findings %v, gaps %v", steady, r.Findings, r.Gaps)
		}
		r = at(0)
		r.settle(&Result{}, []*Check{c}, 0)
		r.confirm(3, false, false)
		if len(r.Findings) != 0 || len(r.Gaps) != 0 {
			t.Errorf("what passed: findings %v, gaps %v", r.Findings, r.Gaps)
		}
	}
}

// TestBusy: what the kernel was just changing is looked at for longer than the rest, and not for ever.
func TestBusy(t *testing.T) {
	busy, sound := &Check{ID: "busy"}, &Check{ID: "sound"}
	all := []*Check{busy, sound}
	r := &Result{Findings: []*Finding{{Check: busy, Busy: true}, {Check: sound}}}
	o := chosen(nil)
	for i := range len(settleAfter) + busyLooks + 3 {
		want := 2
		if i >= len(settleAfter) {
			want = 1
		}
		if i >= len(settleAfter)+busyLooks {
			want = 0
		}
		if _, again := o.next(i, i, r, all, false); len(again) != want {
			t.Errorf("look %d: %d checks, not %d", i, len(again), want)
		}
	}
	if _, again := o.next(len(settleAfter), 0, r, all, true); len(again) != 2 {
		t.Errorf("of a guest that does not get on: %d checks, not 2", len(again))
	}
	if _, again := o.next(len(settleAfter)+busyLooks, 9, r, all, true); len(again) != 2 {
		t.Errorf("of one that has not got on yet: %d checks, not 2", len(again))
	}
	// Where it goes on to change, it is looked at for longer, until it does not, and not for ever.
	for i, c := range map[int]struct{ alike, want int }{busyLooks: {busyLooks - 1, 1}, busyLooks + 1: {busyLooks, 0}, maxBusyLooks: {0, 0}} {
		i += len(settleAfter)
		if _, again := o.next(i, c.alike, r, all, false); len(again) != c.want {
			t.Errorf("look %d, the same at %d: %d checks, not %d", i, c.alike, len(again), c.want)
		}
	}
	o = chosen([]Option{Again(1)})
	for i, want := range []int{2, 0, 0, 0} {
		if _, again := o.next(i, i, r, all, false); len(again) != want {
			t.Errorf("of one look more, look %d: %d checks, not %d", i, len(again), want)
		}
	}
}

// TestBusyStays: what the kernel was just changing stays if it looks the same at many looks; a jump label that is
// switched on and off is in the middle of that at each look, and in another state.
func TestBusyStays(t *testing.T) {
	c := &Check{ID: "text", Steady: true}
	for name, x := range map[string]struct {
		seen func(i int) string
		busy func(i int) bool
		want bool
	}{
		"tampered with":            {func(int) string { return "jmp" }, func(int) bool { return true }, true},
		"the lock comes and goes":  {func(int) string { return "jmp" }, func(i int) bool { return i%2 == 0 }, true},
		"switched on and off":      {func(i int) string { return []string{"jmp", "nop"}[i%2] }, func(int) bool { return true }, false},
		"switched for a last time": {func(i int) string { return []string{"jmp", "nop"}[min(i, 6)/6] }, func(int) bool { return true }, false},
		"changed under no lock":    {func(i int) string { return []string{"jmp", "nop"}[i%2] }, func(int) bool { return false }, true},
	} {
		at := func(i int) *Result {
			return &Result{Findings: []*Finding{{Check: c, Title: "jump label", Expected: "as built", Seen: x.seen(i), Busy: x.busy(i)}}}
		}
		r, n := at(0), len(settleAfter)+busyLooks
		for i := range n {
			r.settle(at(i+1), []*Check{c}, i)
		}
		if r.confirm(n+1, false, false); len(r.Findings) > 0 != x.want {
			t.Errorf("%s: findings %v", name, r.Findings)
		}
	}
	if a, b := (&Result{Findings: []*Finding{{Check: c, Seen: "jmp", Busy: true}}}).changing(), (&Result{Findings: []*Finding{{Check: c, Seen: "nop", Busy: true}}}).changing(); len(a) != 1 || maps.Equal(a, b) {
		t.Errorf("%v and %v are the same", a, b)
	}
}

// TestRunCheck: what a check says of a guest ends where it belongs.
func TestRunCheck(t *testing.T) {
	run := func(yield ...any) Result {
		return runCheck(t.Context(), &Subject{}, &Check{ID: "x", Severity: High, Run: func(context.Context, *Subject) iter.Seq2[*Finding, error] {
			return func(next func(*Finding, error) bool) {
				for _, y := range yield {
					f, _ := y.(*Finding)
					err, _ := y.(error)
					if !next(f, err) {
						return
					}
				}
			}
		}})
	}
	r := run(&Finding{Title: "a"}, errors.New("broken"), kobj.ErrUnsupported, &Finding{Title: "b", Severity: Low})
	if len(r.Findings) != 2 || r.Findings[0].Severity != High || r.Findings[1].Severity != Low || r.Findings[0].Check.ID != "x" {
		t.Errorf("findings: %+v", r.Findings)
	}
	if len(r.Gaps) != 1 || len(r.Unsupported) != 1 || r.Ran != 1 {
		t.Errorf("gaps %v, unsupported %v, %d ran", r.Gaps, r.Unsupported, r.Ran)
	}
	many := make([]any, 5*maxFindings)
	for i := range many {
		many[i] = &Finding{}
	}
	if r := run(many...); len(r.Findings) != maxFindings || len(r.Gaps) != 1 {
		t.Errorf("of a guest of lies there are %d findings and %d gaps", len(r.Findings), len(r.Gaps))
	}
}

// TestDocumented: what a check says of itself reads as documentation.
func TestDocumented(t *testing.T) {
	for _, c := range All() {
		for what, s := range map[string]string{"proves": c.Proves, "blind": c.Blind, "next": c.Next} {
			if !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %s is not in sentences: %q", c.ID, what, s)
			}
		}
		if strings.HasSuffix(c.Title, ".") || !strings.HasPrefix(c.Technique, "T") {
			t.Errorf("%s: title %q, technique %q", c.ID, c.Title, c.Technique)
		}
	}
}

func TestSelect(t *testing.T) {
	all, err := Select(nil, nil)
	if err != nil || len(all) == 0 || len(all) != len(All()) {
		t.Fatalf("%d checks, %v", len(all), err)
	}
	id := all[0].ID
	if only, err := Select([]string{id}, nil); err != nil || len(only) != 1 || only[0].ID != id {
		t.Errorf("only %s: %v, %v", id, only, err)
	}
	if rest, err := Select(nil, []string{id}); err != nil || len(rest) != len(all)-1 {
		t.Errorf("without %s: %d of %d, %v", id, len(rest), len(all), err)
	}
	if _, err := Select([]string{"no-such"}, nil); err == nil || !strings.Contains(err.Error(), "--list") {
		t.Errorf("an unknown check: %v", err)
	}
}
