package bpf

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Release is how far the kernel is with freeing a trampoline (bpf_tramp_image_put). That takes two grace periods of RCU and, where the traced
// function is called from the trampoline, as long as a task is in that function; the programs that it calls may be freed before, and what
// is compiled next may have their place.
type Release struct {
	Stage Stage
	// Periods counts the grace periods of the flavour of RCU that is waited for, and Progress how far it is with the current one. Both are
	// empty if nothing is known of it.
	Periods  uint64
	Progress string
}

// Stage is what is waited for.
type Stage int

// The stages. Unreleased: the kernel notes nothing of an end.
const (
	Unreleased   Stage = iota
	AwaitsTrace        // a grace period of RCU tasks trace
	AwaitsTasks        // a grace period of RCU tasks
	AwaitsReturn       // tasks that are in the traced function
	AwaitsWorker       // a kernel thread that frees it
)

type releaseLayout struct{ image, symbol, count, afterCall, calls, callback, work kobj.Field }

type periodsLayout struct{ state, jiffies, sequence, thread, runtime, taskState kobj.Field }

// dead is __PERCPU_REF_DEAD in percpu_ref.percpu_count_ptr.
const dead = 2

// periodShift: two bits of a sequence number of RCU are the state of the current period (RCU_SEQ_CTR_SHIFT).
const periodShift = 2

// ReleaseOf says how far the kernel is with freeing the trampoline of a symbol. It is kobj.ErrUnsupported before 5.13.
func ReleaseOf(s *linux.System, i Image) (rel Release, err error) {
	o, err := kobj.LayoutOf(s.Walker, "releases of BPF's trampolines", func(r *kobj.Resolver, o *releaseLayout) {
		const t = "bpf_tramp_image"
		o.image, o.symbol, o.count = r.Field(t, "image"), r.Field(t, "ksym"), r.Field(t, "pcref.percpu_count_ptr")
		o.afterCall, o.calls = r.Optional(t, "ip_after_call"), r.Optional(t, "call_orig") // 7.2
		o.callback, o.work = r.Field(t, "rcu.func"), r.Field(t, "work.func")
	})
	if err != nil {
		return rel, err
	}
	r, a := s.Reader(), i.Symbol-virt.Addr(o.symbol.Offset)
	image, count, callback, work := r.Pointer(a, o.image), r.Uint(a, o.count), r.Pointer(a, o.callback), r.Pointer(a, o.work)
	// Whether it calls the traced function.
	calls := o.calls.Present() && r.Uint(a, o.calls) != 0 || o.afterCall.Present() && r.Pointer(a, o.afterCall) != 0
	if r.Err == nil && image != i.Start {
		r.Err = fmt.Errorf("%w: its image is at %#x", kobj.ErrBroken, uint64(image))
	}
	if r.Err != nil {
		return Release{}, fmt.Errorf("%s at %#x: %w", i.Name, uint64(i.Start), r.Err)
	}
	is := func(f virt.Addr, name string) bool {
		at, ok := s.Address(name)
		return ok && f == at
	}
	switch {
	case is(work, "__bpf_tramp_image_put_deferred"):
		rel.Stage = AwaitsWorker
		return rel, nil
	case is(callback, "__bpf_tramp_image_put_rcu"):
		rel.Stage = AwaitsTasks
	case !is(callback, "__bpf_tramp_image_put_rcu_tasks"):
		return rel, nil
	case !calls:
		rel.Stage = AwaitsTrace
	case count&dead != 0:
		// Its count is put together when an ordinary grace period has passed (percpu_ref_kill).
		rel.Stage = AwaitsReturn
		if member, err := s.Member("rcu_state", "gp_seq"); err == nil {
			if at, ok := s.Address("rcu_state"); ok {
				n := r.Uint(at, member)
				rel.Periods, rel.Progress = n>>periodShift, fmt.Sprint(n)
			}
		}
		return rel, r.Err
	default:
		rel.Stage = AwaitsTasks
	}
	rel.Periods, rel.Progress, err = periods(s, rel.Stage)
	return rel, err
}

// periods are how many grace periods of a flavour there were, and how far it is with the current one.
func periods(s *linux.System, stage Stage) (uint64, string, error) {
	name := "rcu_tasks"
	if stage == AwaitsTrace {
		name = "rcu_tasks_trace"
		if at, ok := s.Address("rcu_tasks_trace_srcu_struct_srcu_usage"); ok { // 7.0
			sequence, err := s.Member("srcu_usage", "srcu_gp_seq")
			if err != nil {
				return 0, "", err
			}
			r := s.Reader()
			n := r.Uint(at, sequence)
			return n >> periodShift, fmt.Sprint(n), r.Err
		}
	}
	at, ok := s.Address(name)
	now, running := s.Address("jiffies")
	if !ok || !running {
		return 0, "", nil
	}
	o, err := kobj.LayoutOf(s.Walker, "grace periods of RCU tasks", func(r *kobj.Resolver, o *periodsLayout) {
		const t = "rcu_tasks"
		o.state, o.jiffies, o.thread = r.Field(t, "gp_state"), r.Field(t, "gp_jiffies"), r.Field(t, "kthread_ptr")
		o.sequence = r.Field(t, "tasks_gp_seq") // 5.17
		o.runtime, o.taskState = r.Field("task_struct", "se.sum_exec_runtime"), r.Field("task_struct", "__state", "state")
	})
	if errors.Is(err, kobj.ErrUnsupported) {
		return 0, "", nil
	} else if err != nil {
		return 0, "", err
	}
	r := s.Reader()
	n, state, jiffies, thread := r.Uint(at, o.sequence), r.Uint(at, o.state), r.Uint(at, o.jiffies), r.Pointer(at, o.thread)
	progress := fmt.Sprint(n, state, jiffies)
	if thread != 0 {
		progress += fmt.Sprint(" ", r.Uint(thread, o.runtime))
		if r.Uint(thread, o.taskState) == 0 { // it waits for a processor, and may do so for long
			progress += fmt.Sprint(" ", r.U64(now))
		}
	}
	return n >> periodShift, progress, r.Err
}
