package linux

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// SignalSet is a set of signals: bit 0 is signal 1 (sigset_t).
type SignalSet uint64

// Names are the signals in the set, by number.
func (s SignalSet) Names() (names []string) {
	for i := range 64 {
		if s>>i&1 != 0 {
			names = append(names, SignalName(i+1))
		}
	}
	return names
}

// SignalName is what signal n is called on amd64 (include/uapi/asm/signal.h); those
// from 34 on by their distance from SIGRTMIN, as C libraries count.
func SignalName(n int) string {
	names := [...]string{
		"", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1",
		"SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP",
		"SIGTTIN", "SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
	}
	const rtMin = 34
	switch {
	case n > 0 && n < len(names):
		return names[n]
	case n == rtMin:
		return "SIGRTMIN"
	case n > rtMin && n <= 64:
		return fmt.Sprintf("SIGRTMIN+%d", n-rtMin)
	}
	return fmt.Sprintf("SIG%d", n)
}

// Signals is what becomes of the signals of one thread.
type Signals struct {
	PID, TID int32
	Comm     string
	Pending  SignalSet // sent to the thread and not yet taken
	Shared   SignalSet // sent to its process and not yet taken
	Blocked  SignalSet
	Ignored  SignalSet // of its process, as the next two
	Caught   SignalSet
	Handlers []SignalHandler // those that the process set, of signals caught or ignored
}

// SignalHandler is what a process wants done on a signal.
type SignalHandler struct {
	Signal   int
	Ignored  bool
	Handler  virt.Addr // in the process
	Restorer virt.Addr // where the handler returns to
	Flags    []string
	Mask     SignalSet // blocked while it runs
}

type signalLayout struct {
	pending, blocked, shared, sighand, actions kobj.Field
	handler, flags, restorer, mask             kobj.Field
	stride                                     uint32
}

func (s *System) signalLayout() (*signalLayout, error) {
	return kobj.LayoutOf(s.Walker, "signals", func(r *kobj.Resolver, o *signalLayout) {
		o.pending, o.blocked = r.Field("task_struct", "pending.signal"), r.Field("task_struct", "blocked")
		o.shared, o.sighand = r.Field("signal_struct", "shared_pending.signal"), r.Field("task_struct", "sighand")
		o.actions, o.stride = r.Field("sighand_struct", "action"), r.Size("k_sigaction")
		o.handler, o.flags = r.Field("k_sigaction", "sa.sa_handler"), r.Field("k_sigaction", "sa.sa_flags")
		o.restorer, o.mask = r.Field("k_sigaction", "sa.sa_restorer"), r.Field("k_sigaction", "sa.sa_mask")
	})
}

// SignalsOf reads what becomes of t's signals. A thread that has ended has none.
func (l *ProcessReader) SignalsOf(t Task) (_ *Signals, err error) {
	o, err := l.s.signalLayout()
	if err != nil {
		return nil, err
	}
	var g *Signals
	err = l.steady(t, func(id identity) error {
		if g = l.signals(t, o, id); l.r.Err != nil {
			return fmt.Errorf("signals of task %#x: %w", uint64(t.Addr), l.r.Err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

func (l *ProcessReader) signals(t Task, o *signalLayout, id identity) *Signals {
	const ignore, actions, maxStride = 1, 64, 256 // SIG_IGN
	r, a := &l.r, t.Addr
	g := &Signals{PID: id.pid, TID: id.tid, Comm: l.comm(a, r.U32(a+virt.Addr(l.s.o.flags)))}
	hand := r.Pointer(a, o.sighand)
	if hand == 0 || o.stride > maxStride {
		return g
	}
	g.Pending, g.Blocked = SignalSet(r.Uint(a, o.pending)), SignalSet(r.Uint(a, o.blocked))
	g.Shared = SignalSet(r.Uint(r.Ptr(a+virt.Addr(l.s.o.signal)), o.shared))
	b := r.Bytes(o.actions.At(hand), actions*int(o.stride))
	for i := range actions {
		action := b[i*int(o.stride) : (i+1)*int(o.stride)]
		handler := FieldIn(action, o.handler)
		switch handler {
		case 0: // SIG_DFL
			continue
		case ignore:
			g.Ignored |= 1 << i
		default:
			g.Caught |= 1 << i
		}
		h := SignalHandler{
			Signal: i + 1, Ignored: handler == ignore, Flags: signalFlags(FieldIn(action, o.flags)),
			Restorer: virt.Addr(FieldIn(action, o.restorer)), Mask: SignalSet(FieldIn(action, o.mask)),
		}
		if !h.Ignored {
			h.Handler = virt.Addr(handler)
		}
		g.Handlers = append(g.Handlers, h)
	}
	return g
}

// signalFlags are the flags of a handler by name (include/uapi/asm/signal.h). The kernel
// sets SA_X32_ABI and SA_IA32_ABI itself: the ABI by which the handler was registered
// (arch/x86/include/asm/signal.h).
func signalFlags(v uint64) []string {
	return kobj.BitNames(v, map[uint]string{
		0: "SA_NOCLDSTOP", 1: "SA_NOCLDWAIT", 2: "SA_SIGINFO", 10: "SA_UNSUPPORTED", 11: "SA_EXPOSE_TAGBITS", 26: "SA_RESTORER",
		27: "SA_ONSTACK", 28: "SA_RESTART", 30: "SA_NODEFER", 31: "SA_RESETHAND", 23: "SA_IMMUTABLE", 24: "SA_X32_ABI", 25: "SA_IA32_ABI",
	})
}
