package check

import (
	"context"
	"errors"
	"iter"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// TestShared: what could not be read of something that checks share is one gap, of those who
// asked for it.
func TestShared(t *testing.T) {
	reads := 0
	p := &parts{}
	p.tasks.name, p.modules.name = "tasks", "modules"
	p.tasks.read = func() (*tasks, uint64, []error, error) {
		reads++
		return &tasks{}, 1, []error{errors.New("one"), errors.New("two")}, nil
	}
	p.modules.read = func() ([]*linux.Module, uint64, []error, error) { return nil, 1, nil, errors.New("list broken") }
	p.sockets.read = func() (*sockets, uint64, []error, error) { return nil, 1, nil, kobj.ErrUnsupported }
	s := &Subject{parts: p}
	asks := func(id string, ask func(*Subject) error) *Check {
		return &Check{ID: id, Run: func(_ context.Context, s *Subject) iter.Seq2[*Finding, error] {
			return func(yield func(*Finding, error) bool) {
				if err := ask(s); err != nil {
					yield(nil, err)
				}
			}
		}}
	}
	tasks := func(s *Subject) error { _, err := s.Tasks(); return err }
	modules := func(s *Subject) error { _, err := s.Modules(); return err }
	sockets := func(s *Subject) error { _, err := s.Sockets(); return err }
	a, b, c, d := asks("a", tasks), asks("b", tasks), asks("c", modules), asks("d", sockets)
	all := &Result{}
	for _, k := range []*Check{a, b, c, d} {
		r := runCheck(t.Context(), s, k)
		all.Gaps = append(all.Gaps, r.Gaps...)
		all.Unsupported = append(all.Unsupported, r.Unsupported...)
	}
	all.Gaps = append(all.Gaps, s.gaps()...)
	if len(all.Gaps) != 3 || reads != 1 || len(all.Unsupported) != 1 {
		t.Fatalf("gaps %v, unsupported %v, %d reads", all.Gaps, all.Unsupported, reads)
	}
	for i, want := range []string{"modules: list broken", "tasks: one", "tasks: two"} {
		if got := all.Gaps[i].String(); got != want {
			t.Errorf("gap %q, not %q", got, want)
		}
	}
	if !all.Gap(a) || !all.Gap(b) || !all.Gap(c) || all.Gap(d) {
		t.Errorf("gaps of the wrong checks: %v", all.Gaps)
	}
	// What is read again by one of them is a gap of the other alone.
	all.settle(&Result{}, []*Check{a, c}, 0)
	if len(all.Gaps) != 2 || all.Gap(a) || !all.Gap(b) || all.Gap(c) {
		t.Errorf("after a second look: %v", all.Gaps)
	}
}
