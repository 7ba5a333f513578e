package sched

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Interrupt is an interrupt line, or a software interrupt of the kernel's.
type Interrupt struct {
	Number   int
	Soft     bool
	Address  virt.Addr // of the struct irq_desc, or softirq_action
	Hardware uint64    // number at its controller
	Chip     string    // the controller
	Flow     string    // edge, level and the like
	FlowFunc virt.Addr // that receives it (handle_irq)
	Counts   []uint64  // on each possible processor
	Depth    uint32    // how many times it was disabled; 0: enabled
	Actions  []InterruptAction
}

// InterruptAction is one driver's part in an interrupt.
type InterruptAction struct {
	Name    string
	Handler virt.Addr
	Thread  virt.Addr // function that a thread of its own runs; 0 without one
	TID     int32     // that thread
	Shared  bool
	Address virt.Addr // of the struct irqaction
}

type irqLayout struct {
	number, hwirq, chip, flow, name, counts, actions, depth kobj.Field
	chipName                                                kobj.Field
	handler, thread, threadFn, actionName, flags, next      kobj.Field
	softirqs, softAction, tid                               kobj.Field
	softStride                                              uint32
}

func irqLayoutOf(s *linux.System) (*irqLayout, error) {
	return kobj.LayoutOf(s.Walker, "interrupts", func(r *kobj.Resolver, o *irqLayout) {
		r.Prefetch("irq_desc_tree", "sparse_irqs", "kstat", "softirq_vec")
		const d, a = "irq_desc", "irqaction"
		o.number, o.hwirq, o.chip = r.Field(d, "irq_data.irq"), r.Field(d, "irq_data.hwirq"), r.Field(d, "irq_data.chip")
		o.flow, o.name, o.counts = r.Field(d, "handle_irq"), r.Field(d, "name"), r.Field(d, "kstat_irqs")
		o.actions, o.depth, o.chipName = r.Field(d, "action"), r.Field(d, "depth"), r.Field("irq_chip", "name")
		o.handler, o.thread, o.threadFn = r.Field(a, "handler"), r.Field(a, "thread"), r.Field(a, "thread_fn")
		o.tid = r.Field("task_struct", "pid")
		o.actionName, o.flags, o.next = r.Field(a, "name"), r.Field(a, "flags"), r.Field(a, "next")
		o.softirqs, o.softAction = r.Optional("kernel_stat", "softirqs"), r.Optional("softirq_action", "action")
		o.softStride, _ = r.Profile.StructSize("softirq_action")
	})
}

const (
	maxIRQs       = 1 << 16
	maxIRQActions = 1 << 10 // on one line
)

// Interrupts yields the interrupt lines that are set up, by number, and then the
// kernel's software interrupts. A line without actions is unused.
func Interrupts(ctx context.Context, s *linux.System) iter.Seq2[*Interrupt, error] {
	return func(yield func(*Interrupt, error) bool) {
		o, err := irqLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		for a, err := range irqDescriptors(ctx, s) {
			var i *Interrupt
			if err == nil {
				i, err = interrupt(s, o, a)
			}
			if !yield(i, err) {
				return
			}
		}
		softIRQs(s, o, yield)
	}
}

// irqDescriptors is where each struct irq_desc lies: in a radix tree, since 6.5 in a
// maple tree.
func irqDescriptors(ctx context.Context, s *linux.System) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		if root, ok := s.Address("sparse_irqs"); ok {
			for e, err := range s.Maple(ctx, root, maxIRQs) {
				if !yield(e.Value, err) {
					return
				}
			}
			return
		}
		root, err := s.SymbolAddr("irq_desc_tree")
		if err != nil {
			yield(0, fmt.Errorf("interrupts: %w: %w", kobj.ErrUnsupported, err)) // without CONFIG_SPARSE_IRQ
			return
		}
		for e, err := range s.XArray(ctx, root, maxIRQs) {
			if !yield(e.Value, err) {
				return
			}
		}
	}
}

func interrupt(s *linux.System, o *irqLayout, a virt.Addr) (*Interrupt, error) {
	i := &Interrupt{Address: a}
	r := s.Reader()
	i.Number, i.Hardware = int(r.Uint(a, o.number)), r.Uint(a, o.hwirq)
	i.FlowFunc, i.Depth = r.Pointer(a, o.flow), uint32(r.Uint(a, o.depth))
	if chip := r.Pointer(a, o.chip); chip != 0 {
		if name := r.Pointer(chip, o.chipName); name != 0 {
			i.Chip = r.CString(name, 64)
		}
	}
	if name := r.Pointer(a, o.name); name != 0 {
		i.Flow = r.CString(name, 64)
	}
	if counts := r.Pointer(a, o.counts); counts != 0 {
		for _, cpu := range s.CPUAreas {
			i.Counts = append(i.Counts, uint64(r.U32(counts+cpu)))
		}
	}
	if i.Actions = o.actionsAt(&r, r.Pointer(a, o.actions)); r.Err != nil {
		return nil, fmt.Errorf("interrupt at %#x: %w", uint64(a), r.Err)
	}
	return i, nil
}

// actionsAt follows the list of struct irqaction that begins at a; an error stays in r.
func (o *irqLayout) actionsAt(r *kobj.Reader, a virt.Addr) (actions []InterruptAction) {
	const shared = 0x80 // IRQF_SHARED
	for ; a != 0 && r.Err == nil; a = r.Pointer(a, o.next) {
		if len(actions) == maxIRQActions {
			r.Err = fmt.Errorf("%w: more than %d actions", kobj.ErrBroken, maxIRQActions)
			break
		}
		act := InterruptAction{Address: a, Handler: r.Pointer(a, o.handler), Thread: r.Pointer(a, o.threadFn), Shared: r.Uint(a, o.flags)&shared != 0}
		if name := r.Pointer(a, o.actionName); name != 0 {
			act.Name = r.CString(name, 256)
		}
		if t := r.Pointer(a, o.thread); t != 0 {
			act.TID = int32(r.Int(t, o.tid))
		}
		actions = append(actions, act)
	}
	return actions
}

// softIRQs yields the software interrupts, whose names have not changed since 4.x
// (softirq_to_name).
func softIRQs(s *linux.System, o *irqLayout, yield func(*Interrupt, error) bool) {
	names := [...]string{"HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"}
	table, ok := s.Address("softirq_vec")
	if !ok || !o.softirqs.Present() || !o.softAction.Present() || o.softStride > 64 {
		yield(nil, fmt.Errorf("software interrupts: %w", kobj.ErrUnsupported))
		return
	}
	for n, name := range names[:min(len(names), int(o.softirqs.Size/4))] {
		a := table + virt.Addr(n)*virt.Addr(o.softStride)
		i := &Interrupt{Number: n, Soft: true, Address: a}
		r := s.Reader()
		i.Actions = []InterruptAction{{Name: name, Handler: r.Pointer(a, o.softAction), Address: a}}
		err := o.softCounts(s, &r, i)
		if err != nil {
			i, err = nil, fmt.Errorf("software interrupt %s: %w", name, err)
		}
		if !yield(i, err) {
			return
		}
	}
}

// softCounts reads how often each processor had the software interrupt i.
func (o *irqLayout) softCounts(s *linux.System, r *kobj.Reader, i *Interrupt) error {
	for cpu := range s.CPUAreas {
		stat, err := s.PerCPU("kstat", cpu)
		if err != nil {
			return err
		}
		i.Counts = append(i.Counts, uint64(r.U32(o.softirqs.At(stat)+virt.Addr(4*i.Number))))
	}
	return r.Err
}
