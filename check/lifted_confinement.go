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
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "lifted-confinement",
		Title:     "Processes that are no longer held by what confined them",
		Severity:  Critical,
		Technique: "T1611", // Escape to Host
		Source:    "task_struct.seccomp, thread_info, atomic_flags, cred.cap_bset, nsproxy, thread_pid and fs; at two looks",
		Proves: `What confines a process for as long as it lives was taken off it: its filters of system calls (seccomp) are there and are not applied, or its namespaces are not those that its
PID belongs to, or its root folder is that of the machine's first process though it has a mount namespace of its own (likely: whoever was handed a descriptor of that folder, and may call chroot, can go there as well). Or, where it is looked at again (--every), filters, the promise to gain no privileges
(no_new_privs) or the limit of its capabilities (the bounding set) are gone that it had before. No system call does any of the others: exploits of the kernel do, to leave a container or a sandbox.`,
		Blind: `Filters that were taken off together with all that says that they were there, and what was lowered before the first look. A root folder that was exchanged for one of another container, and
namespaces of other kinds, which a process may enter. A change between two looks that was taken back.`,
		Next: `Look at what the process runs and has open ("outsight ps TARGET", "outsight files TARGET --pid PID"), and in which container it began ("outsight containers TARGET"). Treat the kernel as taken over: who can
write to a task can write anything. What the process did since has to be looked for on the whole machine, not in its container.`,
		Example: `In a guest of 6.12 the filters of a process were switched off, as exploits do it:

    $ outsight check lab:demo --only lifted-confinement
    SEVERITY  CONFIDENCE  CHECK               TITLE
    critical  certain     lifted-confinement  process 412 (agent) has filters of system calls (seccomp) that are switched off`,
		Kept: true,
		Run:  liftedConfinement,
	})
}

// confinement is what a task may not do, as its task_struct says.
type confinement struct {
	key              taskKey
	userNS           virt.Addr
	mode, filters    uint64
	filter           virt.Addr // struct seccomp_filter
	enters           bool      // the entry of system calls asks seccomp
	gainsNothing     bool      // no_new_privs
	bounding         uint64
	proxy, pid, root virt.Addr // struct nsproxy, struct pid, and the vfsmount of its root folder
}

// pastConfinement is what held a task when it was last seen.
type pastConfinement struct {
	confinement
	look uint64
}

type confinementLayout struct {
	started, flags, cred, atomic, mode, filters, filter kobj.Field // of task_struct
	entry                                               kobj.Field // of task_struct: the flags of thread_info that the entry of system calls looks at
	entryBit                                            uint64
	proxy, pid, fs                                      kobj.Field // of task_struct
	bounding, userNS                                    kobj.Field // of cred
	childPIDs, mounts                                   kobj.Field // of nsproxy
	level, numbers, upidNS, parent                      kobj.Field // of pid, upid and pid_namespace
	upidSize                                            uint32
	rootMount, mnt, mountNS                             kobj.Field // of fs_struct, path and mount
}

func confinementLayoutOf(s *linux.System) (*confinementLayout, error) {
	return kobj.LayoutOf(s.Walker, "confinement of processes", func(r *kobj.Resolver, o *confinementLayout) {
		const t = "task_struct"
		o.started, o.flags, o.cred, o.atomic = r.Field(t, "start_time"), r.Field(t, "flags"), r.Field(t, "real_cred"), r.Field(t, "atomic_flags")
		o.bounding, o.userNS = r.Field("cred", "cap_bset"), r.Field("cred", "user_ns")
		o.mode, o.filter = r.Optional(t, "seccomp.mode"), r.Optional(t, "seccomp.filter")
		o.filters = r.Optional(t, "seccomp.filter_count") // 5.9
		if o.entry, o.entryBit = r.Optional(t, "thread_info.syscall_work"), 1<<0; !o.entry.Present() {
			o.entry, o.entryBit = r.Optional(t, "thread_info.flags"), 1<<8 // TIF_SECCOMP, up to 5.10
		}
		o.proxy, o.pid, o.fs = r.Field(t, "nsproxy"), r.Field(t, "thread_pid"), r.Field(t, "fs")
		o.childPIDs, o.mounts = r.Optional("nsproxy", "pid_ns_for_children"), r.Field("nsproxy", "mnt_ns")
		o.level, o.numbers, o.upidNS, o.upidSize = r.Field("pid", "level"), r.Field("pid", "numbers"), r.Field("upid", "ns"), r.Size("upid")
		o.parent = r.Optional("pid_namespace", "parent")
		o.rootMount, o.mnt, o.mountNS = r.Field("fs_struct", "root.mnt"), r.Field("mount", "mnt"), r.Field("mount", "mnt_ns")
	})
}

type confinementWalk struct {
	s     *Subject
	o     *confinementLayout
	first *confinement // process 1
	yield func(*Finding, error) bool
}

func liftedConfinement(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		ts, err := s.Tasks()
		if err != nil {
			yield(nil, err)
			return
		}
		o, err := confinementLayoutOf(s.Linux)
		if err != nil {
			yield(nil, err)
			return
		}
		w := &confinementWalk{s: s, o: o, yield: yield}
		order := slices.Sorted(maps.Keys(ts.all))
		for _, a := range order {
			if t := ts.all[a]; t.pid == 1 && t.leads() {
				w.first, _ = w.read(s.Linux, t)
			}
		}
		h := s.history
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.confined == nil {
			h.confined = map[taskKey]*pastConfinement{}
		}
		h.confinedLooks++
		for _, a := range order {
			t := ts.all[a]
			if t.ended || t.flags&(pfKthread|pfExiting) != 0 || t.via&(viaList|viaPIDs|viaThreads) == 0 {
				continue // one that is just made has half of what its parent has
			}
			if ctx.Err() != nil || !w.task(h, t) {
				return
			}
		}
		for key, c := range h.confined {
			if c.look != h.confinedLooks && len(ts.holes) == 0 {
				delete(h.confined, key)
			}
		}
	}
}

// read reads what confines a task; false if it ends, or changed meanwhile.
func (w *confinementWalk) read(s *linux.System, t *task) (*confinement, bool) {
	o, r := w.o, s.Reader()
	started := r.Uint(t.addr, o.started)
	c := &confinement{
		key:  taskKey{t.addr, t.pid, started},
		mode: r.Uint(t.addr, o.mode), filters: r.Uint(t.addr, o.filters), filter: r.Pointer(t.addr, o.filter), enters: r.Uint(t.addr, o.entry)&o.entryBit != 0,
		gainsNothing: r.Uint(t.addr, o.atomic)&1 != 0, // PFA_NO_NEW_PRIVS
		proxy:        r.Pointer(t.addr, o.proxy), pid: r.Pointer(t.addr, o.pid),
	}
	cred, fs := r.Pointer(t.addr, o.cred), r.Pointer(t.addr, o.fs)
	if cred != 0 {
		c.bounding, c.userNS = r.Uint(cred, o.bounding), r.Pointer(cred, o.userNS)
	}
	if fs != 0 {
		c.root = r.Pointer(fs, o.rootMount)
	}
	whole := cred != 0 && fs != 0 && c.proxy != 0 && c.pid != 0 && r.Uint(t.addr, o.flags)&(pfExiting|pfKthread) == 0 && r.Uint(t.addr, o.started) == started
	return c, r.Err == nil && whole
}

// task judges one, and keeps what holds it for the next look.
func (w *confinementWalk) task(h *History, t *task) bool {
	c, ok := w.read(w.s.Linux, t)
	if !ok {
		return true
	}
	// What is found must be so in the guest's memory as it is now, not in pages of two moments.
	still := func() bool {
		again, ok := w.read(w.s.Linux.Fresh(), t)
		return ok && *again == *c
	}
	before := h.confined[c.key]
	if l := w.lifted(c); l != nil {
		return !still() || w.found(t, c, l)
	}
	if before == nil {
		h.confined[c.key] = &pastConfinement{*c, h.confinedLooks}
		return true
	}
	before.look = h.confinedLooks
	what := before.weakened(c)
	if what == "" {
		before.confinement = *c
		return true
	}
	if !still() {
		return true
	}
	return w.found(t, c, &lifted{what, "at an earlier look: " + before.String(), c.String(), Certain})
}

// lifted is what holds a task no more.
type lifted struct {
	what, expected, seen string
	sure                 Confidence
}

// lifted says what of a task contradicts itself; nil for nothing.
func (w *confinementWalk) lifted(c *confinement) *lifted {
	o, r := w.o, w.s.Linux.Reader()
	const filtering = 2 // SECCOMP_MODE_FILTER
	switch {
	case c.filter != 0 && c.mode == 0:
		return &lifted{"has filters of system calls (seccomp) that are switched off", "mode 2, which no system call ends", fmt.Sprintf("mode 0, with a filter at %#x", uint64(c.filter)), Certain}
	case c.filter == 0 && c.mode == filtering && o.filter.Present():
		return &lifted{"is confined by filters of system calls (seccomp), and has none", "a filter for as long as the mode is 2", "mode 2, and no filter", Certain}
	case c.mode != 0 && !c.enters && o.entry.Present():
		return &lifted{"makes system calls past its filters (seccomp)", "a mark in its thread_info that has each system call ask seccomp", fmt.Sprintf("mode %d, and no such mark", c.mode), Certain}
	}
	if o.childPIDs.Present() && o.parent.Present() {
		level := r.Uint(c.pid, o.level)
		own := r.Pointer(o.numbers.At(c.pid)+virt.Addr(uint64(o.upidSize)*min(level, maxNested)), o.upidNS)
		if ns := r.Pointer(c.proxy, o.childPIDs); r.Err == nil && level <= maxNested && own != 0 && ns != 0 && !w.within(ns, own) && r.Err == nil {
			return &lifted{
				"has namespaces that its PID does not belong to", fmt.Sprintf("a PID namespace for its children that is its own, at %#x, or below that", uint64(own)),
				fmt.Sprintf("one at %#x%s", uint64(ns), w.ofFirst(c)), Certain,
			}
		}
	}
	if f := w.first; f != nil && c.root == f.root && c.proxy != f.proxy && c.key != f.key {
		mounts, first := r.Pointer(c.proxy, o.mounts), r.Pointer(f.proxy, o.mounts)
		at := r.Pointer(c.root-virt.Addr(o.mnt.Offset), o.mountNS)
		if r.Err == nil && mounts != 0 && mounts != first && at == first {
			// Whoever is given a descriptor of it, and may call chroot, can go there, too.
			return &lifted{
				"has the root folder of process 1, which is not in its mount namespace", fmt.Sprintf("a root folder in its mount namespace, at %#x", uint64(mounts)),
				fmt.Sprintf("one in that of process 1, at %#x", uint64(first)), Likely,
			}
		}
	}
	return nil
}

// within reports whether a PID namespace is another, or lies below it.
func (w *confinementWalk) within(ns, top virt.Addr) bool {
	r := w.s.Linux.Reader()
	for range maxNested {
		if ns == top || r.Err != nil {
			return true // what cannot be read proves nothing
		}
		if ns == 0 {
			return false
		}
		ns = r.Pointer(ns, w.o.parent)
	}
	return true
}

// ofFirst says whether namespaces are those of process 1.
func (w *confinementWalk) ofFirst(c *confinement) string {
	if w.first != nil && c.proxy == w.first.proxy {
		return ", with all namespaces of process 1"
	}
	return ""
}

// weakened says what held a task before and holds it no more; empty for nothing. Filters are only ever added, and no_new_privs is only
// ever set. The bounding set grows in a new user namespace alone.
func (before *pastConfinement) weakened(c *confinement) string {
	switch {
	case c.mode < before.mode || c.filters < before.filters:
		return "has lost filters of system calls (seccomp)"
	case before.gainsNothing && !c.gainsNothing:
		return "may gain privileges again (no_new_privs), which it had given up"
	case c.userNS == before.userNS && c.bounding&^before.bounding != 0:
		return "may get the capabilities " + strings.Join(linux.CapabilityNames(c.bounding&^before.bounding), ",") + " again, which were taken from its bounding set"
	}
	return ""
}

func (c *confinement) String() string {
	return fmt.Sprintf("seccomp mode %d with %d filters, no_new_privs %t, bounding set %#x", c.mode, c.filters, c.gainsNothing, c.bounding)
}

func (w *confinementWalk) found(t *task, c *confinement, l *lifted) bool {
	kind := "process"
	if !t.leads() {
		kind = "thread"
	}
	return w.yield(&Finding{
		Confidence: l.sure,
		Title:      fmt.Sprintf("%s %d (%s) %s", kind, t.pid, t.comm, l.what),
		Object:     Object{Kind: kind, Name: t.comm, PID: t.pid, Addr: t.addr},
		Expected:   l.expected,
		Seen:       l.seen,
		Evidence:   []Evidence{{Text: "its task_struct", Addr: t.addr}, {Text: "its struct nsproxy", Addr: c.proxy}},
		Basis:      "structures of the guest's kernel, compared with each other and with those of an earlier look",
		Show:       fmt.Sprintf("outsight creds {} --pid %d", t.pid),
	}, nil)
}
