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
	uids                   [4]kobj.Field
}

func riseLayoutOf(s *linux.System) (*riseLayout, error) {
	return kobj.LayoutOf(s.Walker, "credentials at two looks", func(r *kobj.Resolver, o *riseLayout) {
		o.execs, o.started = r.Field("task_struct", "self_exec_id"), r.Field("task_struct", "start_time")
		o.parent = r.Optional("user_namespace", "parent")
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
			key, now, err := w.present(o, t)
			if err != nil {
				continue // it is just ending; stolen-credentials reads the rest of it again
			}
			now.look = h.looks
			before := h.credentials[key]
			if before == nil || before.execs != now.execs {
				h.credentials[key] = now
				continue
			}
			before.look = h.looks
			what := before.risen(now, w.below(o, now.userNS, before.userNS))
			if what == "" {
				*before = *now
			} else if !w.risen(t, before, now, what) {
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

// present is what a task has now.
func (w *credWalk) present(o *riseLayout, t *task) (taskKey, *pastCredentials, error) {
	r := &w.r
	r.Err = nil
	c := r.Pointer(t.addr, w.o.own)
	now := &pastCredentials{execs: r.Uint(t.addr, o.execs), permitted: r.Uint(c, w.o.permitted), userNS: r.Pointer(c, w.o.userNS)}
	for i, f := range o.uids {
		now.uids[i] = uint32(r.Uint(c, f))
	}
	return taskKey{t.addr, t.pid, r.Uint(t.addr, o.started)}, now, r.Err
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
