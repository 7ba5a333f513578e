package text

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// state is what governs patch sites in one guest, as far as it is not read beside each.
type state struct {
	t      *Text
	ctx    context.Context // of the comparison: what is read late of the guest ends with it
	probes []probe         // by address

	// Of pv_ops, by the number of the pointer.
	pointers [256]uint64
	natives  [256][]byte // what stands for the function

	consts   map[string]uint64
	features []uint32
	thunks   bool // calls are counted
	// patching says that the kernel is patching its text, or says so.
	patching bool
	// changing has the keys of jump labels and static calls that the kernel is changing, among all else that the tasks
	// which do so have on their stacks.
	changing map[uint64]bool
	work     []linux.Work // of those who hold the mutexes
	// underWay says that who patches is a task that waits for a processor, or has one: for how long that is believed depends on earlier looks,
	// which package check keeps.
	underWay bool
	// Lock prefixes are in place, or all taken out; neither if it is not known.
	locks, noLocks bool

	// Of constants whose variable the compiler left out, the value that the first site has,
	// and the caches of slab objects, one of which it must be.
	unnamedMu sync.Mutex
	values    map[string]uint64
	caches    map[uint64]bool

	// Of ftrace, read when the first call for tracing is seen.
	tracing     sync.Once
	sites       []uint64          // functions that are traced, by address
	trampolines []uint64          // code that ftrace made, or calls directly
	funcs       []uint64          // of its users
	direct      map[uint64]uint64 // by function
	untraced    error             // the first of what could not be read of it

	// Whose code lies outside of the kernel's text, read when something leads there.
	owners func() *linux.Owners
}

func newState(t *Text) *state {
	st := &state{t: t, ctx: context.Background()}
	st.owners = sync.OnceValue(func() *linux.Owners {
		o, err := t.s.Owners()
		if err != nil {
			return nil
		}
		return o
	})
	return st
}

// readLocks reads whether the kernel has taken its lock prefixes out, as it does on one
// processor.
func (st *state) readLocks(s *linux.System) {
	st.locks, st.noLocks = false, false
	at := st.t.ref.names.uniproc
	if at == 0 {
		return
	}
	var b [1]byte
	if _, err := s.Space.ReadAt(b[:], virt.Addr(at+st.t.offset)); err == nil {
		st.locks, st.noLocks = b[0] == 0, b[0] == 1
	}
}

// load reads what every comparison needs.
func (st *state) load(ctx context.Context, s *linux.System) error {
	st.ctx = ctx
	st.consts = map[string]uint64{}
	for name, at := range st.t.ref.names.vars {
		if v, err := s.Space.U64(virt.Addr(at + st.t.offset)); err == nil {
			st.consts[name] = v
		}
	}
	st.readLocks(s)
	// Whoever patches the text holds the first; who changes a static key or call, and then its sites one by one, another.
	st.patching = s.Held(s.Space, "text_mutex", "static_call_mutex", "jump_label_mutex")
	st.readChanging(ctx, s)
	st.readThunks()
	st.readParavirt()
	st.readFeatures(s)
	probes, err := readProbes(ctx, s)
	st.probes = probes
	st.verifyProbes(s)
	if errors.Is(err, kobj.ErrUnsupported) {
		return nil // a kernel without kprobes
	}
	return err
}

// readChanging reads which keys are being changed. A key has its new value before its sites do, and those
// wait for text_mutex, which the function tracer may hold for ten seconds where the guest has little of a processor.
func (st *state) readChanging(ctx context.Context, s *linux.System) {
	st.changing, st.work, st.underWay = nil, nil, false
	if !st.patching {
		return
	}
	_, st.underWay = s.UnderWay(ctx, "text_mutex")
	st.work = s.AtWork("text_mutex", "static_call_mutex", "jump_label_mutex")
	for _, mutex := range []string{"static_call_mutex", "jump_label_mutex"} {
		words, err := s.InHand(ctx, mutex)
		if err != nil {
			continue // then nothing is explained by it
		}
		if st.changing == nil {
			st.changing = words
			continue
		}
		maps.Copy(st.changing, words)
	}
}

func (st *state) constant(name string) (uint64, bool) {
	if v, ok := st.consts[name]; ok {
		return v, true
	}
	return 0, name == "USER_PTR_MAX" // no variable outside of the function that sets it
}

// unnamed reports whether value may be a constant that has no variable, as the compiler removes one that nothing
// else reads: all sites must have the same value. Caches of slab objects (7.0) must be in the kernel's list of them;
// any other must be data that the kernel allocated, as the table of futexes is (__futex_queues, 7.3).
func (st *state) unnamed(c *image.RuntimeConst, value uint64) bool {
	st.unnamedMu.Lock()
	defer st.unnamedMu.Unlock()
	if st.caches == nil {
		st.values, st.caches = map[string]uint64{}, map[uint64]bool{}
		s := st.t.s
		head, err := s.SymbolAddr("slab_caches")
		if err != nil {
			return false
		}
		list, err := s.Member("kmem_cache", "list")
		if err != nil {
			return false
		}
		for node, err := range s.List(st.ctx, head, kobj.MaxElements) {
			if err != nil {
				break
			}
			st.caches[uint64(node)-uint64(list.Offset)] = true
		}
	}
	first, ok := st.values[c.Name]
	if !ok {
		st.values[c.Name], first = value, value
	}
	if first != value || st.caches[value] {
		return first == value
	}
	_, allocated := st.t.s.Space.DirectMapped(virt.Addr(value))
	return allocated && value%8 == 0 && !strings.Contains(c.Name, "cache")
}

// trace reads what ftrace knows.
func (st *state) trace() {
	ctx, s := st.ctx, st.t.s
	st.direct = map[uint64]uint64{}
	failed := func(err error) {
		if st.untraced == nil && !errors.Is(err, kobj.ErrUnsupported) {
			st.untraced = err
		}
	}
	for f, err := range hooks.FtraceSites(ctx, s) {
		switch {
		case err != nil:
			failed(err)
		case f.Enabled || f.Users > 0:
			st.sites = append(st.sites, uint64(f.Site))
		}
	}
	slices.Sort(st.sites)
	for o, err := range hooks.FtraceOps(ctx, s) {
		if err != nil {
			failed(err)
			continue
		}
		st.funcs = append(st.funcs, uint64(o.Func), uint64(o.Saved))
		for _, a := range []virt.Addr{o.Trampoline, o.Direct} {
			if a != 0 {
				st.trampolines = append(st.trampolines, uint64(a))
			}
		}
	}
	// A user that is just being removed is off the list, but is called until all functions
	// are patched (ftrace_shutdown).
	if o, err := s.Pointer("removed_ops"); err == nil && o != 0 {
		for _, member := range []string{"trampoline", "direct_call", "func"} {
			f, err := s.Member("ftrace_ops", member)
			if err != nil {
				continue
			}
			if a, err := s.Word(f.At(o)); err == nil && a != 0 {
				if member == "func" {
					st.funcs = append(st.funcs, a)
				} else {
					st.trampolines = append(st.trampolines, a)
				}
			}
		}
	}
	if fn, err := s.Pointer("ftrace_trace_function"); err == nil {
		st.funcs = append(st.funcs, uint64(fn))
	}
	slices.Sort(st.trampolines)
	slices.Sort(st.funcs)
	if err := st.readDirect(ctx); err != nil {
		failed(fmt.Errorf("functions that are called directly: %w", err))
	}
}

// maxDirect bounds the functions that are called directly: each is for one BPF program, or for a
// few, and 2^12 chains have them.
const maxDirect = 1 << 17

// readDirect reads which functions call what directly (direct_functions).
func (st *state) readDirect(ctx context.Context) error {
	s := st.t.s
	hash, err := s.Pointer("direct_functions")
	if err != nil || hash == 0 {
		return nil // built without, or none
	}
	var fields [5]kobj.Field
	for i, f := range [][2]string{{"ftrace_hash", "size_bits"}, {"ftrace_hash", "buckets"}, {"ftrace_func_entry", "hlist"}, {"ftrace_func_entry", "ip"}, {"ftrace_func_entry", "direct"}} {
		if fields[i], err = s.Member(f[0], f[1]); err != nil {
			return err
		}
	}
	left := maxDirect
	r := s.Reader()
	bits, buckets := r.Uint(hash, fields[0]), r.Pointer(hash, fields[1])
	if r.Err != nil || bits > 16 {
		return cmp.Or(r.Err, fmt.Errorf("%w: a table of 2^%d", kobj.ErrBroken, bits))
	}
	for i := range virt.Addr(1) << bits {
		if err := ctx.Err(); err != nil {
			return err
		}
		for node, err := range s.HList(ctx, buckets+8*i, maxDirect) {
			if err != nil {
				return err
			}
			// Chains may share their elements.
			if left--; left < 0 {
				return fmt.Errorf("%w: more than %d", kobj.ErrBudget, maxDirect)
			}
			e := node - virt.Addr(fields[2].Offset)
			ip, to := r.Pointer(e, fields[3]), r.Pointer(e, fields[4])
			if r.Err != nil {
				return r.Err
			}
			st.direct[uint64(ip)] = uint64(to)
		}
	}
	return nil
}

// traced reports whether ftrace's records say that the function at at is traced.
func (st *state) traced(at uint64) bool {
	st.tracing.Do(st.trace)
	_, found := slices.BinarySearch(st.sites, at)
	return found
}

// trampoline reports whether a traced function at at may call target.
func (st *state) trampoline(at, target uint64) bool {
	st.tracing.Do(st.trace)
	// The lowest bit says that the function jumps there instead of calling (since 6.19).
	if to, ok := st.direct[at]; ok && to&^1 == target {
		return true
	}
	_, found := slices.BinarySearch(st.trampolines, target)
	if !found {
		_, found = slices.BinarySearch(st.trampolines, target|1)
	}
	return found
}

// tracer reports whether a user of ftrace is at target.
func (st *state) tracer(target uint64) bool {
	st.tracing.Do(st.trace)
	_, found := slices.BinarySearch(st.funcs, target)
	return found
}
