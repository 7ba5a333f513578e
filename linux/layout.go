package linux

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/outsight-vmi/outsight/kernel"
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
// [Field], which say their width too. resolve first calls symbols, which
// finds all names in one pass over the kernel's table.
func layoutOf[T any](s *Walker, what string, resolve func(*resolver, *T)) (*T, error) {
	return layoutFrom(s, &s.layouts, s.Profile, what, resolve)
}

// types is where members are looked up: a kernel's types, or those of a module.
type types interface {
	Field(structure, path string) (kernel.Field, error)
	StructSize(structure string) (uint32, error)
	EnumValue(enum, enumerator string) (int64, error)
}

// layoutFrom resolves a group in the given types, or takes it from those known.
func layoutFrom[T any](s *Walker, all *layouts, from types, what string, resolve func(*resolver, *T)) (*T, error) {
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
