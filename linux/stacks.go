package linux

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Stack is the calls of the kernel's in which a thread stands.
type Stack struct {
	Task     Task
	PID, TID int32
	Comm     string
	State    State
	Running  bool // on a processor: where it is is not in memory, see [Unwinder.Run]
	// User says of one that runs that it runs its program, with nothing on its stack.
	User bool
	// Frames are the addresses to which the calls return, the innermost first, as
	// /proc/PID/stack has them: without the scheduler's own.
	Frames []virt.Addr
	// Cut says why the outermost are missing; nil for a whole stack.
	Cut error
}

// Unwinder walks the stacks of threads. It is of one moment, as it knows the modules,
// and not safe for concurrent use.
type Unwinder struct {
	l       *ProcessReader
	orcs    *orcs
	owners  *Owners
	o       *stackLayout
	skipped []span // of the scheduler's functions and locks
	born    []virt.Addr
	running []CPUState
}

// CPUState is where a processor of a guest that stands still is.
type CPUState struct {
	IP, SP, BP virt.Addr
	User       bool // it runs a program, not the kernel
}

// SetCPUStates lets u walk the stacks of running threads too: processors are all that the guest
// has, in the order of their numbers, of the moment at which its memory stands still.
func (u *Unwinder) SetCPUStates(processors []CPUState) { u.running = processors }

type stackLayout struct {
	sp, stack, onCPU, refs kobj.Field
	cpu                    kobj.Field
	bp, ret                kobj.Field
	frame, size            uint32
	regs                   struct{ bp, ip, cs, sp kobj.Field }
}

const maxStack = 1 << 17

// Unwinder prepares to walk stacks.
func (s *System) Unwinder(ctx context.Context) (*Unwinder, error) {
	o, err := kobj.LayoutOf(s.Walker, "stacks", func(r *kobj.Resolver, o *stackLayout) {
		const t, f, p = "task_struct", "inactive_task_frame", "pt_regs"
		o.sp, o.stack, o.onCPU = r.Field(t, "thread.sp"), r.Field(t, "stack"), r.Field(t, "on_cpu")
		o.refs, o.cpu = r.Optional(t, "stack_refcount"), r.Field(t, "thread_info.cpu", "cpu")
		o.bp, o.ret, o.frame = r.Field(f, "bp"), r.Field(f, "ret_addr"), r.Size(f)
		// THREAD_SIZE is four pages, with KASAN eight: as large as that of the first task.
		o.size = 4 * phys.PageSize
		r.Prefetch("init_stack", "__end_init_task", "__end_init_stack")
		for _, name := range []string{"__end_init_task", "__end_init_stack"} { // renamed in 6.10
			start, ok1 := s.Address("init_stack")
			if end, ok2 := s.Address(name); ok1 && ok2 && end > start && uint64(end-start) <= maxStack && (end-start)%phys.PageSize == 0 {
				o.size = uint32(end - start)
			}
		}
		o.regs.bp, o.regs.ip, o.regs.cs, o.regs.sp = r.Field(p, "bp"), r.Field(p, "ip"), r.Field(p, "cs"), r.Field(p, "sp")
	})
	if err != nil {
		return nil, err
	}
	u := &Unwinder{l: s.NewProcessReader(), o: o}
	if u.orcs, err = s.orcs(ctx); err != nil {
		return nil, err
	}
	if u.owners, err = s.Owners(); err != nil {
		return nil, err
	}
	for _, pair := range [][2]string{{"__sched_text_start", "__sched_text_end"}, {"__lock_text_start", "__lock_text_end"}} {
		start, ok1 := s.Address(pair[0])
		end, ok2 := s.Address(pair[1])
		if ok1 && ok2 {
			u.skipped = append(u.skipped, span{start, end})
		}
	}
	for _, name := range []string{"ret_from_fork", "ret_from_fork_asm"} { // 6.6
		if a, ok := s.Address(name); ok {
			u.born = append(u.born, a)
		}
	}
	return u, nil
}

// Owners knows whose code a frame is in, as of when u was made.
func (u *Unwinder) Owners() *Owners { return u.owners }

// maxFrames bounds one stack: /proc/PID/stack shows 64.
const maxFrames = 64

// StackOf walks the stack of t.
func (u *Unwinder) StackOf(t Task) (_ *Stack, err error) {
	var k *Stack
	err = u.l.steady(t, func(id identity) error {
		u.l.r.Err = nil // who it is may be unknown
		loads := u.l.now.loads()
		sp := u.l.r.Pointer(t.Addr, u.o.sp)
		if k = u.stack(t, id, sp); u.l.r.Err != nil {
			return fmt.Errorf("stack of task %#x: %w", uint64(t.Addr), u.l.r.Err)
		}
		if again := u.l.ptrAfter(t.Addr+virt.Addr(u.o.sp.Offset), sp, loads); again != sp {
			return errChanged
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (u *Unwinder) stack(t Task, id identity, sp virt.Addr) *Stack {
	r, a := &u.l.r, t.Addr
	k := &Stack{Task: t, PID: id.pid, TID: id.tid, Comm: u.l.comm(a, r.U32(a+virt.Addr(u.l.s.o.flags))), State: u.l.state(a)}
	k.Running = r.Uint(a, u.o.onCPU) != 0
	base := r.Pointer(a, u.o.stack)
	on, known := u.processor(k.Running, base, r.Uint(a, u.o.cpu))
	if k.User = known && on.User; k.User || k.Running && !known || base == 0 || r.Err != nil || u.o.refs.Present() && r.Uint(a, u.o.refs) == 0 {
		return k // one that has ended gives its stack back
	}
	copied := make([]byte, u.o.size)
	if !r.ReadInto(copied, base) {
		return k
	}
	w := unwinding{u: u, r: r, base: base, b: copied}
	if known {
		w.sp, w.bp, w.ip, w.signal, w.exact = on.SP, on.BP, on.IP, true, true
		k.Cut = w.walk(k)
		return k
	}
	w.sp, w.bp = sp+virt.Addr(u.o.frame), virt.Addr(w.word(u.o.bp.At(sp)))
	w.ip = virt.Addr(w.word(u.o.ret.At(sp)))
	for _, f := range u.born {
		w.signal = w.signal || w.ip == f
	}
	k.Cut = w.walk(k)
	return k
}

// processor is the one that a thread runs on: in the kernel by its stack, else by number.
func (u *Unwinder) processor(running bool, base virt.Addr, cpu uint64) (p CPUState, known bool) {
	if !running {
		return p, false
	}
	for _, p := range u.running {
		if !p.User && p.SP >= base && p.SP-base < virt.Addr(u.o.size) {
			return p, true
		}
	}
	if cpu >= uint64(len(u.running)) {
		return p, false
	}
	// Not on the thread's own stack, but on one of the processor's.
	return u.running[cpu], true
}

// unwinding is a walk over a copy of one stack.
type unwinding struct {
	u          *Unwinder
	r          *kobj.Reader
	base       virt.Addr
	b          []byte
	sp, bp, ip virt.Addr
	signal     bool // ip is an instruction, and no place to return to
	exact      bool // the first ip is where a processor is
	bad        error
}

// word is the word at a of the stack; 0 outside, which ends the walk. Of a processor that
// stands still it may be that of an interrupt or of an entry into the kernel too.
func (w *unwinding) word(a virt.Addr) uint64 {
	off := uint64(a - w.base)
	if !w.own(a) {
		if w.exact && w.r.Space.KernelHalf(a) {
			v := w.r.U64(a)
			if w.r.Err != nil {
				w.bad = fmt.Errorf("%w: the stack leads to %#x: %w", kobj.ErrBroken, uint64(a), w.r.Err)
				w.r.Err = nil
			}
			return v
		}
		w.bad = fmt.Errorf("%w: the stack leads to %#x, outside", kobj.ErrBroken, uint64(a))
		return 0
	}
	return binary.LittleEndian.Uint64(w.b[off:])
}

// own reports whether a word of the thread's own stack begins at a.
func (w *unwinding) own(a virt.Addr) bool {
	return a >= w.base && uint64(a-w.base) <= uint64(len(w.b))-8
}

// walk follows unwind_next_frame of the kernel's.
func (w *unwinding) walk(k *Stack) error {
	for range 4 * maxFrames {
		if w.bad != nil {
			return w.bad
		}
		if w.u.owners.CodeAt(w.ip).Kind == OwnerNone {
			return fmt.Errorf("%w: the stack leads to %#x, which belongs to no known code", kobj.ErrBroken, uint64(w.ip))
		}
		if here := w.exact && k.Frames == nil; here || !w.skipped() {
			if k.Frames = append(k.Frames, w.ip); len(k.Frames) == maxFrames {
				return nil
			}
		}
		place := w.ip
		if !w.signal {
			place-- // the call may be the last of its function
		}
		e, ok := w.u.orcs.at(w.r, place)
		if w.r.Err != nil {
			return nil //nolint:nilerr // whoever asks looks at the reader
		}
		if ok && e.kind == orcEnd {
			return nil
		}
		if e.kind == orcUndefined {
			return fmt.Errorf("%w: the kernel does not know the stack at %#x", kobj.ErrUnsupported, uint64(w.ip))
		}
		before := w.sp
		done, err := w.step(e)
		if done || err != nil {
			return err
		}
		if w.sp <= before && w.bad == nil && (w.own(before) || !w.own(w.sp)) { // from another stack to its own is not a way back
			return fmt.Errorf("%w: the stack leads back", kobj.ErrBroken)
		}
	}
	return fmt.Errorf("%w: the stack does not end", kobj.ErrBroken)
}

func (w *unwinding) skipped() bool {
	for _, s := range w.u.skipped {
		if w.ip >= s.start && w.ip < s.end {
			return true
		}
	}
	return false
}

// step goes to the caller; done at the end, which is where a program was entered from.
func (w *unwinding) step(e orc) (done bool, err error) {
	if w.u.orcs.framePointers() && (w.bp == 0 || w.bp&1 != 0) {
		return w.overRegs()
	}
	var sp virt.Addr
	switch e.spReg {
	case orcSP:
		sp = w.sp + virt.Addr(e.spOffset)
	case orcBP:
		sp = w.bp + virt.Addr(e.spOffset)
	case orcSPIndirect:
		sp = virt.Addr(w.word(w.sp)) + virt.Addr(e.spOffset)
	case orcBPIndirect:
		sp = virt.Addr(w.word(w.bp + virt.Addr(e.spOffset)))
	default:
		return false, fmt.Errorf("%w: the stack at %#x hangs on a register that is not kept", kobj.ErrUnsupported, uint64(w.ip))
	}
	regs, whole := sp, true
	oldBP := w.bp
	w.signal = e.signal
	switch e.kind {
	case orcCall:
		w.ip, w.sp = virt.Addr(w.word(sp-8)), sp
	case orcPartial, orcRegs:
		if e.kind == orcPartial {
			regs, whole = sp-virt.Addr(w.u.o.regs.ip.Offset), false
		}
		const userRing = 3
		if w.word(w.u.o.regs.cs.At(regs))&userRing == userRing {
			return true, nil
		}
		w.ip, w.sp = virt.Addr(w.word(w.u.o.regs.ip.At(regs))), virt.Addr(w.word(w.u.o.regs.sp.At(regs)))
	}
	switch e.bpReg {
	case orcPrevSP:
		w.bp = virt.Addr(w.word(sp + virt.Addr(e.bpOffset)))
	case orcBP:
		w.bp = virt.Addr(w.word(oldBP + virt.Addr(e.bpOffset)))
	case orcNoReg:
		if e.kind == orcRegs && whole {
			w.bp = virt.Addr(w.word(w.u.o.regs.bp.At(regs)))
		}
	}
	return false, nil
}

// overRegs goes on where the frame pointer leads to no frame: with its lowest bit set to
// the registers at an interrupt (ENCODE_FRAME_POINTER); zero is the end.
func (w *unwinding) overRegs() (done bool, err error) {
	if w.bp == 0 {
		return true, nil
	}
	const userRing = 3
	o, regs := &w.u.o.regs, w.bp&^1
	cs := w.word(o.cs.At(regs))
	// A kernel thread is born with registers that are all zero (copy_thread).
	if cs&userRing == userRing || cs == 0 || w.bad != nil {
		return true, w.bad
	}
	w.ip, w.sp, w.bp = virt.Addr(w.word(o.ip.At(regs))), virt.Addr(w.word(o.sp.At(regs))), virt.Addr(w.word(o.bp.At(regs)))
	w.signal = true
	return false, nil
}
