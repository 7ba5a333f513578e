package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Options say how to look for a kernel.
type Options struct {
	// Cache is the folder that keeps parsed profiles; empty for none.
	Cache string
	// Roots gives the CR3 values of the guest's processors, where they are known.
	// A kernel that none of them maps does not run, however whole it looks: the
	// guest was reset, and is in its firmware or boot loader. It is called when
	// a kernel was found, more than once if none of them fits, and may be nil.
	Roots func() []uint64
	// Proven says that the memory's map came from the machine's own monitor, and
	// needs no proof by the guest's page tables.
	Proven bool
	// Symbols will be needed; looking them all up at once is much cheaper.
	Symbols []string
	// Warn gets what went wrong without being fatal, such as a damaged
	// cache. It may be nil.
	Warn func(error)
}

// Errors of [Find].
var (
	// ErrNoKernel says that no Linux kernel is in memory.
	ErrNoKernel = errors.New("no Linux kernel found")
	// ErrEmpty says that memory holds nothing at all.
	ErrEmpty = errors.New("memory is all zeros")
	// ErrNotRunning says that a kernel is there, but is not what runs.
	ErrNotRunning = errors.New("the kernel in memory does not run")
	// ErrForeign says that memory holds another system than Linux on amd64.
	ErrForeign = errors.New("another system is in memory")
)

// Find finds the kernel that runs in mem.
func Find(ctx context.Context, mem phys.Memory, opts Options) (*Kernel, error) {
	if opts.Warn == nil {
		opts.Warn = func(error) {}
	}
	f := finder{ctx: ctx, mem: mem, opts: opts}
	if k := f.quick(); k != nil {
		return k, nil
	}
	if k := f.thorough(); k != nil {
		return k, nil
	}
	if k := f.concatenated(); k != nil {
		return k, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var size uint64
	for _, r := range mem.Ranges() {
		size += r.Size()
	}
	if f.idle == nil && !f.zero {
		if what := foreign(ctx, mem); what != "" {
			return nil, fmt.Errorf("%w: %s", ErrForeign, what)
		}
	}
	switch {
	case f.idle != nil:
		return nil, fmt.Errorf("%w: no processor was seen in kernel %s at %#x: the guest was reset and is in its firmware or boot loader, or it runs a guest of its own", ErrNotRunning, f.idle.Release, uint64(f.idle.TextPA))
	case f.failed != nil:
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, f.failed)
	case f.zero:
		return nil, fmt.Errorf("%w: %w (%d MiB)", ErrNoKernel, ErrEmpty, size>>20)
	default:
		return nil, fmt.Errorf("%w in %d MiB of memory", ErrNoKernel, size>>20)
	}
}

type finder struct {
	ctx    context.Context
	mem    phys.Memory
	opts   Options
	failed error   // why the last image was refused
	idle   *Kernel // whole, but not mapped by any processor
	zero   bool
	cr3    []uint64 // as last asked for
	asks   int
	moved  []phys.Addr // images off the boundary where kernels lie
}

// candidate is a place where a kernel's read-only data may begin.
type candidate struct {
	start  phys.Addr
	banner string
}

// quick looks only where a kernel's read-only data may begin. A process in the
// guest can make any number of places look so, and cannot be distinguished from a kernel by
// a look: each place gets its turn, those that a processor maps as its kernel come
// first, and what is far from its start is looked for only in a second round.
func (f *finder) quick() *Kernel {
	var all []candidate
	for start, banner := range rodataStarts(f.ctx, f.mem) {
		all = append(all, candidate{start, banner})
	}
	if len(all) > 1 {
		f.mappedFirst(all)
	}
	for _, window := range []int{windowUsual, windowMax} {
		var best *Kernel
		var undecided []candidate
		budget := searchMax
		for _, c := range all {
			if f.ctx.Err() != nil {
				break
			}
			k, err := f.try(c, window, &budget)
			if err != nil {
				f.failed = err
				undecided = append(undecided, c)
			}
			best = f.better(best, k)
			if best != nil && len(f.roots()) > 0 {
				return best // a processor runs it: no other can be better
			}
		}
		if best != nil {
			return best
		}
		all = undecided
	}
	return nil
}

// try makes a kernel of a candidate, if it is one. An error says that its tables
// were not found.
func (f *finder) try(c candidate, window int, budget *int) (*Kernel, error) {
	im, entry := loadCached(f.mem, c.start, c.banner, f.opts)
	if im == nil {
		var err error
		if im, err = parseAt(f.mem, c.start, 0, window, f.opts.Symbols, budget); err != nil {
			return nil, err
		}
	}
	return f.judge(im, entry), nil
}

// mappedFirst moves the candidates to the front that a processor's page tables map
// where kernels are mapped. That orders, and decides nothing.
func (f *finder) mappedFirst(all []candidate) {
	mapped := map[phys.Addr]bool{}
	for _, cr3 := range f.roots() {
		for _, levels := range []int{virt.Levels4, virt.Levels5} {
			// Bit 12 is not cleared: under page-table isolation a user's half of the
			// tables maps little of the kernel, but the next processor's may be whole.
			space := virt.New(f.mem, virt.Root(cr3, false), levels)
			for m := range space.Mappings(startKernelMap, startKernelMap+imageMax-1) {
				mapped[m.PA&^(align-1)] = true
			}
		}
	}
	slices.SortStableFunc(all, func(a, b candidate) int {
		switch {
		case mapped[a.start] == mapped[b.start]:
			return 0
		case mapped[a.start]:
			return -1
		}
		return 1
	})
}

// thorough reads all of memory.
func (f *finder) thorough() *Kernel {
	hits, zero := fullScan(f.ctx, f.mem)
	f.zero = zero
	var best *Kernel
	budget := searchMax
	for _, hit := range hits {
		if f.ctx.Err() != nil {
			break
		}
		// The window must hold the names before the index, and begin where the
		// memory that the hit is in begins at the earliest.
		start := (hit - min(hit, windowMax/4)) &^ (phys.PageSize - 1)
		for _, r := range f.mem.Ranges() {
			if r.Contains(hit, 1) {
				start = max(start, r.Start)
			}
		}
		im, err := parseAt(f.mem, start, int(hit-start), windowMax, f.opts.Symbols, &budget)
		if err != nil {
			f.failed = err
			if e, ok := errors.AsType[*movedError](err); ok {
				f.moved = append(f.moved, e.text)
			}
			if errors.Is(err, errTooMany) {
				break
			}
			continue
		}
		best = f.better(best, f.judge(im, nil))
	}
	return best
}

// judge makes a kernel of an image, if it is one that runs.
func (f *finder) judge(im *image, entry *cacheEntry) *Kernel {
	if err := im.profile.Prefetch(f.opts.Symbols...); err != nil {
		f.failed = err
		return nil
	}
	im.guess = !f.opts.Proven
	k, err := im.settle()
	if err != nil {
		f.failed = err
		return nil
	}
	if !f.runs(k) {
		f.idle = k
		return nil
	}
	if entry == nil {
		entry = newCacheEntry(im, f.opts)
	}
	k.cache = entry
	if k.lost != "" {
		f.opts.Warn(errors.New(k.lost))
	}
	if _, named := k.Symbol("_end"); !named {
		f.opts.Warn(fmt.Errorf("kernel %s was built without CONFIG_KALLSYMS_ALL: its variables have no names, and what only they lead to is missing", k.Release))
	}
	return k
}

// maxAsks is how often one search asks the processors for their registers.
const maxAsks = 4

// runs reports whether one of the processors was seen to run k. They are asked
// again if not: one may be in system management mode, or in a guest of the guest's.
func (f *finder) runs(k *Kernel) bool {
	if k.mappedBy(f.roots()) {
		return true
	}
	for f.asks < maxAsks {
		time.Sleep(5 * time.Millisecond)
		f.ask()
		if len(f.cr3) > 0 && k.mappedBy(f.cr3) {
			return true
		}
	}
	return false
}

// roots are the processors' page tables; none where they are not known.
func (f *finder) roots() []uint64 {
	if f.asks == 0 {
		f.ask()
	}
	return f.cr3
}

func (f *finder) ask() {
	f.asks++
	if f.opts.Roots != nil {
		f.cr3 = f.opts.Roots()
	}
}

// better chooses between two kernels that both look alive: a guest that was
// rebooted may still hold the one from before. The later clock is the living one's.
func (f *finder) better(a, b *Kernel) *Kernel {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	// An orderly reboot leaves a mark.
	if (a.State == StateRestarting) != (b.State == StateRestarting) {
		if a.State == StateRestarting {
			return b
		}
		return a
	}
	ta, errA := a.Clock()
	tb, errB := b.Clock()
	if errA != nil || errB == nil && tb.Now.After(ta.Now) {
		return b
	}
	return a
}

// mappedBy reports whether any of the processors' page tables maps the kernel.
// Without processors to ask it is taken as so.
func (k *Kernel) mappedBy(roots []uint64) bool {
	if len(roots) == 0 {
		return true
	}
	for _, cr3 := range roots {
		for _, pti := range []bool{true, false} {
			root := virt.Root(cr3, pti)
			page, err := virt.New(k.Memory, root, k.Space.Levels()).Translate(k.Text)
			if err == nil && page.PA == k.TextPA {
				return true
			}
		}
	}
	return false
}

// Save writes what was learned of this kernel to the cache, if there is one and
// it does not know that yet.
func (k *Kernel) Save() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cache == nil || !k.dirty {
		return nil
	}
	if err := k.cache.save(k.Profile); err != nil {
		return fmt.Errorf("save kernel profile: %w", err)
	}
	k.dirty = false
	return nil
}
