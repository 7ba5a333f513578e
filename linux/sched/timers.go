package sched

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
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
	vectors, entry, expires, fn, flags              kobj.Field
	baseSize, clockSize                             uint32
	clocks, active, node, nodeExpires, hrFn, hrBase kobj.Field
	delayedTimer, delayedWork, workFn               kobj.Field
	wheels                                          int // for each processor
}

// clockNames are the hrtimer bases (enum hrtimer_base_type).
var clockNames = []string{"monotonic", "realtime", "boottime", "tai", "monotonic_soft", "realtime_soft", "boottime_soft", "tai_soft"}

func timerLayoutOf(s *linux.System) (*timerLayout, error) {
	return kobj.LayoutOf(s.Walker, "timers", func(r *kobj.Resolver, o *timerLayout) {
		r.Prefetch("timer_bases", "hrtimer_bases", "delayed_work_timer_fn")
		const t, h, c = "timer_list", "hrtimer", "hrtimer_clock_base"
		o.vectors, o.baseSize = r.Field("timer_base", "vectors"), r.Size("timer_base")
		o.entry, o.expires, o.fn, o.flags = r.Field(t, "entry"), r.Field(t, "expires"), r.Field(t, "function"), r.Field(t, "flags")
		o.clocks, o.clockSize = r.Field("hrtimer_cpu_base", "clock_base"), r.Size(c)
		o.active = r.Field(c, "active.rb_root.rb_root", "active.rb_root")
		// The tree's nodes are linked with each other since 7.1.
		o.node = r.Field(h, "node.node")
		o.nodeExpires, o.hrFn, o.hrBase = r.Field(h, "node.expires"), r.Field(h, "function"), r.Field(h, "base")
		o.delayedTimer, o.delayedWork = r.Field("delayed_work", "timer"), r.Field("delayed_work", "work")
		o.workFn = r.Field("work_struct", "func")
		bases, ok := r.Profile.Extent("timer_bases")
		if !ok || o.baseSize == 0 {
			r.Errs = append(r.Errs, fmt.Errorf("symbol timer_bases: %w", kernel.ErrNoSymbol))
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
func Timers(ctx context.Context, s *linux.System) iter.Seq2[*Timer, error] {
	return func(yield func(*Timer, error) bool) {
		o, err := timerLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for cpu := range s.CPUAreas {
			bases, err := s.PerCPU("timer_bases", cpu)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range o.wheels {
				if !wheel(ctx, s, o, cpu, o.wheelName(i), bases+virt.Addr(uint32(i)*o.baseSize), yield) {
					return
				}
			}
			clocks, err := s.PerCPU("hrtimer_bases", cpu)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range int(min(o.clocks.Size/max(o.clockSize, 1), uint32(len(clockNames)))) {
				base := o.clocks.At(clocks) + virt.Addr(uint32(i)*o.clockSize)
				if !clock(ctx, s, o, cpu, clockNames[i], base, yield) {
					return
				}
			}
		}
	}
}

// maxTimers bounds the timers of one list.
const maxTimers = 1 << 20

func wheel(ctx context.Context, s *linux.System, o *timerLayout, cpu int, name string, base virt.Addr, yield func(*Timer, error) bool) bool {
	buckets, err := s.Pointers(o.vectors.At(base), int(min(o.vectors.Size/8, 4096)))
	if err != nil {
		return yield(nil, fmt.Errorf("timers of processor %d: %w", cpu, err))
	}
	delayed, _ := s.Address("delayed_work_timer_fn")
	for i, first := range buckets {
		if first == 0 {
			continue
		}
		if !steady(s, cpu, name, name+" wheel", yield, func(w *kobj.Walker) ([]*Timer, error) {
			return readBucket(ctx, w, o, delayed, o.vectors.At(base)+virt.Addr(8*i))
		}) {
			return false
		}
	}
	return true
}

// readBucket reads the timers of one list of a wheel once. The error is of the first that
// could not be read, or is not where the one before it points.
func readBucket(ctx context.Context, w *kobj.Walker, o *timerLayout, delayed, head virt.Addr) (timers []*Timer, failed error) {
	link := head
	for node, err := range w.HList(ctx, head, maxTimers) {
		if err == nil {
			t := &Timer{Kind: "wheel", Addr: node - virt.Addr(o.entry.Offset)}
			r := w.Reader()
			t.Expires, t.Func = r.Uint(t.Addr, o.expires), r.Pointer(t.Addr, o.fn)
			if t.Func == delayed && delayed != 0 {
				work := t.Addr - virt.Addr(o.delayedTimer.Offset) + virt.Addr(o.delayedWork.Offset)
				t.Work = r.Pointer(work, o.workFn)
			}
			if back := r.Ptr(node + 8); r.Err == nil && back != link { // pprev
				err = fmt.Errorf("timer at %#x: %w: it is behind %#x, and says %#x", uint64(t.Addr), kobj.ErrBroken, uint64(link), uint64(back))
			} else if err = r.Err; err == nil {
				timers = append(timers, t)
			}
			link = node
		}
		if failed == nil {
			failed = err
		}
	}
	return timers, failed
}

// timerTries is how often timers are read that change meanwhile.
const timerTries = 3

// steady yields what read finds, of a base of a processor. Most timers are on the stacks of
// those who sleep: one that has woken up meanwhile leaves other bytes there. So read is an
// error where a timer does not say that it is where it was found, and is done again then,
// from the guest.
func steady(s *linux.System, cpu int, base, what string, yield func(*Timer, error) bool, read func(*kobj.Walker) ([]*Timer, error)) bool {
	timers, err := read(s.Walker)
	for try := 1; err != nil && try < timerTries; try++ {
		timers, err = read(s.Walker.Fresh())
	}
	for _, t := range timers {
		if t.CPU, t.Base = cpu, base; !yield(t, nil) {
			return false
		}
	}
	return err == nil || yield(nil, fmt.Errorf("timers of processor %d, %s: %w", cpu, what, err))
}

func clock(ctx context.Context, s *linux.System, o *timerLayout, cpu int, name string, base virt.Addr, yield func(*Timer, error) bool) bool {
	return steady(s, cpu, name, "clock "+name, yield, func(w *kobj.Walker) ([]*Timer, error) { return readClock(ctx, w, o, base) })
}

// readClock reads the timers of a clock once. The error is of the first that could not be read.
func readClock(ctx context.Context, w *kobj.Walker, o *timerLayout, base virt.Addr) (timers []*Timer, failed error) {
	for node, err := range w.RBTree(ctx, o.active.At(base), maxTimers) {
		if err == nil {
			t := &Timer{Kind: "high resolution", Addr: node - virt.Addr(o.node.Offset)}
			r := w.Reader()
			t.Expires, t.Func = r.Uint(t.Addr, o.nodeExpires), r.Pointer(t.Addr, o.hrFn)
			if of := r.Pointer(t.Addr, o.hrBase); r.Err == nil && of != base {
				err = fmt.Errorf("timer at %#x: %w: it is of the clock at %#x", uint64(t.Addr), kobj.ErrBroken, uint64(of))
			} else if err = r.Err; err == nil {
				timers = append(timers, t)
			}
		}
		if failed == nil {
			failed = err
		}
	}
	return timers, failed
}
