package check

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "masquerade",
		Title:     "Programs, and threads of modules, that pass for threads of the kernel",
		Severity:  High,
		Technique: "T1036.004", // Masquerading: Masquerade Task or Service
		Source:    "task_struct.comm, flags and real_parent, the arguments of processes, and the names and functions (kthread.threadfn) of the kernel's own threads",
		Proves: `A process that runs a program calls itself as threads of the kernel are called, so that who reads the output of ps passes over it: by the name of one, by an argument in
brackets, or by the flag of a kernel thread. Threads of the kernel have no program, and are children of kthreadd. Or a module that nobody vouches for has the kernel run a thread of its own under the name of one of the kernel's,
such as kworker/0:3: workers run a function of the kernel itself, whoever queues their work. Or a thread named kworker/ does not run worker_thread (rescuer_thread, if it is named kworker/R-) or lacks the flag of those
that serve workqueues. Or a thread of the kernel has no function (severity medium, confidence possible): kthread() notes it before the thread runs.`,
		Blind: `A program that calls itself like another program; a module's thread that has the name of another module's, of a workqueue or of a kthread worker, as modules
give those names themselves; a thread without a function that has open files of its own, as one has that runs a program for the kernel next. One whose file has the name that it shows is not found by its name.`,
		Next: `Look at its program, parent, files and sockets: "outsight ps TARGET --pid PID -o json", and the views tree, files and sockets. "outsight extract TARGET --pid PID -o FILE" takes it out.`,
		Example: `A backdoor named itself as a worker of the kernel:

    $ outsight check lab:demo --only masquerade
    SEVERITY  CONFIDENCE  CHECK       TITLE
    high      likely      masquerade  process 431 (kworker/0:3) runs /usr/lib/x and is named as threads of the kernel are

A module had the kernel start a thread of its own by such a name:

    high      likely      masquerade  kernel thread 512 (kworker/u9:7) runs idle_ of [strange], and is named as threads of the kernel's own are
    high      likely      masquerade  kernel thread 513 (kworker/0:3) runs kthread_worker_fn and serves no workqueue, and is named as those that do`,
		Kept: true,
		Run:  masquerades,
	})
}

func masquerades(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		ps, err := s.Programs()
		if err != nil {
			yield(nil, err)
			return
		}
		names, err := ts.kernelNames()
		if err != nil && !yield(nil, err) {
			return
		}
		for _, p := range ps.all {
			if f := p.masquerade(names); f != nil && !yield(f, nil) {
				return
			}
		}
		fs, err := ts.strayThreads()
		owners, missing := s.Owners()
		if missing == nil {
			var named []*Finding
			named, missing = ts.namedAsKernels(ctx, s, owners)
			fs = append(fs, named...)
		}
		for _, f := range fs {
			if !yield(f, nil) {
				return
			}
		}
		if err = errors.Join(err, missing); err != nil {
			yield(nil, err)
		}
	}
}

// kernelNames are the names of the kernel's threads, and of those with a slash what is in
// front of it: kworker/ names many. A child of a program does not give its name to them by its flag alone.
func (t *tasks) kernelNames() (map[string]bool, error) {
	parent, err := t.s.Member("task_struct", "real_parent")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	names := map[string]bool{}
	for a, n := range t.all {
		if n.flags&pfKthread != 0 && t.programAbove(a, parent) == nil {
			names[n.comm] = true
			names[stemOfThread(n.comm)] = true
		}
	}
	delete(names, "")
	return names, nil
}

// programAbove is the program that the task at a is a child of; nil if there is none. What cannot be followed
// hidden-process reports.
func (t *tasks) programAbove(a virt.Addr, parent kobj.Field) *task {
	t.r.Err = nil
	above := t.r.Pointer(a, parent)
	of := t.all[above]
	if t.r.Err != nil || above == t.init || of == nil || of.flags&pfKthread != 0 {
		return nil
	}
	return of
}

// stemOfThread is "kworker/" of "kworker/0:1"; empty of a name without a slash.
func stemOfThread(name string) string {
	stem, _, ok := strings.Cut(name, "/")
	if !ok {
		return ""
	}
	return stem + "/"
}

// masquerade is the finding about a program that has a name of the kernel's threads; nil if
// it has not.
func (p *program) masquerade(kernel map[string]bool) *Finding {
	ofThread := func(name string) bool { return kernel[name] || kernel[stemOfThread(name)] }
	of := path.Base(p.Exe)
	inner, bracketed := strings.CutPrefix(strings.TrimSpace(p.arg0()), "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	f := p.finding("runs "+p.Exe+" and is named as threads of the kernel are", Likely)
	f.Expected = "names of threads of the kernel are those of threads without a program"
	f.Show = fmt.Sprintf("outsight ps {} --where 'pid == %d' -o json", p.PID)
	f.Aspect = "name"
	switch {
	case bracketed && ofThread(inner), ofThread(p.arg0()) && p.arg0() != of:
		f.Seen = fmt.Sprintf("its first argument is %q", p.arg0())
	case p.Comm != of[:min(len(of), commSize-1)] && ofThread(p.Comm):
		f.Seen = fmt.Sprintf("its name is %q", p.Comm)
	case bracketed && inner != "" && len(p.Args) == 1 && !strings.Contains(inner, " "):
		f.Severity, f.Confidence = Medium, Possible
		f.Seen = fmt.Sprintf("its one argument is %q", p.arg0())
	default:
		return nil
	}
	return f
}

// strayThreads are findings about tasks with the flag of a kernel thread that are children of
// a program. What runs a program for the kernel has the flag until it does, and is a child of
// one of the kernel's threads.
func (t *tasks) strayThreads() (fs []*Finding, err error) {
	parent, err := t.s.Member("task_struct", "real_parent")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", kobj.ErrUnsupported, err)
	}
	for _, a := range slices.Sorted(maps.Keys(t.all)) {
		n := t.all[a]
		if n.flags&pfKthread == 0 {
			continue
		}
		of := t.programAbove(a, parent)
		if of == nil {
			continue
		}
		fs = append(fs, &Finding{
			Confidence: Likely,
			Title:      fmt.Sprintf("task %d (%s) has the flag of a kernel thread, and is a child of process %d (%s)", n.pid, n.comm, of.pid, of.comm),
			Object:     Object{Kind: "process", Name: n.comm, PID: n.pid, Addr: a},
			Aspect:     "flag",
			Expected:   "threads of the kernel are children of kthreadd",
			Seen:       fmt.Sprintf("PF_KTHREAD, child of %d", of.pid),
			Evidence:   []Evidence{{Text: "its task_struct", Addr: a}, {Text: "its parent's", Addr: of.addr}},
			Basis:      "structures of the guest's kernel, compared with each other at one look",
			Show:       fmt.Sprintf("outsight struct {} task_struct %#x", uint64(a)),
			Busy:       n.flags&pfExiting != 0,
		})
	}
	return fs, nil
}
