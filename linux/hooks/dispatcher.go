package hooks

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// dispatched follows the dispatcher of an ABI for each number: for n of them, or,
// where that is 0, up to the last that differs from those without a call.
func dispatched(ctx context.Context, s *linux.System, owners *linux.Owners, w abiWay, n int) ([]x86.Target, error) {
	start, size, ok := s.TableAt(w.dispatcher)
	if !ok {
		return nil, nil
	}
	kept := kobj.Kept[dispatchers](s.Walker)
	if targets, ok := kept.again(s, w.dispatcher, n); ok {
		return targets, nil
	}
	memory := &recorder{memory: s.Space}
	targets, err := follow(ctx, &x86.Selector{Memory: memory, Start: start, Size: size, Name: func(a virt.Addr) string {
		if o := owners.CodeAt(a); o.Offset == 0 {
			return o.Symbol
		}
		return ""
	}}, n)
	if err == nil {
		kept.keep(w.dispatcher, &dispatcher{n: n, read: memory.read, targets: slices.Clone(targets)})
	}
	return targets, err
}

// follow follows a dispatcher for each number.
func follow(ctx context.Context, sel *x86.Selector, n int) ([]x86.Target, error) {
	none, err := sel.Follow(x86asm.RSI, 1<<20)
	if err != nil {
		return nil, err
	}
	limit := n
	if n == 0 {
		limit = maxSyscalls
	}
	targets := make([]x86.Target, 0, limit)
	used := n
	for nr := range limit {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t, err := sel.Follow(x86asm.RSI, uint32(nr))
		if err != nil {
			return targets[:min(used, len(targets))], fmt.Errorf("number %d: %w", nr, err)
		}
		if n == 0 && t.Addr != none.Addr {
			used = nr + 1
		}
		targets = append(targets, t)
	}
	return targets[:used], nil
}

// dispatchers are where dispatchers led. They are followed again only if something differs
// that was read of them: their code, and the tables that it jumps by.
type dispatchers struct {
	mu    sync.Mutex
	known map[string]*dispatcher
}

type dispatcher struct {
	n       int // numbers that were asked for
	read    map[virt.Addr][]byte
	targets []x86.Target
}

// again is where a dispatcher led, if it is as it was.
func (k *dispatchers) again(s *linux.System, name string, n int) ([]x86.Target, bool) {
	k.mu.Lock()
	d := k.known[name]
	k.mu.Unlock()
	if d == nil || d.n != n {
		return nil, false
	}
	var now [x86.MaxInstruction + 1]byte
	for a, was := range d.read {
		b := now[:len(was)]
		if _, err := s.Space.ReadAt(b, a); err != nil || !bytes.Equal(b, was) {
			return nil, false
		}
	}
	return slices.Clone(d.targets), true
}

func (k *dispatchers) keep(name string, d *dispatcher) {
	for _, b := range d.read {
		if len(b) > x86.MaxInstruction+1 {
			return
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		k.known = map[string]*dispatcher{}
	}
	k.known[name] = d
}

// recorder is memory that remembers what was read of it.
type recorder struct {
	memory x86.Reader
	read   map[virt.Addr][]byte
}

// ReadAt implements [x86.Reader].
func (r *recorder) ReadAt(p []byte, a virt.Addr) (int, error) {
	n, err := r.memory.ReadAt(p, a)
	if r.read == nil {
		r.read = map[virt.Addr][]byte{}
	}
	if was := r.read[a]; n > len(was) {
		r.read[a] = slices.Clone(p[:n])
	}
	return n, err
}
