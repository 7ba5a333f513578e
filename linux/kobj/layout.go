package kobj

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

// Layouts are the groups of members resolved so far, by the type of the group.
type Layouts struct {
	mu    sync.Mutex
	known map[reflect.Type]any
}

type layout[T any] struct {
	once  sync.Once
	value T
	err   error
}

// LayoutOf is the members that one kind of object needs, resolved at its first use:
// what one view needs and this kernel lacks does not concern the others. T is a
// struct of the caller's own, and names the group; its members are best kept as
// [Field], which say their width too. resolve first calls [Resolver.Prefetch], which
// finds all names in one pass over the kernel's table.
func LayoutOf[T any](s *Walker, what string, resolve func(*Resolver, *T)) (*T, error) {
	return LayoutFrom(s, s.layouts, s.Profile, what, resolve)
}

// Types is where members are looked up: a kernel's types, or those of a module.
type Types interface {
	Field(structure, path string) (kernel.Field, error)
	StructSize(structure string) (uint32, error)
	EnumValue(enum, enumerator string) (int64, error)
}

// LayoutFrom resolves a group in the given types, or takes it from those known.
func LayoutFrom[T any](s *Walker, all *Layouts, from Types, what string, resolve func(*Resolver, *T)) (*T, error) {
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
		r := &Resolver{Profile: s.Profile, Types: from}
		resolve(r, &l.value)
		if len(r.Errs) > 0 {
			l.err = fmt.Errorf("%s: kernel %s: %w: %w", what, s.Release, ErrUnsupported, s.lacks(r.Errs))
		}
	})
	if l.err != nil {
		return nil, l.err
	}
	return &l.value, nil
}
