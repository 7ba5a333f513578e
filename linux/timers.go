package linux

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// Timer is one timer that waits.
type Timer struct {
	Kind string // "wheel" (struct timer_list) or "high resolution" (struct hrtimer)
	CPU  int
	// Base is the wheel or the clock: standard, deferrable, local, global;
	// monotonic, realtime, boottime, tai; those ending in _soft run in softirq.
	Base string
	// Expires is when it runs: of a wheel in jiffies, of a clock in nanoseconds of
	// that clock.
	Expires uint64
	Func    virt.Addr
	Addr    virt.Addr // struct timer_list or struct hrtimer
	// Work is what a timer will queue, where it is that of a delayed work.
	Work virt.Addr
}

// Clock is the time at which a high-resolution timer expires, by its clock.
func (t *Timer) Clock() time.Duration { return time.Duration(t.Expires) }

type timerLayout struct {
	vectors, entry, expires, fn, flags      Field
	baseSize, clockSize                     uint32
	clocks, active, node, nodeExpires, hrFn Field
	delayedTimer, delayedWork, workFn       Field
	wheels                                  int // for each processor
}

// clockNames are the hrtimer bases (enum hrtimer_base_type).
var clockNames = []string{"monotonic", "realtime", "boottime", "tai", "monotonic_soft", "realtime_soft", "boottime_soft", "tai_soft"}

func (s *System) timerLayout() (*timerLayout, error) {
	return layoutOf(s.Walker, "timers", func(r *resolver, o *timerLayout) {
		r.symbols("timer_bases", "hrtimer_bases", "delayed_work_timer_fn")
		const t, h, c = "timer_list", "hrtimer", "hrtimer_clock_base"
		o.vectors, o.baseSize = r.field("timer_base", "vectors"), r.size("timer_base")
		o.entry, o.expires, o.fn, o.flags = r.field(t, "entry"), r.field(t, "expires"), r.field(t, "function"), r.field(t, "flags")
		o.clocks, o.clockSize = r.field("hrtimer_cpu_base", "clock_base"), r.size(c)
		o.active = r.field(c, "active.rb_root.rb_root", "active.rb_root")
		// The tree's nodes are linked with each other since 7.1.
		o.node = r.field(h, "node.node")
		o.nodeExpires, o.hrFn = r.field(h, "node.expires"), r.field(h, "function")
		o.delayedTimer, o.delayedWork = r.field("delayed_work", "timer"), r.field("delayed_work", "work")
		o.workFn = r.field("work_struct", "func")
		bases, ok := r.p.Extent("timer_bases")
		if !ok || o.baseSize == 0 {
			r.errs = append(r.errs, fmt.Errorf("symbol timer_bases: %w", kernel.ErrNoSymbol))
			return
		}
		o.wheels = wheels(bases, o.baseSize)
	})
}

// wheels is how many wheels a processor has: one without CONFIG_NO_HZ_COMMON, two
// up to 6.8, three since.
func wheels(bases kernel.Extent, size uint32) int {
	return int(min(max(bases.Size/uint64(size), 1), 3))
}

// wheelName is the name of wheel i.
func (o *timerLayout) wheelName(i int) string {
	switch {
	case o.wheels == 3:
		return [...]string{"local", "global", "deferrable"}[i]
	case i == 1:
		return "deferrable"
	}
	return "standard"
}

// Timers yields the timers that wait: by processor, those on its wheels, then those
// of its clocks in the order in which they expire.
func (s *System) Timers(ctx context.Context) iter.Seq2[*Timer, error] {
	return func(yield func(*Timer, error) bool) {
		o, err := s.timerLayout()
		if err != nil {
			yield(nil, err)
			return
		}
		for cpu := range s.cpus {
			bases, err := s.PerCPU("timer_bases", cpu)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range o.wheels {
				if !s.wheel(ctx, o, cpu, o.wheelName(i), bases+virt.Addr(uint32(i)*o.baseSize), yield) {
					return
				}
			}
			clocks, err := s.PerCPU("hrtimer_bases", cpu)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range int(min(o.clocks.Size/max(o.clockSize, 1), uint32(len(clockNames)))) {
				base := at(clocks, o.clocks) + virt.Addr(uint32(i)*o.clockSize)
				if !s.clock(ctx, o, cpu, clockNames[i], base, yield) {
					return
				}
			}
		}
	}
}

// maxTimers bounds the timers of one list.
const maxTimers = 1 << 20

func (s *System) wheel(ctx context.Context, o *timerLayout, cpu int, name string, base virt.Addr, yield func(*Timer, error) bool) bool {
	buckets, err := s.pointers(at(base, o.vectors), int(min(o.vectors.Size/8, 4096)))
	if err != nil {
		return yield(nil, fmt.Errorf("timers of processor %d: %w", cpu, err))
	}
	delayed, _ := s.Address("delayed_work_timer_fn")
	for i, first := range buckets {
		if first == 0 {
			continue
		}
		for node, err := range s.hlist(ctx, at(base, o.vectors)+virt.Addr(8*i), maxTimers) {
			var t *Timer
			if err == nil {
				t = &Timer{Kind: "wheel", CPU: cpu, Base: name, Addr: node - virt.Addr(o.entry.Offset)}
				err = safely(func() error {
					r := s.reader()
					t.Expires, t.Func = r.num(t.Addr, o.expires), r.pointer(t.Addr, o.fn)
					if t.Func == delayed && delayed != 0 {
						work := t.Addr - virt.Addr(o.delayedTimer.Offset) + virt.Addr(o.delayedWork.Offset)
						t.Work = r.pointer(work, o.workFn)
					}
					return r.err
				})
			}
			if err != nil {
				t, err = nil, fmt.Errorf("timers of processor %d, %s wheel: %w", cpu, name, err)
			}
			if !yield(t, err) {
				return false
			}
		}
	}
	return true
}

func (s *System) clock(ctx context.Context, o *timerLayout, cpu int, name string, base virt.Addr, yield func(*Timer, error) bool) bool {
	for node, err := range s.rbtree(ctx, at(base, o.active), maxTimers) {
		var t *Timer
		if err == nil {
			t = &Timer{Kind: "high resolution", CPU: cpu, Base: name, Addr: node - virt.Addr(o.node.Offset)}
			err = safely(func() error {
				r := s.reader()
				t.Expires, t.Func = r.num(t.Addr, o.nodeExpires), r.pointer(t.Addr, o.hrFn)
				return r.err
			})
		}
		if err != nil {
			t, err = nil, fmt.Errorf("timers of processor %d, clock %s: %w", cpu, name, err)
		}
		if !yield(t, err) {
			return false
		}
	}
	return true
}
