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

// namedAsKernels are findings about threads that a module had the kernel start and named as threads of the kernel's own
// are: a worker's function is the kernel's, whoever queues its work.
func (t *tasks) namedAsKernels(ctx context.Context, owners *linux.Owners) (fs []*Finding, err error) {
	reader := t.s.NewProcessReader()
	own, others := map[string]bool{}, map[virt.Addr]*linux.KernelThread{}
	for _, a := range slices.Sorted(maps.Keys(t.all)) {
		n := t.all[a]
		if n.flags&pfKthread == 0 || n.flags&pfExiting != 0 || ctx.Err() != nil {
			continue
		}
		k, failed := reader.KernelThreadOf(t.s.TaskAt(a))
		switch {
		case failed != nil:
			err = errors.Join(err, failed)
		case k == nil || k.Function == 0: // kthreadd, and what is just made a program
		case owners.OwnerAt(k.Function).Kind == linux.OwnerKernel:
			own[n.comm], own[stemOfThread(n.comm)] = true, true
		case owners.OwnerAt(k.Function).Kind == linux.OwnerModule:
			others[a] = k
		}
	}
	delete(own, "")
	for _, a := range slices.Sorted(maps.Keys(others)) {
		n, k := t.all[a], others[a]
		if !own[n.comm] && !own[stemOfThread(n.comm)] {
			continue
		}
		who := describeOwner(owners, k.Function)
		like := n.comm
		if !own[n.comm] {
			like = strings.TrimSuffix(stemOfThread(n.comm), "/")
		}
		fs = append(fs, &Finding{
			Confidence: Likely,
			Title:      fmt.Sprintf("kernel thread %d (%s) runs %s, and is named as threads of the kernel's own are", n.pid, n.comm, who),
			Object:     Object{Kind: "kernel thread", Name: n.comm, PID: n.pid, Addr: a},
			Aspect:     "module",
			Expected:   "threads named " + like + " run a function of the kernel itself",
			Seen:       fmt.Sprintf("%s (%#x)", who, uint64(k.Function)),
			Evidence:   []Evidence{{Text: "its task_struct", Addr: a}, {Text: "what it runs", Addr: k.Function}},
			Basis:      "the functions and names of all threads of the guest's kernel, at one look",
			Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(k.Function)),
		})
	}
	return fs, err
}
