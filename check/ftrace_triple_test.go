package check

import (
	"errors"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// TestFtraceUsers counts users as the kernel does (ops_references_rec): no filter is every
// function, and what is not to be traced counts in both cases.
func TestFtraceUsers(t *testing.T) {
	v := &ftraceView{named: map[virt.Addr]int{}}
	for _, f := range []*hooks.FtraceOp{
		{Filter: []virt.Addr{1, 2}, FilterSize: 2},
		{Filter: []virt.Addr{2, 3}, FilterSize: 2, NoTrace: []virt.Addr{3}},
		{NoTrace: []virt.Addr{2}},
	} {
		v.add(newFtraceUser(f))
	}
	for ip, want := range map[virt.Addr]int{1: 2, 2: 2, 3: 1, 4: 1} {
		if got := v.users(ip); got != want {
			t.Errorf("function %d has %d users, want %d", ip, got, want)
		}
	}
}

// TestNeverWarned: only a log that begins at boot proves that there was no warning.
func TestNeverWarned(t *testing.T) {
	for name, c := range map[string]struct {
		seq    uint64
		texts  []string
		broken error
		want   bool
	}{
		"nothing but boots":     {texts: []string{"Linux version 6.12", "Run /init as init process"}, want: true},
		"a warning":             {texts: []string{"Linux version 6.12", "------------[ cut here ]------------", "WARNING: CPU: 0 PID: 1 at kernel/trace/ftrace.c:2052 ftrace_bug+0x1/0x2"}},
		"one of tracing's":      {texts: []string{"Linux version 6.12", "------------[ ftrace bug ]------------"}},
		"the beginning is gone": {seq: 1, texts: []string{"Run /init as init process"}},
		"it cannot be read":     {texts: []string{"Linux version 6.12"}, broken: kobj.ErrBroken},
		"it is empty":           {},
	} {
		got, err := neverWarned(func(yield func(*linux.LogMessage, error) bool) {
			for i, text := range c.texts {
				if !yield(&linux.LogMessage{Seq: c.seq + uint64(i), Text: text}, nil) {
					return
				}
			}
			if c.broken != nil {
				yield(nil, c.broken)
			}
		})
		if got != c.want || !errors.Is(err, c.broken) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestTracingEnded: trampolines that cannot be judged are reported as that.
func TestTracingEnded(t *testing.T) {
	w := &trampolineWalk{broken: true}
	errs := 0
	for f, err := range w.ftrace(t.Context()) {
		if f != nil || err == nil || errors.Is(err, kobj.ErrUnsupported) {
			t.Errorf("%v, %v", f, err)
		}
		errs++
	}
	if errs != 1 {
		t.Errorf("%d gaps", errs)
	}
}
