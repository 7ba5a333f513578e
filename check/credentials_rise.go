package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Between two looks a task gets rights by exec alone: of a file with a user or capabilities of
// its own (begin_new_exec, which counts in self_exec_id). Every other system call gives it
// only what it had (setresuid, capset), or all rights in a user namespace below its own
// (unshare, setns). So rights that it has more, without an exec, somebody gave it who writes to
// the kernel's memory or runs code there: commit_creds(prepare_kernel_cred()) leaves
// credentials that one look cannot distinguish from a setuid program's.

// pastCredentials are what a task had when it was last seen with rights that it came by legally.
type pastCredentials struct {
	execs     uint64 // self_exec_id
	uids      [4]uint32
	permitted uint64
	userNS    virt.Addr
	look      uint64 // the number of the look that saw it last
}

// riseLayout is what one look says to compare with another.
type riseLayout struct {
	execs, started, parent kobj.Field // of task_struct, and of user_namespace
	signal, guard          kobj.Field // of task_struct, and of signal_struct: who holds cred_guard_mutex
	uids                   [4]kobj.Field
}

func riseLayoutOf(s *linux.System) (*riseLayout, error) {
	return kobj.LayoutOf(s.Walker, "credentials at two looks", func(r *kobj.Resolver, o *riseLayout) {
		o.execs, o.started = r.Field("task_struct", "self_exec_id"), r.Field("task_struct", "start_time")
		o.parent = r.Optional("user_namespace", "parent")
		o.signal = r.Field("task_struct", "signal")
		o.guard = r.Optional("signal_struct", "cred_guard_mutex.owner", "cred_guard_mutex.rtmutex.owner") // the other with CONFIG_PREEMPT_RT
		for i, name := range []string{"uid", "euid", "suid", "fsuid"} {
			o.uids[i] = r.Field("cred", name)
		}
	})
}

const (
	capSetuid = 1 << 7 // CAP_SETUID
	maxNested = 64     // user namespaces in each other; the kernel allows 33
)

// rises yields what tasks have more than they had at an earlier look, and keeps what they have.
func (w *credWalk) rises(ts *tasks) bool {
	o, err := riseLayoutOf(w.s.Linux)
	if err != nil {
		return w.yield(nil, err)
	}
	h := w.s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.credentials == nil {
		h.credentials = map[taskKey]*pastCredentials{}
	}
	h.looks++
	for _, tasks := range w.users {
		for _, t := range tasks {
			if t.flags&(pfKthread|pfExiting) != 0 {
				continue
			}
			w.r.Err = nil
			key, now := w.present(o, &w.r, t)
			if w.r.Err != nil {
				continue // it is just ending; stolen-credentials reads the rest of it again
			}
			now.look = h.looks
			before := h.credentials[key]
			if w.changing(o, t, key, now) {
				if before != nil {
					before.look = h.looks
				}
				continue
			}
			if before == nil || before.execs != now.execs {
				h.credentials[key] = &now
				continue
			}
			before.look = h.looks
			what := before.risen(&now, w.below(o, now.userNS, before.userNS))
			if what == "" {
				*before = now
			} else if !w.risen(t, before, &now, what) {
				return false
			}
		}
	}
	for key, c := range h.credentials {
		if c.look != h.looks && len(ts.holes) == 0 {
			delete(h.credentials, key)
		}
	}
	return true
}

// present reads what a task has.
func (w *credWalk) present(o *riseLayout, r *kobj.Reader, t *task) (taskKey, pastCredentials) {
	own := w.o
	c := r.Pointer(t.addr, own.own)
	now := pastCredentials{execs: r.Uint(t.addr, o.execs), permitted: r.Uint(c, own.permitted), userNS: r.Pointer(c, own.userNS)}
	for i, f := range o.uids {
		now.uids[i] = uint32(r.Uint(c, f))
	}
	return taskKey{t.addr, t.pid, r.Uint(t.addr, o.started)}, now
}

// changing reports whether the credentials of a task are just being changed, so that they are nothing to compare others with:
// the look has the pointer to them and themselves from two moments, and they are another task's by now; or a program is being
// started, which counts as an exec before it changes them.
func (w *credWalk) changing(o *riseLayout, t *task, key taskKey, now pastCredentials) bool {
	live := w.s.Linux.Reader()
	live.Space = w.s.Linux.Space.Live()
	key2, again := w.present(o, &live, t)
	c := live.Pointer(t.addr, w.o.own)
	const flags = 7 // MUTEX_FLAGS
	if o.guard.Present() && live.Uint(live.Pointer(t.addr, o.signal), o.guard)&^flags == uint64(t.addr) {
		return true
	}
	w.r.Err = nil
	again.look = now.look
	return live.Err != nil || key2 != key || again != now || c != w.r.Pointer(t.addr, w.o.own)
}

// below reports whether a user namespace is another, or lies below it.
func (w *credWalk) below(o *riseLayout, ns, top virt.Addr) bool {
	w.r.Err = nil
	for range maxNested {
		if ns == top {
			return true
		}
		if ns == 0 || !o.parent.Present() {
			return false
		}
		if ns = w.r.Pointer(ns, o.parent); w.r.Err != nil {
			return true // it is just being made or ended
		}
	}
	return true
}

// risen says what now has that before could not get without an exec; empty for nothing. below
// says that its user namespace is the one that it had, or below that.
func (before *pastCredentials) risen(now *pastCredentials, below bool) string {
	if !below {
		return "is in a user namespace that is not below its own"
	}
	if more := now.permitted &^ before.permitted; more != 0 && now.userNS == before.userNS {
		return "got the capabilities " + strings.Join(linux.CapabilityNames(more), ",")
	}
	if before.permitted&capSetuid != 0 || now.userNS != before.userNS {
		return ""
	}
	for i, name := range []string{"user", "effective user", "saved user", "user for files"} {
		if !slices.Contains(before.uids[:], now.uids[i]) {
			return fmt.Sprintf("got the %s ID %d", name, now.uids[i])
		}
	}
	return ""
}

func (w *credWalk) risen(t *task, before, now *pastCredentials, what string) bool {
	ids := func(c *pastCredentials) string {
		return fmt.Sprintf("user IDs %d, permitted capabilities %#x, user namespace at %#x", c.uids, c.permitted, uint64(c.userNS))
	}
	w.r.Err = nil
	return w.found(t, w.r.Pointer(t.addr, w.o.own), Certain, what+" without an exec", "at an earlier look: "+ids(before), ids(now))
}
