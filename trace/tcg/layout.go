package tcg

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// layout is where programs find what they need of the kernel.
type layout struct {
	current   uint64 // from a CPU's GS base to its current task
	pid, tgid uint32 // in task_struct
	stack     uint32
	started   uint32
	regs      uint64 // from the bottom of a kernel stack to the registers that the entry code saved
	returns   []virt.Addr
	swtch     virt.Addr   // __switch_to; 0: not found
	nested    bool        // the guest runs guests of its own
	migrate   virt.Addr   // set_task_cpu(task, cpu); 0: there is one CPU
	denied    []virt.Addr // where seccomp's judgement returns
	refused   []virt.Addr // where ENOSYS is written: there is no call of that number
	exits     []virt.Addr // where the kernel's part of a call ends, for answers
}

type taskLayout struct{ pid, tgid, stack, started uint32 }

const ptRegs = 168 // bytes: r15 to ss, unchanged since 2.6

func layoutOf(ctx context.Context, l *guest.Look) (o layout, err error) {
	s := l.Linux
	t, err := kobj.LayoutOf(s.Walker, "system calls", func(r *kobj.Resolver, o *taskLayout) {
		o.pid, o.tgid, o.stack = r.Offset("task_struct", "pid"), r.Offset("task_struct", "tgid"), r.Offset("task_struct", "stack")
		o.started = r.Offset("task_struct", "start_boottime", "real_start_time") // renamed in 5.5
	})
	if err != nil {
		return o, err
	}
	o.pid, o.tgid, o.stack, o.started = t.pid, t.tgid, t.stack, t.started
	if o.current, err = currentTask(s); err != nil {
		return o, err
	}
	o.regs = stackSize(s) - ptRegs
	if _, fred := s.Symbol("asm_fred_entrypoint_user"); fred {
		o.regs -= 16 // TOP_OF_KERNEL_STACK_PADDING with CONFIG_X86_FRED, since 6.9
	}
	owners, err := s.Owners()
	if err != nil {
		return o, fmt.Errorf("find where system calls return: %w", err)
	}
	if o.returns, err = returnSites(s, owners); err != nil {
		return o, fmt.Errorf("find where system calls return: %w", err)
	}
	if s.CPUs() > 1 {
		o.migrate, _ = s.Address("set_task_cpu")
	}
	o.swtch, _ = s.Address("__switch_to")
	o.nested = runsGuests(ctx, s)
	o.refused = refusedSites(s, owners)
	o.denied = deniedAt(s, owners)
	o.exits = exitSites(s, owners)
	return o, nil
}

// runsGuests says whether the guest has a hypervisor loaded: QEMU's TCG emulates AMD's extensions for one alone.
func runsGuests(ctx context.Context, s *linux.System) bool {
	if _, ok := s.Symbol("__svm_vcpu_run"); ok {
		return true
	}
	for m, err := range s.Modules(ctx) {
		if err != nil || m.Name == "kvm_amd" {
			return true
		}
	}
	return false
}

// currentTask is how far from a CPU's GS base its pointer to the current task lies.
func currentTask(s *linux.System) (uint64, error) {
	a, err := s.CurrentAt(0)
	if err != nil {
		return 0, fmt.Errorf("current task: %w", err)
	}
	return uint64(a - s.CPUAreas[0]), nil
}

// stackSize is the size of a kernel stack: that of init's, which lies between two symbols.
func stackSize(s *linux.System) uint64 {
	from, ok1 := s.Address("init_stack")
	to, ok2 := s.Address("__end_init_stack")
	if !ok1 {
		from, ok1 = s.Address("__start_init_stack")
	}
	if !ok2 {
		to, ok2 = s.Address("__end_init_task")
	}
	if size := uint64(to - from); ok1 && ok2 && (size == 16<<10 || size == 32<<10 || size == 8<<10) {
		return size
	}
	// THREAD_SIZE of amd64 since 3.15; KASAN doubles it, and has symbols of its own.
	if _, kasan := s.Address("kasan_init"); kasan {
		return 32 << 10
	}
	return 16 << 10
}

// windows are what programs read memory through, and the virtual ranges that map it in one piece.
func windows(l *guest.Look) (ws []plugin.Window, linears []plugin.Linear) {
	ws = addrspace.Windows(l.Machine.Memory)
	var end uint64
	for _, w := range ws {
		end = max(end, uint64(w.Range.End))
	}
	if base := l.Linux.Space.DirectBase(); base != 0 && end > 0 {
		linears = append(linears, plugin.Linear{Address: uint64(base), Size: end})
	}
	return ws, linears
}
