package kobj

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/virt"
)

// ErrBroken says that a list of the guest's does not hold together.
var ErrBroken = errors.New("the list is broken")

// List walks the kernel's doubly linked list (struct list_head) at head and
// yields the address of every element's own list_head, limit of them at most.
//
// In a whole list each element points back at the one before, which also rules out
// cycles, so the common walk costs two words an element. Where that fails the guest may have
// changed the list, and the walk goes on from the last element that is still in its place.
// Where it fails for good what is wrong is reported, and the walk goes on with a set of what
// it has seen: first forward as far as it leads, then from the head backward.
func (s *Walker) List(ctx context.Context, head virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		path := paths.Get().(*[]virt.Addr)
		w := listWalk{s: s, ctx: ctx, head: head, limit: limit, yield: yield, path: append((*path)[:0], head)}
		w.forward()
		if *path = w.path; cap(w.path) <= maxPath {
			paths.Put(path)
		}
	}
}

// Linked reports whether the list_head at node is in a list now, whatever is kept of the guest: one that
// was taken off leads nowhere, or to itself.
func (s *Walker) Linked(node virt.Addr) bool {
	now := s.Space.Live()
	next, err := now.U64(node)
	if err != nil || virt.Addr(next) == node {
		return false
	}
	back, err := now.U64(virt.Addr(next) + 8)
	return err == nil && virt.Addr(back) == node
}

// paths are room for the elements that a walk has passed.
var paths = sync.Pool{New: func() any { return &[]virt.Addr{} }}

// maxPath is how much room is kept for the next walk.
const maxPath = 1 << 16

type listWalk struct {
	s     *Walker
	ctx   context.Context
	head  virt.Addr
	limit int
	yield func(virt.Addr, error) bool
	n     int
	path  []virt.Addr // the head and all that was passed since, as far as it is in its place
	skip  map[virt.Addr]bool
}

// links reads an element's next and prev.
func (w *listWalk) links(at virt.Addr) (next, prev virt.Addr, err error) {
	if !w.s.Space.KernelHalf(at) || at%8 != 0 {
		return 0, 0, fmt.Errorf("element at %#x: %w: no kernel pointer", uint64(at), ErrBroken)
	}
	n, err := w.s.Space.U64(at)
	if err != nil {
		return 0, 0, err
	}
	p, err := w.s.Space.U64(at + 8)
	return virt.Addr(n), virt.Addr(p), err
}

func (w *listWalk) forward() {
	at := w.head
	next, _, err := w.links(at)
	if err != nil {
		w.yield(0, fmt.Errorf("list head at %#x: %w", uint64(at), err))
		return
	}
	// Brent's algorithm finds out if the walk goes round: what is kept of elements that were
	// taken off and put in again may be of two times, and agree.
	var tortoise virt.Addr
	power, lap := 64, 0
	for {
		after, back, err := w.links(next)
		if err != nil || back != at {
			if next, after, err = w.settle(); err != nil {
				w.resume(at, err)
				return
			}
		}
		if next == w.head {
			return
		}
		if next == tortoise && w.skip == nil {
			w.afresh()
			return
		}
		if lap++; lap == power {
			tortoise, power, lap = next, 2*power, 0
		}
		if w.n++; w.n > w.limit {
			w.yield(0, fmt.Errorf("list at %#x: %w: more than %d elements", uint64(w.head), ErrBroken, w.limit))
			return
		}
		if !w.skip[next] && !w.yield(next, nil) {
			return
		}
		if w.n%1024 == 0 && w.ctx.Err() != nil {
			w.yield(0, w.ctx.Err())
			return
		}
		w.path = append(w.path, next)
		at, next = next, after
	}
}

// afresh follows the list once more, and yields what was not passed before.
func (w *listWalk) afresh() {
	w.skip = make(map[virt.Addr]bool, len(w.path))
	for _, e := range w.path {
		w.skip[e] = true
	}
	w.s, w.path = w.s.Fresh(), w.path[:1]
	w.forward()
}

const (
	settleTries = 8
	// How far a walk goes back: more than that does not leave a list while it is followed.
	maxBack = 4096
	// near is how far before an element the one may have been passed that it follows now,
	// because those between were taken off.
	near = 64
	// together is how many elements may have moved to another place one after the other, for
	// that to be noticed.
	together = 8
)

// settle looks again where the walk has come to, at what follows in a list that was in disorder
// there: the guest may have been changing it. An element that was taken off leads nowhere, or
// into the list that it or its memory is in by now. So the walk goes on from the last of those
// that it has passed that is still in its place.
func (w *listWalk) settle() (next, after virt.Addr, err error) {
	for range settleTries {
		now := *w
		now.s = w.s.Fresh()
		if next, after, err = now.again(); err == nil {
			w.path = now.path
			return next, after, nil
		}
	}
	return next, after, err
}

// again is the successor of the last element that is in its place, and the successor of that.
func (w *listWalk) again() (next, after virt.Addr, err error) {
	lost := error(nil)
	for k := len(w.path) - 1; k >= 0 && (k == 0 || k >= len(w.path)-maxBack); k-- {
		at := w.path[k]
		next, prev, err := w.links(at)
		if err == nil && k > 0 && !w.follows(at, prev, k) {
			err = fmt.Errorf("element at %#x: %w: it is no longer where it was", uint64(at), ErrBroken)
		}
		if err != nil {
			if lost == nil {
				lost = err
			}
			continue
		}
		after, back, err := w.links(next)
		switch {
		case err != nil:
			return next, after, err
		case back == at:
		case k > 0 && back == prev && (next == w.head || !slices.Contains(w.path, next)): // at is just being taken off, or put in
		default:
			return next, after, fmt.Errorf("element at %#x: %w: its successor at %#x points back at %#x", uint64(at), ErrBroken, uint64(next), uint64(back))
		}
		w.path = w.path[:k+1]
		return next, after, nil
	}
	return 0, 0, lost
}

// follows reports whether at, which is number k of the path, follows prev, which was passed
// before it, and that one its own, and so on: elements may have moved together.
func (w *listWalk) follows(at, prev virt.Addr, k int) bool {
	for range together {
		first := max(0, k-near)
		i := slices.Index(w.path[first:k], prev)
		if i < 0 {
			return false
		}
		next, before, err := w.links(prev)
		if err != nil || next != at {
			return false
		}
		if k = first + i; k == 0 {
			return true
		}
		at, prev = prev, before
	}
	return true
}

// resume continues after the link from at to its successor was found broken.
func (w *listWalk) resume(at virt.Addr, cause error) {
	if !w.yield(0, cause) {
		return
	}
	seen := make(map[virt.Addr]bool, len(w.path))
	for _, e := range w.path {
		seen[e] = true
	}
	// On the way back elements that were seen lead on to others, which only their
	// next pointers hide; but none is passed twice.
	stopped := false
	passed := map[virt.Addr]bool{}
	walk := func(e virt.Addr, back bool) {
		for n := 0; n <= w.limit && w.ctx.Err() == nil; n++ {
			next, prev, err := w.links(e)
			if back {
				next = prev
			}
			if err != nil || next == w.head || seen[next] && !back || passed[next] {
				return
			}
			if back {
				passed[next] = true
			}
			if _, _, err := w.links(next); err != nil {
				return
			}
			if !seen[next] {
				if len(seen) > w.limit {
					return
				}
				seen[next] = true
				if stopped = !w.yield(next, nil); stopped {
					return
				}
			}
			e = next
		}
	}
	walk(at, false)
	if !stopped {
		walk(w.head, true)
	}
}
