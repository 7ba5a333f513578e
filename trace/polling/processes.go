package polling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/sched"
	"github.com/outsight-vmi/outsight/trace"
)

const (
	// renewed is for how long one view of the guest's direct map is believed, and for how long a
	// reboot can go unnoticed in which the list of tasks still holds together.
	renewed = time.Second
	// everyWalk is from one look at all tasks to the next while the kernel's counts of tasks and address
	// spaces do not change: nothing was forked or reaped, and no program was run. What no count shows is seen
	// then: changes of credentials, and processes that nobody reaps.
	everyWalk = time.Second
	// everyRights is from one look at the contents of credentials to the next: what replaces them is
	// seen at each look, what changes them where they lie only then.
	everyRights = time.Second
	// maxTorn is how often in a row the list of tasks may change under the look before that is an error.
	maxTorn = 20
)

// process is what is known of one process.
type process struct {
	sched.Sign
	is     *trace.Process // nil: it could not be read
	creds  trace.Rights
	sum    uint64    // of its rights
	ranAt  time.Time // when it was last seen to have run another program
	exited bool      // and an event has said so
	kernel bool      // a kernel thread: they come and go by themselves, and are no events
	fresh  bool      // it was not there at the look before
}

// processes is the part that sees processes begin, run another program, change who they act as,
// and end.
type processes struct {
	roster   *sched.Roster
	live     *linux.System // the guest as it is, not as a look keeps it
	made     time.Time     // the roster, and live
	known    []process     // in the order of the list
	primed   bool
	signs    []sched.Sign
	spare    []process
	judged   time.Time // rights
	walked   time.Time // the list
	before   time.Time // the same, the time before
	torn     int
	numbers  map[int32]int  // of known, by PID; nil until somebody asks
	index    map[key]int    // of known, while they are compared
	turnover sched.Turnover // at the last walk
	counted  sched.Turnover // at the last look
	calm     int            // looks since that changed
	balance  int64          // tasks that the kernel counted and no look has seen, less what was reported
	noCounts bool
	missed   unseen
}

func (p *processes) forget() { *p = processes{} }

// byPID is the process of that number; nil if there is none.
func (p *processes) byPID(pid int32) *trace.Process {
	if k := p.of(pid); k != nil {
		return k.is
	}
	return nil
}

// settled is byPID of a process that nothing has happened to since it was looked at.
func (p *processes) settled(pid int32) *trace.Process {
	k := p.of(pid)
	if k == nil || p.roster == nil {
		return nil
	}
	if now, err := p.roster.At(k.Task); err != nil || now != k.Sign {
		return nil
	}
	return k.is
}

func (p *processes) of(pid int32) *process {
	if p.numbers == nil {
		p.numbers = make(map[int32]int, len(p.known))
		for i := range p.known {
			p.numbers[p.known[i].PID] = i
		}
	}
	if i, ok := p.numbers[pid]; ok && i < len(p.known) {
		return &p.known[i]
	}
	return nil
}

func (p *processes) look(ctx context.Context, r *round) error {
	if p.roster == nil || r.at.Sub(p.made) >= renewed {
		if err := p.renew(ctx, r); err != nil {
			return err
		}
	}
	// Counted before the list is followed: what is counted is on the list by then.
	turnover, countErr := p.roster.Turnover()
	if countErr == nil && turnover.Spaces != 0 && turnover == p.counted {
		// The counts change when a fork or a program begins: that it has come to pass shows a little later.
		const settled = 3
		if p.calm++; p.calm >= settled && p.primed && r.at.Sub(p.walked) < everyWalk {
			return nil
		}
	} else {
		p.calm, p.counted = 0, turnover
	}
	signs, err := p.roster.Read(ctx, p.signs[:0])
	p.signs = signs
	if err != nil {
		return p.tear(ctx, r, err)
	}
	p.torn, p.before, p.walked = 0, p.walked, r.at
	if !p.primed {
		p.turnover, p.noCounts = turnover, countErr != nil
		return p.prime(ctx, r)
	}
	began := int64(0)
	if !p.same() {
		// Before anything is said of it: is this still the same kernel?
		if _, err := r.look(ctx); err != nil {
			return err
		}
		if began, err = p.compare(ctx, r); err != nil {
			return err
		}
	}
	if r.at.Sub(p.judged) >= everyRights {
		p.judged = r.at
		if err := p.checkRights(ctx, r); err != nil {
			return err
		}
	}
	if countErr == nil && !p.noCounts {
		p.count(r, turnover, began)
	}
	return nil
}

func (p *processes) renew(ctx context.Context, r *round) error {
	l, err := r.look(ctx)
	if err != nil {
		return err
	}
	if p.roster, err = sched.NewRoster(l.Linux); err != nil {
		return err
	}
	p.live, p.made = l.Linux.Over(l.Linux.Space.Live().Memory()), r.at
	return nil
}

// tear deals with a list that could not be followed: the guest changes it, or does not run any more.
func (p *processes) tear(ctx context.Context, r *round, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.roster = nil // and so the next look finds out
	if _, look := r.look(ctx); look != nil {
		return look
	}
	if p.torn++; p.torn < maxTorn && !errors.Is(err, kobj.ErrBudget) {
		return nil
	}
	return err
}

// same reports whether nothing happened since the look before.
func (p *processes) same() bool {
	if len(p.signs) != len(p.known) {
		return false
	}
	for i := range p.signs {
		if p.signs[i] != p.known[i].Sign {
			return false
		}
	}
	return true
}

// maxDescribed bounds what is read of the processes that are there at the first look. Those that
// begin later are all read.
const maxDescribed = 1 << 15

// prime takes what is there as it is.
func (p *processes) prime(ctx context.Context, r *round) error {
	l, err := r.look(ctx)
	if err != nil {
		return err
	}
	d := newDescriber(l, p)
	p.known = p.known[:0]
	for i, s := range p.signs {
		k := process{Sign: s, exited: s.Exited}
		if i < maxDescribed {
			k.is, _ = d.process(ctx, &k, false)
			k.creds = d.rights(ctx, s)
			k.sum, _ = p.roster.Rights(s.Cred)
		}
		p.known = append(p.known, k)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	p.numbers, p.judged, p.primed = nil, r.at, true
	return nil
}

// key distinguishes a process from all others of one boot. Its task_struct does not: one thread that
// runs another program takes the place of the first.
type key struct {
	pid  int32
	born time.Duration
}

func keyOf(s sched.Sign) key { return key{s.PID, s.Born} }

// compare makes events of what differs between signs and known, and makes known what signs are. It
// returns how many processes began.
func (p *processes) compare(ctx context.Context, r *round) (began int64, err error) {
	l, err := r.look(ctx)
	if err != nil {
		return 0, err
	}
	d := newDescriber(l, p)
	was, now := p.known, p.spare[:0]
	if p.index == nil {
		p.index = make(map[key]int, len(was))
	}
	clear(p.index)
	for i := range was {
		p.index[keyOf(was[i].Sign)] = i
	}
	for _, s := range p.signs {
		k := keyOf(s)
		if i, ok := p.index[k]; ok {
			delete(p.index, k) // what is left at the end is gone
			now = append(now, was[i])
			continue
		}
		now = append(now, process{Sign: s, fresh: true})
	}
	for i := range was {
		if _, gone := p.index[keyOf(was[i].Sign)]; gone {
			p.vanished(r, &was[i])
		}
	}
	p.known, p.spare, p.numbers = now, was[:0], nil
	for i := range now {
		k, s := &now[i], p.signs[i]
		switch {
		case k.fresh:
			k.fresh = false
			began++
			p.began(ctx, r, d, k)
		case k.Sign != s:
			p.changed(ctx, r, d, k, s)
		}
		if ctx.Err() != nil {
			return began, ctx.Err()
		}
	}
	return began, nil
}

// vanished is about a process that is no longer on the list.
func (p *processes) vanished(r *round, k *process) {
	if k.exited || k.kernel {
		return
	}
	now, err := p.roster.At(k.Task)
	if err == nil && keyOf(now) == keyOf(k.Sign) && !now.Exited {
		// A task has exit_state set before it is taken off the list.
		r.emit(trace.Event{
			Kind: trace.KindFinding, Process: k.is, TID: k.PID, Name: "hidden-process", Object: fmt.Sprintf("task_struct %#x", uint64(k.Task)),
			Note: "taken off the list of tasks without having ended: hidden from what lists processes",
		})
		return
	}
	if err != nil || keyOf(now) != keyOf(k.Sign) {
		now = sched.Sign{}
	}
	p.exit(r, k, now)
}

// exit reports the end of k. now is its sign at the end; zero if it is not known.
func (p *processes) exit(r *round, k *process, now sched.Sign) {
	e := trace.Event{Kind: trace.KindExit, Process: k.is, TID: k.PID}
	if now.Exited {
		e.End(now.Status)
	}
	k.exited = true
	r.emit(e)
}

// began is about a process that was not there before.
func (p *processes) began(ctx context.Context, r *round, d *describer, k *process) {
	s := k.Sign
	is, ran := d.process(ctx, k, true)
	k.is, k.creds = is, d.rights(ctx, s)
	k.sum, _ = p.roster.Rights(s.Cred)
	if s.Execs != s.Inherited {
		k.ranAt = r.at
	}
	if k.kernel {
		return
	}
	born := trace.Event{Kind: trace.KindFork, Process: is, TID: s.PID, Guest: d.l.Linux.WallClock(s.Born)}
	if parent := p.of(is.PPID); parent != nil && parent.is != nil {
		born.Object = fmt.Sprintf("by %s (%d)", parent.is.Comm, parent.PID)
	}
	r.emit(born)
	// A child has its parent's count, and remembers it.
	if s.Execs != s.Inherited && ran != nil {
		r.emit(*ran)
	}
	if parent := p.of(is.PPID); !r.s.o.Beside && parent != nil && k.creds.RootBy(parent.creds) {
		r.emit(credsEvent(k, parent.creds, k.creds, ranSinceFork(s, parent.Sign)))
	}
	if s.Exited && p.over(ctx, d, s) {
		p.exit(r, k, s)
	}
}

// changed is about a process that was there before, and has another sign now.
func (p *processes) changed(ctx context.Context, r *round, d *describer, k *process, now sched.Sign) {
	was := k.Sign
	k.Sign = now
	ran := now.Execs != was.Execs || now.MM != was.MM && now.MM != 0 && was.MM != 0
	if ran {
		k.ranAt = r.at
		is, e := d.process(ctx, k, true)
		if k.is = is; e != nil {
			if n := now.Execs - was.Execs; n > 1 && n < 1<<20 {
				e.Note = fmt.Sprintf("%d programs before it were too short to be seen", n-1)
			}
			r.emit(*e)
		}
	}
	if now.Cred != was.Cred || ran { // new ones can lie where older ones did
		p.checkRightsOf(ctx, r, d, k, p.ran(r, k, ran), true)
	}
	if now.Exited && !k.exited && !k.kernel {
		if !p.over(ctx, d, now) {
			k.Exited = false // so that it is looked at again
			return
		}
		p.exit(r, k, now)
	}
}

// over reports whether the process of s has ended, of which the first thread has: others may go on.
func (p *processes) over(ctx context.Context, d *describer, s sched.Sign) bool {
	for t, err := range d.l.Linux.TaskAt(s.Task).Threads(ctx) {
		if err == nil && t.Addr != s.Task {
			return false
		}
	}
	return true
}

// checkRights compares the contents of all credentials.
func (p *processes) checkRights(ctx context.Context, r *round) error {
	for i := range p.known {
		k := &p.known[i]
		if k.exited || !k.creds.Known {
			continue
		}
		sum, err := p.roster.Rights(k.Cred)
		if err != nil || sum == k.sum {
			continue
		}
		if now, err := p.roster.At(k.Task); err != nil || now != k.Sign {
			continue // the next look deals with that
		}
		l, err := r.look(ctx)
		if err != nil {
			return err
		}
		p.checkRightsOf(ctx, r, newDescriber(l, p), k, p.ran(r, k, false), false)
	}
	return nil
}

// ranSinceFork says whether a process that was not there before has run a program since it was forked by the one that is its parent
// now. That may be another than the one that forked it: the child of a sudo that has ended can be systemd --user's.
func ranSinceFork(child, parent sched.Sign) trace.Ran {
	switch {
	case child.Execs != child.Inherited:
		return trace.RanProgram
	case child.Inherited != 0 && child.Inherited == parent.Execs:
		return trace.RanNone
	}
	return trace.RanUnknown
}

// ran says whether k ran another program, which may have changed its credentials; now says that this look has seen it do so. The kernel
// counts the program first (begin_new_exec), and commits the credentials a moment later, when the look may be over.
func (p *processes) ran(r *round, k *process, now bool) trace.Ran {
	const soon = 200 * time.Millisecond // of a guest that has little time to run
	switch {
	case now:
		return trace.RanProgram
	case !k.ranAt.IsZero() && (!k.ranAt.Before(p.before) || r.at.Sub(k.ranAt) < soon):
		return trace.RanUnknown
	case p.roster != nil:
		// A task that changes while it is read can have the new credentials and the old count.
		if s, err := p.roster.At(k.Task); err != nil || s.Execs != k.Execs || s.MM != 0 && s.MM != k.MM {
			return trace.RanUnknown
		}
	}
	return trace.RanNone
}

// checkRightsOf reports how the credentials of k differ from those that it had. ran says whether it ran
// another program, which may have given it some; others that it has others, not the same with other contents.
func (p *processes) checkRightsOf(ctx context.Context, r *round, d *describer, k *process, ran trace.Ran, others bool) {
	now := d.rights(ctx, k.Sign)
	sum, err := p.roster.Rights(k.Cred)
	if !now.Known || err != nil {
		return
	}
	was := k.creds
	k.creds, k.sum = now, sum
	if !was.Known || was == now || k.kernel {
		return
	}
	if k.is != nil && k.is.UID != now.UID {
		is := *k.is
		is.UID = now.UID
		k.is = &is
	}
	if !r.s.o.Beside || !others {
		r.emit(credsEvent(k, was, now, ran))
	}
}

// count reports the tasks that the kernel counted and no look saw. began is how many processes this
// one saw begin.
func (p *processes) count(r *round, now sched.Turnover, began int64) {
	defer p.missed.tell(r)
	was := p.turnover
	p.turnover = now
	threads := (now.Tasks - now.Processes) - (was.Tasks - was.Processes)
	forks := now.Forks - was.Forks
	if most := uint64(1 << 30); forks > most || threads > int64(most) { // of a kernel that boots
		return
	}
	if k := r.s.kinds; k != nil && !k[trace.KindFork] && !k[trace.KindExec] && !k[trace.KindExit] {
		return // another source sees processes, or nobody asked for them
	}
	p.balance += int64(forks) - began - max(threads, 0)
	// A look may see what was counted after it had read the counts: then the balance is negative for now.
	if p.balance > 0 {
		p.missed.add(uint64(p.balance), "process or thread", "processes or threads")
		p.balance = 0
	}
}
