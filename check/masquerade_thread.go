package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// pfWorker is PF_WQ_WORKER: the thread serves workqueues.
const pfWorker = 0x20

// kernelThread is a thread of the kernel's, and whose function it runs.
type kernelThread struct {
	*task
	of       *linux.KernelThread
	runs     linux.Owner // the function
	ownFiles bool        // it has open files of its own, or that is not known
}

// threadsOfKernel reads the threads of the kernel, in the order of their addresses.
func (t *tasks) threadsOfKernel(ctx context.Context, owners *linux.Owners) (all []kernelThread, err error) {
	reader := t.s.NewProcessReader()
	files, unknown := t.s.Member("task_struct", "files")
	r := t.s.Reader()
	var kernels virt.Addr
	if unknown == nil {
		kernels = r.Pointer(t.init, files)
	}
	for _, a := range slices.Sorted(maps.Keys(t.all)) {
		n := t.all[a]
		if n.flags&pfKthread == 0 || ctx.Err() != nil {
			continue
		}
		k, failed := reader.KernelThreadOf(t.s.TaskAt(a))
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		if k == nil { // just made a program
			continue
		}
		r.Err = nil
		its := kernelThread{task: n, of: k, ownFiles: kernels == 0 || r.Pointer(a, files) != kernels || r.Err != nil}
		if k.Function != 0 {
			its.runs = owners.CodeAt(k.Function)
		}
		all = append(all, its)
	}
	return all, err
}

// namesAsGiven reports whether a function of the kernel's runs under names that a module may have given: rescuers have that of their
// workqueue (up to 6.5 that alone: bcache has a workqueue and a thread bcache_gc), kthread workers that which their maker wants.
func (k *kernelThread) namesAsGiven() bool {
	return k.of.Worker != nil && k.of.Worker.Rescuer || k.isOf("rescuer_thread") || k.isOf("kthread_worker_fn")
}

// isOf reports whether it runs that function of the kernel's; compilers append to the names of some.
func (k *kernelThread) isOf(function string) bool {
	name, _, _ := strings.Cut(k.runs.Symbol, ".")
	return k.runs.Kind == linux.OwnerKernel && name == function && k.runs.Offset == 0
}

const (
	workerStem  = "kworker/"
	rescuerStem = "kworker/R-" // 6.6
)

// wrong says what a thread should be, and is not, by its name or by what all threads have; empty if there is nothing.
func (k *kernelThread) wrong() (aspect, expected, seen string) {
	const kthreadd = 2 // its process, the one thread that no other thread made
	switch {
	case k.of.Function == 0:
		// What runs a program for the kernel has no function either until it does so (up to 5.18 with the flag of a kernel thread), and
		// files of its own. Processes 0 and 1 are that of the processors and init while the kernel starts.
		if k.pid > kthreadd && !k.ownFiles {
			return "no function", "threads of the kernel run a function that they were made for (kthread.threadfn)", "none"
		}
	case k.runs.Kind != linux.OwnerKernel || k.runs.Symbol == "" || !strings.HasPrefix(k.comm, workerStem):
	default:
		function := "worker_thread"
		if strings.HasPrefix(k.comm, rescuerStem) {
			function = "rescuer_thread"
		}
		if !k.isOf(function) {
			return "worker", "threads named " + workerStem + " run " + function, k.runs.Function()
		}
		if k.flags&pfWorker == 0 {
			return "worker", "threads named " + workerStem + " have the flag PF_WQ_WORKER", fmt.Sprintf("flags %#x", k.flags)
		}
	}
	return "", "", ""
}

// namedAsKernels are findings about threads that a module had the kernel start and named as threads of the kernel's own
// are: a worker's function is the kernel's, whoever queues its work. A module that somebody vouches for names its threads as it likes.
func (t *tasks) namedAsKernels(ctx context.Context, s *Subject, owners *linux.Owners) (fs []*Finding, err error) {
	all, err := t.threadsOfKernel(ctx, owners)
	own := ownNames(all)
	for i := range all {
		k := &all[i]
		if aspect, expected, seen := k.wrong(); aspect != "" {
			f := k.finding(aspect, expected, seen)
			switch {
			case aspect == "worker" && k.flags&pfWorker == 0:
				f.Title = fmt.Sprintf("kernel thread %d (%s) runs %s and serves no workqueue, and is named as those that do", k.pid, k.comm, k.runs.Function())
			case aspect == "worker":
				f.Title = fmt.Sprintf("kernel thread %d (%s) runs %s, and is named as those that serve workqueues", k.pid, k.comm, k.runs.Function())
			default:
				f.Title = fmt.Sprintf("kernel thread %d (%s) has no function that it was made for", k.pid, k.comm)
				f.Severity, f.Confidence = Medium, Possible
			}
			fs = append(fs, f)
			continue
		}
		if k.runs.Kind != linux.OwnerModule || !own[k.comm] && !own[stemOfThread(k.comm)] {
			continue
		}
		if st, _ := s.standingOf(ctx, k.runs.Name); st.vouched {
			continue
		}
		like := k.comm
		if !own[k.comm] {
			like = strings.TrimSuffix(stemOfThread(k.comm), "/")
		}
		who := describeOwner(owners, k.of.Function)
		f := k.finding("module", "threads named "+like+" run a function of the kernel itself", who)
		f.Title = fmt.Sprintf("kernel thread %d (%s) runs %s, and is named as threads of the kernel's own are", k.pid, k.comm, who)
		f.Seen = fmt.Sprintf("%s (%#x)", who, uint64(k.of.Function))
		fs = append(fs, f)
	}
	return fs, err
}

// ownNames are the names of threads that run functions of the kernel's own, and of those with a slash what is in front of it.
func ownNames(all []kernelThread) map[string]bool {
	own := map[string]bool{}
	for i := range all {
		if k := &all[i]; k.runs.Kind == linux.OwnerKernel && !k.namesAsGiven() {
			own[k.comm], own[stemOfThread(k.comm)] = true, true
		}
	}
	delete(own, "")
	return own
}

// finding is one about the thread. What is found of one that exits, which takes no time, counts if it goes on to do so: the flag is one bit.
func (k *kernelThread) finding(aspect, expected, seen string) *Finding {
	f := &Finding{
		Confidence: Likely,
		Object:     Object{Kind: "kernel thread", Name: k.comm, PID: k.pid, Addr: k.addr},
		Aspect:     aspect,
		Expected:   expected,
		Seen:       seen,
		Evidence:   []Evidence{{Text: "its task_struct", Addr: k.addr}},
		Basis:      "the functions and names of all threads of the guest's kernel, at one look",
		Show:       fmt.Sprintf("outsight struct {} task_struct %#x", uint64(k.addr)),
		Busy:       k.flags&pfExiting != 0,
	}
	if k.of.Function != 0 {
		f.Evidence = append(f.Evidence, Evidence{Text: "what it runs", Addr: k.of.Function})
		f.Show = fmt.Sprintf("outsight disassemble {} %#x", uint64(k.of.Function))
	}
	return f
}
