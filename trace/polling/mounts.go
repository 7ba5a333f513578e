package polling

import (
	"cmp"
	"context"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/virt"
)

type mount struct {
	point, typ, source string
	options            string
	root               string    // what is mounted of its file system
	super              virt.Addr // its file system
}

type mountKey struct {
	ns virt.Addr
	at virt.Addr
	id int32
}

// namespace is a mount namespace.
type namespace struct {
	inum  uint64
	event uint64 // differs when its mounts changed; 0 where the kernel does not count
	pid   int32  // of the first process in it
	known map[mountKey]mount
}

// mounts is the part that sees mounts come and go, in the namespaces that are known. What a new
// namespace begins with is a copy of another's, and no event.
type mounts struct {
	known map[virt.Addr]*namespace // nil before the first look
}

func newMounts() part { return &mounts{} }

func (p *mounts) forget() { p.known = nil }

// maxMountNamespaces bounds those that are looked at.
const maxMountNamespaces = 4096

func (p *mounts) look(ctx context.Context, r *round) error {
	l, err := r.look(ctx)
	if err != nil {
		return err
	}
	o, err := kobj.LayoutOf(l.Linux.Walker, "events of mount namespaces", func(r *kobj.Resolver, o *struct{ event kobj.Field }) {
		o.event = r.Optional("mnt_namespace", "event")
	})
	if err != nil {
		return err
	}
	reader, words := l.Linux.NewProcessReader(), l.Linux.Reader()
	now := map[virt.Addr]*namespace{}
	var gap error
	var came, went []trace.Event
	for i := range r.s.processes.known {
		k := &r.s.processes.known[i]
		if k.exited || k.kernel {
			continue
		}
		a, inum, err := reader.MountNamespaceOf(l.Linux.TaskAt(k.Task))
		if err != nil || a == 0 || now[a] != nil || len(now) >= maxMountNamespaces {
			continue // it may just be ending
		}
		n := &namespace{inum: inum, pid: k.PID}
		if o.event.Present() {
			words.Err = nil
			n.event = words.Uint(a, o.event)
		}
		now[a] = n
		was := p.known[a]
		if was != nil && was.inum != inum {
			was = nil
		}
		if was != nil && o.event.Present() && words.Err == nil && was.event == n.event {
			n.known = was.known
			continue
		}
		n.known = map[mountKey]mount{}
		whole := true
		for m, err := range reader.Mounts(ctx, a) {
			if m == nil {
				whole, gap = false, err
				continue
			}
			n.known[mountKey{a, m.Addr, m.ID}] = mountOf(m)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if was != nil {
			c, w := n.compare(r, was, whole)
			came, went = append(came, c...), append(went, w...)
		}
	}
	p.known = now
	// A mount spreads to the namespaces that share with its own: it is one event.
	seen := map[[3]string]bool{}
	for _, e := range append(went, came...) {
		id := [3]string{string(e.Kind), e.Object, e.Args}
		if !seen[id] {
			seen[id] = true
			r.emit(e)
		}
	}
	return gap
}

func mountOf(m *linux.Mount) mount {
	return mount{strings.Clone(m.Point), strings.Clone(m.Type), strings.Clone(m.Source), strings.Join(m.Options, ","), strings.Clone(m.Root), m.Super}
}

// maxBound bounds the new mounts of one look that are compared with all others.
const maxBound = 256

// inOrder are mounts, the one that was made first in front.
func inOrder(known map[mountKey]mount) []mountKey {
	return slices.SortedFunc(maps.Keys(known), func(a, b mountKey) int { return cmp.Compare(a.id, b.id) })
}

// bound is the path that a new mount shows a second time, by another one that shows it, if there is one that was there before; empty: no other does.
// Numbers are used again, so that of two new mounts the first is only likely to have the lower one.
func (n *namespace) bound(was *namespace, k mountKey, m mount) (from string) {
	best := int32(math.MaxInt32)
	for other, shown := range n.known {
		if _, before := was.known[other]; other == k || shown.super != m.super || !before && other.id > k.id || other.id > best {
			continue
		}
		part, below := strings.CutPrefix(m.root, strings.TrimSuffix(shown.root, "/"))
		if below && (part == "" || part[0] == '/') {
			best, from = other.id, path.Join(shown.point, part)
		}
	}
	return from
}

// compare makes events of what differs from before.
func (n *namespace) compare(r *round, was *namespace, whole bool) (came, went []trace.Event) {
	event := func(kind trace.Kind, k mountKey, m mount, note string) trace.Event {
		e := trace.Event{Kind: kind, Note: note}
		what := trace.Mounting{Source: m.source, Type: m.typ, Target: m.point, Root: m.root, Moves: true, Detached: true}
		if kind == trace.KindMount && note == "" && len(came) < maxBound {
			what.From = n.bound(was, k, m)
		}
		e.Mounts(what)
		e.Args += " (" + m.options + ")"
		if n.inum != initMounts(r) {
			e.Process, e.TID = r.s.processes.byPID(n.pid), n.pid
			e.InNamespace(n.inum)
		}
		return e
	}
	for _, k := range inOrder(n.known) {
		m := n.known[k]
		if before, known := was.known[k]; !known {
			came = append(came, event(trace.KindMount, k, m, ""))
		} else if before != m {
			came = append(came, event(trace.KindMount, k, m, "changed: it was "+before.options+" on "+before.point))
		}
	}
	for _, k := range inOrder(was.known) {
		m := was.known[k]
		if _, still := n.known[k]; still {
			continue
		}
		if !whole {
			n.known[k] = m
			continue
		}
		went = append(went, event(trace.KindUnmount, k, m, ""))
	}
	return came, went
}

// initMounts is the number of the mount namespace of the first process; 0 if it is not known.
func initMounts(r *round) uint64 {
	if r.kept == nil || len(r.s.processes.known) == 0 {
		return 0
	}
	_, inum, err := r.kept.Linux.NewProcessReader().MountNamespaceOf(r.kept.Linux.TaskAt(r.s.processes.known[0].Task))
	if err != nil {
		return 0
	}
	return inum
}
