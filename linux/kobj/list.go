package kobj

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/virt"
)

// ErrBroken says that a list of the guest's does not hold together.
var ErrBroken = errors.New("the list is broken")

// poisonPrev is what the kernel leaves in the prev pointer of an element that was
// taken off an RCU list (LIST_POISON2). Its next pointer stays good for a while.
const poisonPrev = 0xdead_0000_0000_0122

// List walks the kernel's doubly linked list (struct list_head) at head and
// yields the address of every element's own list_head, limit of them at most.
//
// In a whole list each element points back at the one before, which also rules out
// cycles, so the common walk costs two words an element and no memory. Where that
// fails, what is wrong is reported, and the walk goes on with a set of what it has
// seen: first forward as far as it leads, then from the head backward.
func (s *Walker) List(ctx context.Context, head virt.Addr, limit int) iter.Seq2[virt.Addr, error] {
	return func(yield func(virt.Addr, error) bool) {
		w := listWalk{s: s, ctx: ctx, head: head, limit: limit, yield: yield}
		w.forward()
	}
}

type listWalk struct {
	s     *Walker
	ctx   context.Context
	head  virt.Addr
	limit int
	yield func(virt.Addr, error) bool
	n     int
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
	for {
		after, back, err := w.links(next)
		if err != nil || back != at {
			if next, after, err = w.settle(at, next); err != nil {
				w.resume(at, err)
				return
			}
		}
		if next == w.head {
			return
		}
		if w.n++; w.n > w.limit {
			w.yield(0, fmt.Errorf("list at %#x: %w: more than %d elements", uint64(w.head), ErrBroken, w.limit))
			return
		}
		if !w.yield(next, nil) {
			return
		}
		if w.n%1024 == 0 && w.ctx.Err() != nil {
			w.yield(0, w.ctx.Err())
			return
		}
		at, next = next, after
	}
}

// settle looks again at an element and its successor that disagreed: the guest
// may have been changing the list.
func (w *listWalk) settle(at, next virt.Addr) (_, after virt.Addr, err error) {
	const tries = 8
	for range tries {
		fresh := *w
		fresh.s = w.s.Fresh()
		var prev, back virt.Addr
		if next, prev, err = fresh.links(at); err != nil {
			continue
		}
		if after, back, err = fresh.links(next); err != nil {
			continue
		}
		// Either in order now, or this element was taken off just now: then its
		// successor no longer knows it, but still is its successor.
		if back == at || prev == poisonPrev {
			return next, after, nil
		}
		err = fmt.Errorf("element at %#x: %w: its successor at %#x points back at %#x", uint64(at), ErrBroken, uint64(next), uint64(back))
	}
	return next, after, err
}

// resume continues after the link from at to its successor was found broken.
func (w *listWalk) resume(at virt.Addr, cause error) {
	if !w.yield(0, cause) {
		return
	}
	seen := map[virt.Addr]bool{w.head: true}
	// What came before at was in order: walk it once more, silently.
	for e := w.head; e != at && len(seen) <= w.limit; {
		next, _, err := w.links(e)
		if err != nil {
			break
		}
		seen[next], e = true, next
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
