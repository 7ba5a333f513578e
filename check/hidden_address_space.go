package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-address-space",
		Title:     "Processes that run, and that the kernel's lists leave out",
		Severity:  High,
		Technique: "T1564", // Hide Artifacts
		Source: `every load of CR3 while outsight listens (--listen), against the page tables (mm_struct.pgd) of the tasks that init_task.tasks and init_pid_ns.idr lead to, at several looks
meanwhile`,
		Proves: `An address space ran before and after a look at the guest, again and again, and at none of these looks a process had it that is on the list of tasks, or among the PID structures that
/proc goes by. What runs has to be loaded into CR3, whatever the kernel's lists say: nothing in the guest's memory is believed for that.`,
		Blind: `What did not run while outsight listened, and what runs in the address space of a process that is listed: a thread, or code that was injected. Processes that came or went in that time are
there at too few looks to be judged. What runs in the kernel alone has no address space of its own.`,
		Next: `The finding names the process by the task that ran there, and how much it ran. "outsight struct TARGET task_struct ADDRESS" shows it; hidden-process says which of the kernel's lists have it. Listen longer for
what runs seldom.`,
		Example: `A rootkit takes a process off the list of tasks and off the PID structures. It runs on, and outsight listens (docs/tracing.md says what QEMU needs for that):

    $ outsight check lab:demo --listen 10s --only hidden-address-space
    SEVERITY  CONFIDENCE  CHECK                 TITLE
    high      certain     hidden-address-space  process 412 (miner) ran for 0.21 % of the time, and is missing from the task list and the PID structures`,
		Listens: true,
		Run:     hiddenAddressSpaces,
	})
}

// errNotWatched says that there is nothing to compare with.
var errNotWatched = errors.New("nobody watched which address spaces run (--listen)")

// WithAddressSpaces compares with the address spaces that were seen to run.
func WithAddressSpaces(w *addrspace.Watched) Option { return func(o *options) { o.spaces = w } }

func hiddenAddressSpaces(_ context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		w := s.spaces
		switch {
		case w == nil:
			yield(nil, errNotWatched)
			return
		case w.Boot != s.Boot:
			yield(nil, fmt.Errorf("address spaces that ran: %w", rebooted(s.Target)))
			return
		case w.Lost > 0 && !yield(nil, fmt.Errorf("address spaces that ran: %w: the guest is too busy; listen for less time", errLost)):
			return
		}
		if len(w.Unlisted) == 0 {
			return
		}
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		roots, err := ts.roots(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		for i := range w.Unlisted {
			u := &w.Unlisted[i]
			owner, ok := roots[u.Root]
			if !ok {
				owner = roots[u.Partner]
			}
			f := s.unlisted(w, u, owner)
			if f != nil && !yield(f, nil) {
				return
			}
		}
	}
}

// unlisted is the finding about a space; nil if now is listed what has it.
func (s *Subject) unlisted(w *addrspace.Watched, u *addrspace.Unlisted, owner rootOwner) *Finding {
	missing := (viaList | viaPIDs) &^ owner.via
	if missing == 0 {
		return nil // it was put back
	}
	f := &Finding{
		Confidence: Certain,
		Object:     Object{Kind: "address space", Addr: virt.Addr(u.Root)},
		Aspect:     missing.String(),
		Expected:   "a process that has it in " + (viaList | viaPIDs).String(),
		Seen:       "missing from " + missing.String(),
		Basis:      "loads of CR3, which the guest cannot go around, compared with the lists of its kernel",
		Show:       fmt.Sprintf("outsight read {} --physical %#x", u.Root),
	}
	name, pid, task := u.Owner.Comm, u.Owner.PID, virt.Addr(u.Owner.Task)
	if owner.task != nil {
		name, pid, task = owner.task.comm, owner.task.tgid, owner.task.addr
	}
	what := fmt.Sprintf("an address space with its root at %#x", u.Root)
	if pid != 0 {
		f.Object = Object{Kind: "process", Name: name, PID: pid, Addr: task}
		f.Show = fmt.Sprintf("outsight struct {} task_struct %#x", uint64(task))
		what = fmt.Sprintf("process %d (%s)", pid, name)
	}
	f.Title = fmt.Sprintf("%s ran for %.2g %% of the time, and is missing from %s", what, 100*u.Share, missing)
	f.Evidence = []Evidence{
		{Text: fmt.Sprintf("the root of its page tables, guest-physical: it was loaded %s in %v, and ran for %v", plural(int(min(u.Turns, 1<<40)), "time"), w.Took.Round(100*time.Millisecond), u.CPU.Round(10*time.Microsecond)), Addr: virt.Addr(u.Root)},
		{Text: fmt.Sprintf("at %s during which it was there, no process on the task list had it at %d, and none of the PID structures at %d; by accident with a probability of less than %.1g", plural(u.Looks, "look"), u.NoTask, u.NoPID, u.P)},
	}
	if f.nextAddr = task; task != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "the task_struct that ran there", Addr: task})
	}
	return f
}

// rootOwner is who has a root of page tables: one of the tasks, and the ways that lead to any of them.
type rootOwner struct {
	task *task
	via  via
}

type mmLayout struct{ mm, pgd kobj.Field }

// roots are the owners of all page tables of processes, by the guest-physical address of the root.
// They are read at the look of s: the tasks may have been read at an earlier one, if they are the same.
func (t *tasks) roots(s *linux.System) (map[uint64]rootOwner, error) {
	o, err := kobj.LayoutOf(s.Walker, "page tables of tasks", func(r *kobj.Resolver, o *mmLayout) {
		o.mm, o.pgd = r.Field("task_struct", "mm"), r.Field("mm_struct", "pgd")
	})
	if err != nil {
		return nil, err
	}
	all := map[uint64]rootOwner{}
	r := s.Reader()
	for _, n := range t.all {
		r.Err = nil
		mm := r.Pointer(n.addr, o.mm)
		if mm == 0 || r.Err != nil {
			continue
		}
		page, err := s.Space.Translate(r.Pointer(mm, o.pgd))
		if err != nil || r.Err != nil {
			continue // it ends
		}
		was := all[uint64(page.PA)]
		was.via |= n.via
		if was.task == nil || n.leads() {
			was.task = n
		}
		all[uint64(page.PA)] = was
	}
	return all, nil
}
