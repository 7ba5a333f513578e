package check

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/linux/mm"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "stolen-credentials",
		Title:     "Credentials that no system call can have given",
		Severity:  Critical,
		Technique: "T1068", // Exploitation for Privilege Escalation
		Source:    "task_struct.real_cred, cred and self_exec_id, init_cred, struct cred (uid, user, user_ns, ucounts, capability sets), cred_jar; at two looks",
		Proves: `A process acts with credentials that the kernel's own functions do not make: those that the kernel started with, those of another process, or a set whose
members contradict each other, such as a user ID that was overwritten while the account it is counted for stayed. Or, where it is looked at again (--every), a process has rights
that it had not before, and ran no program since: no system call but exec gives any. Kernel exploits and rootkits that "give root" leave these.`,
		Blind: `At one look, credentials that were made and committed by the kernel's own functions (prepare_kernel_cred and commit_creds): they look as if the process had been given
them by a setuid program, unless the parent has what they can not have come from (groups and a keyring of the session, as after a login); also with --every, if it ran another program before the next look. A change between two looks that was taken back.`,
		Next: `Look at the process and its parents with "outsight tree TARGET" and "outsight creds TARGET", and at what it has open with "outsight files TARGET". Treat the kernel as taken
over: who can write credentials can write anything.`,
		Example: `In a guest of 6.12 the user ID in the struct cred of a process was overwritten, as rootkits do it:

    $ outsight check lab:demo --only stolen-credentials
    SEVERITY  CONFIDENCE  CHECK               TITLE
    critical  certain     stolen-credentials  process 184 (sleep) has credentials that contradict themselves: user ID 1000, counted for user 0`,
		Kept: true,
		Run:  stolenCredentials,
	})
}

// credentials is a struct cred, as far as its members must agree.
type credentials struct {
	uid, euid, userUID, ucountsUID            uint32
	user, userNS, ucounts, ucountsNS          virt.Addr
	effective, permitted, inherited, ambience uint64
}

// credLayout is where the members of struct cred lie, and who leads to it.
type credLayout struct {
	own, acting                                kobj.Field // of task_struct: real_cred, cred
	uid, euid, user, userNS, ucounts           kobj.Field
	effective, permitted, inheritable, ambient kobj.Field
	userUID, ucountsNS, ucountsUID             kobj.Field
	groups, keyring                            kobj.Field // of cred
	parent, signal, mm, pids                   kobj.Field
}

func credLayoutOf(s *linux.System) (*credLayout, error) {
	return kobj.LayoutOf(s.Walker, "credentials", func(r *kobj.Resolver, o *credLayout) {
		r.Prefetch("init_cred", "cred_jar", "init_groups")
		const c = "cred"
		*o = credLayout{
			own: r.Field("task_struct", "real_cred"), acting: r.Field("task_struct", "cred"),
			uid: r.Field(c, "uid"), euid: r.Field(c, "euid"), user: r.Field(c, "user"), userNS: r.Field(c, "user_ns"), ucounts: r.Optional(c, "ucounts"), // 5.14
			effective: r.Field(c, "cap_effective"), permitted: r.Field(c, "cap_permitted"), inheritable: r.Field(c, "cap_inheritable"), ambient: r.Field(c, "cap_ambient"),
			userUID: r.Field("user_struct", "uid"), ucountsNS: r.Optional("ucounts", "ns"), ucountsUID: r.Optional("ucounts", "uid"),
			groups: r.Field(c, "group_info"), keyring: r.Optional(c, "session_keyring"), // CONFIG_KEYS
			parent: r.Field("task_struct", "real_parent"), signal: r.Field("task_struct", "signal"), mm: r.Field("task_struct", "mm"), pids: r.Field("signal_struct", "pids"),
		}
	})
}

// credWalk is one run of the check.
type credWalk struct {
	s       *Subject
	o       *credLayout
	r       kobj.Reader
	initial map[virt.Addr]bool    // what the kernel started with
	full    uint64                // the capabilities that this kernel has
	jar     virt.Addr             // the cache that credentials are allocated from
	users   map[virt.Addr][]*task // by their own credentials
	acting  map[virt.Addr]*task   // by other credentials, which they act with for now
	yield   func(*Finding, error) bool
}

func stolenCredentials(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		o, err := credLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		w := &credWalk{s: s, o: o, r: s.Linux.Reader(), users: map[virt.Addr][]*task{}, acting: map[virt.Addr]*task{}, yield: yield}
		if err := w.start(ts.init); err != nil {
			yield(nil, fmt.Errorf("the kernel's own credentials: %w", err))
			return
		}
		for _, a := range slices.Sorted(maps.Keys(ts.all)) {
			if ctx.Err() != nil || !w.task(ts.all[a]) {
				return
			}
		}
		for _, c := range slices.Sorted(maps.Keys(w.users)) {
			if ctx.Err() != nil || !w.shared(c) || !w.judge(c, w.users[c][0]) {
				return
			}
		}
		for _, c := range slices.Sorted(maps.Keys(w.acting)) {
			if ctx.Err() != nil || !w.borrowed(c) {
				return
			}
		}
		w.rises(ts)
	}
}

// start reads what the others are compared with. init_task's real_cred is init_cred for as
// long as the kernel runs; both are known, for either could have been changed.
func (w *credWalk) start(first virt.Addr) error {
	own := w.r.Pointer(first, w.o.own)
	w.full = w.r.Uint(own, w.o.permitted)
	w.initial = map[virt.Addr]bool{own: true}
	if a, ok := w.s.Linux.Address("init_cred"); ok {
		w.initial[a] = true
		w.full = w.r.Uint(a, w.o.permitted)
	}
	if a, ok := w.s.Linux.Address("cred_jar"); ok {
		w.jar = w.r.Ptr(a)
	}
	return w.r.Err
}

const pfKthread = 0x200000 // PF_KTHREAD, include/linux/sched.h

// task judges whose credentials a task has.
func (w *credWalk) task(t *task) bool {
	w.r.Err = nil
	own, acting := w.r.Pointer(t.addr, w.o.own), w.r.Pointer(t.addr, w.o.acting)
	if w.r.Err != nil {
		return w.yield(nil, fmt.Errorf("credentials of task %d: %w", t.pid, w.r.Err))
	}
	w.users[own] = append(w.users[own], t)
	if t.flags&pfKthread != 0 {
		return true
	}
	switch {
	case w.initial[own]:
		return w.found(t, own, Certain, "has the credentials that the kernel started with (init_cred)", "credentials of its own", "init_cred")
	case w.initial[acting]:
		// The kernel does so for a moment, to read firmware and the like (since 6.19,
		// scoped_with_kernel_creds).
		return w.found(t, acting, Likely, "acts with the credentials that the kernel started with (init_cred)", "credentials of its own", "init_cred")
	case acting != own:
		w.acting[acting] = t
	}
	return w.madeByKernel(t, own)
}

// madeByKernel judges credentials as prepare_kernel_cred makes them: with init_groups, and
// without a keyring of the session. No system call gives a process init_groups again once it has
// called setgroups, or takes its keyring: so no child of a process that has both others can
// have these, if it came from it in the same session.
func (w *credWalk) madeByKernel(t *task, own virt.Addr) bool {
	groups, ok := w.s.Linux.Address("init_groups")
	if !ok || !w.o.keyring.Present() || !t.leads() {
		return true
	}
	const sid = 3 // PIDTYPE_SID
	session := func(task virt.Addr) virt.Addr { return w.r.Ptr(w.o.pids.At(w.r.Pointer(task, w.o.signal)) + 8*sid) }
	if w.r.Pointer(own, w.o.groups) != groups || w.r.Pointer(own, w.o.keyring) != 0 {
		return true
	}
	parent := w.r.Pointer(t.addr, w.o.parent)
	if w.r.Err != nil || w.r.Pointer(parent, w.o.mm) == 0 {
		return true // what the kernel itself started
	}
	above := w.r.Pointer(parent, w.o.own)
	if w.r.Pointer(above, w.o.groups) == groups || w.r.Pointer(above, w.o.keyring) == 0 || session(parent) != session(t.addr) || w.r.Err != nil {
		return true
	}
	return w.found(t, own, Likely, "has credentials that the kernel made (prepare_kernel_cred), and its parent has others", "groups and a keyring as its parent has them, or others that system calls made",
		fmt.Sprintf("init_groups and no keyring of the session; the parent has the struct cred at %#x", uint64(above)))
}

// borrowed judges credentials that a task acts with while its own are others
// (override_creds): access(2), overlayfs and coredumps make some for the purpose. Those that
// are another process's own are not made for anything (a request of io_uring may, for a moment).
func (w *credWalk) borrowed(c virt.Addr) bool {
	t := w.acting[c]
	for _, other := range w.users[c] {
		if other.tgid != t.tgid {
			return w.found(t, c, Likely, fmt.Sprintf("acts with the credentials of process %d (%s)", other.tgid, other.comm), "credentials of its own", fmt.Sprintf("the struct cred of process %d", other.tgid))
		}
	}
	if len(w.users[c]) > 0 {
		return true // judged as those of a thread of its own
	}
	return w.judge(c, t)
}

// shared judges who else has the credentials at c: threads of one process share them
// (copy_creds with CLONE_THREAD, kernel/cred.c); every process has a copy of its own, as
// fork, exec and each change makes one.
func (w *credWalk) shared(c virt.Addr) bool {
	first := w.users[c][0]
	for _, t := range w.users[c] {
		if t.tgid != first.tgid && !w.initial[c] {
			return w.found(t, c, Certain, fmt.Sprintf("has the credentials of process %d (%s)", first.tgid, first.comm), "credentials of its own", fmt.Sprintf("the struct cred of process %d", first.tgid))
		}
	}
	return true
}

// judge judges the members of the credentials at a, which t has, by each other.
func (w *credWalk) judge(a virt.Addr, t *task) bool {
	if w.initial[a] {
		return true
	}
	if a == 0 {
		return true // the task is being freed: its credentials have been (exit_creds)
	}
	c, err := w.read(a)
	if err != nil {
		return w.yield(nil, fmt.Errorf("credentials of task %d at %#x: %w", t.pid, uint64(a), err))
	}
	for _, e := range c.contradictions(w.full) {
		if !w.found(t, a, Certain, "has credentials that contradict themselves: "+e.title, e.expected, e.seen) {
			return false
		}
	}
	return w.allocated(t, a)
}

func (w *credWalk) read(a virt.Addr) (c credentials, err error) {
	o, r := w.o, &w.r
	r.Err = nil
	c = credentials{
		uid: uint32(r.Uint(a, o.uid)), euid: uint32(r.Uint(a, o.euid)), user: r.Pointer(a, o.user), userNS: r.Pointer(a, o.userNS), ucounts: r.Pointer(a, o.ucounts),
		effective: r.Uint(a, o.effective), permitted: r.Uint(a, o.permitted), inherited: r.Uint(a, o.inheritable), ambience: r.Uint(a, o.ambient),
	}
	c.userUID = uint32(r.Uint(c.user, o.userUID))
	if c.ucounts != 0 && o.ucountsNS.Present() {
		c.ucountsNS = r.Pointer(c.ucounts, o.ucountsNS)
		c.ucountsUID = c.uid
		if o.ucountsUID.Present() {
			c.ucountsUID = uint32(r.Uint(c.ucounts, o.ucountsUID))
		}
	}
	return c, r.Err
}

// contradiction is what two members of credentials say of each other.
type contradiction struct{ title, expected, seen string }

// contradictions are where members disagree that all of the kernel's functions keep in
// step: set_user, set_cred_ucounts, cap_capset and cap_bprm_creds_from_file among them. full
// are the capabilities that the kernel knows.
func (c *credentials) contradictions(full uint64) (cs []contradiction) {
	if c.uid != c.userUID {
		cs = append(cs, contradiction{
			fmt.Sprintf("user ID %d, counted for user %d", c.uid, c.userUID),
			"the user ID is that of the account that the process is counted for (cred.user)", fmt.Sprintf("uid %d, user_struct of %d", c.uid, c.userUID),
		})
	}
	// Up to 5.16 it was the effective user's (set_cred_ucounts).
	if c.ucountsNS != 0 && c.ucountsUID != c.uid && c.ucountsUID != c.euid && c.uid == c.userUID {
		cs = append(cs, contradiction{
			fmt.Sprintf("user ID %d, limited as user %d", c.uid, c.ucountsUID),
			"the user ID is that by which the limits of its user namespace count it (cred.ucounts)", fmt.Sprintf("uid %d, ucounts of %d", c.uid, c.ucountsUID),
		})
	}
	if c.ucountsNS != 0 && c.ucountsNS != c.userNS {
		cs = append(cs, contradiction{
			"its user namespace is not the one that it is counted in", fmt.Sprintf("user namespace at %#x, where it is counted (cred.ucounts)", uint64(c.ucountsNS)), fmt.Sprintf("user namespace at %#x", uint64(c.userNS)),
		})
	}
	for _, set := range []struct {
		name, bound string
		set, within uint64
	}{
		{"effective", "permitted", c.effective, c.permitted},
		{"ambient", "permitted", c.ambience, c.permitted},
		{"ambient", "inheritable", c.ambience, c.inherited},
		{"permitted", "existing", c.permitted, full},
		{"inheritable", "existing", c.inherited, full},
	} {
		if more := set.set &^ set.within; more != 0 {
			cs = append(cs, contradiction{
				fmt.Sprintf("%s capabilities that are not %s", set.name, set.bound),
				fmt.Sprintf("%s capabilities are %s ones", set.name, set.bound), strings.Join(linux.CapabilityNames(more), ","),
			})
		}
	}
	return cs
}

// allocated judges what the memory of credentials is: a page of cred_jar.
func (w *credWalk) allocated(t *task, a virt.Addr) bool {
	if w.jar == 0 {
		return true
	}
	page, err := w.s.Linux.Space.Translate(a)
	if err != nil {
		return w.yield(nil, fmt.Errorf("credentials of task %d: %w", t.pid, err))
	}
	p, err := mm.PageAt(w.s.Linux, page.PA)
	if err != nil {
		return w.yield(nil, fmt.Errorf("credentials of task %d at %#x: %w", t.pid, uint64(a), err))
	}
	if p.Use == mm.PageSlab && p.Cache == w.jar {
		return true
	}
	return w.found(t, a, Certain, "has credentials that the kernel did not allocate as such", "an object of the cache cred_jar", fmt.Sprintf("memory of use %s, cache at %#x", p.Use, uint64(p.Cache)))
}

func (w *credWalk) found(t *task, c virt.Addr, sure Confidence, what, expected, seen string) bool {
	kind := "process"
	if !t.leads() {
		kind = "thread"
	}
	return w.yield(&Finding{
		Confidence: sure,
		Title:      fmt.Sprintf("%s %d (%s) %s", kind, t.pid, t.comm, what),
		Object:     Object{Kind: kind, Name: t.comm, PID: t.pid, Addr: t.addr},
		Expected:   expected,
		Seen:       seen,
		Evidence:   []Evidence{{Text: "its struct cred", Addr: c}, {Text: "its task_struct", Addr: t.addr}},
		Basis:      "structures of the guest's kernel, compared with each other at one look",
		Show:       fmt.Sprintf("outsight struct {} cred %#x", uint64(c)),
	}, nil)
}
