package linux

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// ErrUnsupported says that this kernel has no such objects, or keeps them in a way
// that is not known: it is older or newer than what was tried, or was built
// without the feature.
var ErrUnsupported = errors.New("this kernel does not have them in a known form")

// layouts are the groups of members resolved so far, by the type of the group.
type layouts struct {
	mu    sync.Mutex
	known map[reflect.Type]any
}

type layout[T any] struct {
	once  sync.Once
	value T
	err   error
}

// layoutOf is the members that one kind of object needs, resolved at its first use:
// what one view needs and this kernel lacks does not concern the others. T is a
// struct of the caller's own, and names the group; its members are best kept as
// [kernel.Field], which say their width too. resolve first calls symbols, which
// finds all names in one pass over the kernel's table.
func layoutOf[T any](s *System, what string, resolve func(*resolver, *T)) (*T, error) {
	return layoutFrom(s, &s.layouts, s.Profile, what, resolve)
}

// types is where members are looked up: a kernel's types, or those of a module.
type types interface {
	Field(structure, path string) (kernel.Field, error)
	StructSize(structure string) (uint32, error)
	EnumValue(enum, enumerator string) (int64, error)
}

// layoutFrom resolves a group in the given types, or takes it from those known.
func layoutFrom[T any](s *System, all *layouts, from types, what string, resolve func(*resolver, *T)) (*T, error) {
	key := reflect.TypeFor[T]()
	all.mu.Lock()
	if all.known == nil {
		all.known = map[reflect.Type]any{}
	}
	l, ok := all.known[key].(*layout[T])
	if !ok {
		l = &layout[T]{}
		all.known[key] = l
	}
	all.mu.Unlock()
	l.once.Do(func() {
		r := &resolver{p: s.Profile, types: from}
		resolve(r, &l.value)
		if len(r.errs) > 0 {
			l.err = fmt.Errorf("%s: kernel %s: %w: %w", what, s.Release, ErrUnsupported, errors.Join(r.errs...))
		}
	})
	if l.err != nil {
		return nil, l.err
	}
	return &l.value, nil
}

// symbols looks names up in one pass, so that [kernel.Kernel.Address] knows them at
// once afterwards. Names that the kernel lacks are no error.
func (r *resolver) symbols(names ...string) {
	if err := r.p.Prefetch(names...); err != nil {
		r.errs = append(r.errs, err)
	}
}

// optional is a member that some kernels, or some builds, lack: [has] tells.
func (r *resolver) optional(structure string, paths ...string) kernel.Field {
	f, _ := r.find(structure, paths...)
	return f
}

// has reports whether the kernel has member f.
func has(f kernel.Field) bool { return f.Offset != absent }

// symbol is the address of a variable or function that this kernel must have.
func (s *System) symbol(name string) (virt.Addr, error) {
	a, ok := s.Address(name)
	if !ok {
		return 0, fmt.Errorf("symbol %s: %w", name, kernel.ErrNoSymbol)
	}
	return a, nil
}

// listHead finds a list head by its name, which static variables of several files may
// share ("formats" with CONFIG_PREEMPT_RT): the first from which a list with elements leads
// out and back. Where there is none it is the first of all, so that damage is told.
func (s *System) listHead(name string) (virt.Addr, error) {
	first, err := s.symbol(name)
	if err != nil || s.leadsBack(first) {
		return first, err
	}
	all, err := s.Choose("all "+name, func(k kernel.Symbol) bool { return k.Name == name && !k.Percpu })
	if err != nil {
		return first, nil //nolint:nilerr // what there is to choose from
	}
	for _, k := range all {
		if a := s.Text + virt.Addr(k.Rel); s.leadsBack(a) {
			return a, nil
		}
	}
	return first, nil
}

// leadsBack reports whether there is an element behind a list head that has it before itself.
func (s *System) leadsBack(head virt.Addr) bool {
	next, err := s.word(head)
	if err != nil || virt.Addr(next) == head || !s.Space.KernelHalf(virt.Addr(next)) {
		return false
	}
	back, err := s.word(virt.Addr(next) + 8)
	return err == nil && virt.Addr(back) == head
}

// num reads member f of the structure at a: 1, 2, 4 or 8 bytes, or a bit field. A
// member that this kernel lacks reads as 0.
func (r *reader) num(a virt.Addr, f kernel.Field) uint64 {
	if f.Offset == absent {
		return 0
	}
	at := a + virt.Addr(f.Offset)
	var v uint64
	switch {
	case f.Size >= 8:
		v = r.u64(at)
	case f.Size == 4:
		v = uint64(r.u32(at))
	default:
		var b [8]byte
		if f.Size == 0 || !r.may() {
			return 0
		}
		if _, r.err = r.space.ReadAt(b[:f.Size], at); r.err != nil {
			return 0
		}
		for i := range f.Size {
			v |= uint64(b[i]) << (8 * i)
		}
	}
	if f.BitSize != 0 && f.BitSize < 64 {
		v = v >> f.BitOff & (1<<f.BitSize - 1)
	}
	return v
}

// signed is num of a signed member.
func (r *reader) signed(a virt.Addr, f kernel.Field) int64 {
	bits := 8 * min(f.Size, 8)
	if f.BitSize != 0 {
		bits = uint32(f.BitSize)
	}
	shift := 64 - bits
	return int64(r.num(a, f)<<shift) >> shift
}

// pointer reads the pointer in member f of the structure at a; 0 where the kernel
// lacks it.
func (r *reader) pointer(a virt.Addr, f kernel.Field) virt.Addr {
	if f.Offset == absent {
		return 0
	}
	return r.ptr(a + virt.Addr(f.Offset))
}

// at is where member f of the structure at a lies. The kernel must have it.
func at(a virt.Addr, f kernel.Field) virt.Addr { return a + virt.Addr(f.Offset) }

// since reports whether the kernel is of that release or later: for what changed and
// left no trace in its types. A back-port can make it wrong.
func (s *System) since(major, minor int) bool {
	var a, b int
	n, _ := fmt.Sscanf(s.Release, "%d.%d", &a, &b)
	return n == 2 && (a > major || a == major && b >= minor)
}
