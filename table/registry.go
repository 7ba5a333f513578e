package table

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
)

var registry = struct {
	sync.RWMutex
	views map[string]View
}{views: map[string]View{}}

// Register adds a view to the registry. It panics when v is not well formed (see
// [Validate]) or its name is taken: both are mistakes of the programmer, to be
// seen at start-up.
func Register(v View) {
	if v.Name() == "" {
		panic("table: a view without a name")
	}
	registry.Lock()
	defer registry.Unlock()
	if _, taken := registry.views[v.Name()]; taken {
		panic(fmt.Sprintf("table: two views are named %q", v.Name()))
	}
	registry.views[v.Name()] = v
}

// Lookup finds a view by its name.
func Lookup(name string) (View, bool) {
	registry.RLock()
	defer registry.RUnlock()
	v, ok := registry.views[name]
	return v, ok
}

// All returns the registered views, sorted by name.
func All() []View {
	registry.RLock()
	defer registry.RUnlock()
	all := make([]View, 0, len(registry.views))
	for _, name := range slices.Sorted(maps.Keys(registry.views)) {
		all = append(all, registry.views[name])
	}
	return all
}

// Validate reports what is wrong with the definition of a view: names that
// break the rules, missing documentation, columns of the same name. A test calls
// it for every registered view, so that start-up does not pay for it.
func Validate(v View) error {
	name := regexp.MustCompile(`^[a-z][a-z0-9]*([_-][a-z0-9]+)*$`)
	if !name.MatchString(v.Name()) {
		return fmt.Errorf("view %q: a name is lower-case words", v.Name())
	}
	if Summary(v) == "" {
		return fmt.Errorf("view %s: no documentation", v.Name())
	}
	seen := map[string]bool{}
	for _, c := range v.Columns() {
		switch {
		case !name.MatchString(c.Name):
			return fmt.Errorf("view %s: column %q: a name is lower-case words", v.Name(), c.Name)
		case seen[c.Name]:
			return fmt.Errorf("view %s: two columns are named %s", v.Name(), c.Name)
		case c.Doc == "":
			return fmt.Errorf("view %s: column %s: no documentation", v.Name(), c.Name)
		case c.Type == Null || int(c.Type) >= len(typeNames):
			return fmt.Errorf("view %s: column %s: no type", v.Name(), c.Name)
		case c.Option && c.Type != Bool:
			return fmt.Errorf("view %s: option %s is of type %s, not bool", v.Name(), c.Name, c.Type)
		}
		if i := ColumnIndex(v.Columns(), c.With); c.With != "" && (i < 0 || !v.Columns()[i].Option) {
			return fmt.Errorf("view %s: column %s: no option %s", v.Name(), c.Name, c.With)
		}
		seen[c.Name] = true
	}
	if len(seen) == 0 {
		return fmt.Errorf("view %s: no columns", v.Name())
	}
	if err := validateKey(SpecOf(v), seen); err != nil {
		return err
	}
	if c, ok := v.(interface{ check() error }); ok {
		return c.check()
	}
	return nil
}

// validateKey checks what a view says of its rows: where they are read from, and what identifies
// them apart.
func validateKey(s Spec, columns map[string]bool) error {
	if s.Source == "" {
		return fmt.Errorf("view %s: no source: which structures is it read from?", s.Name)
	}
	if s.Single != (len(s.Key) == 0) {
		return fmt.Errorf("view %s: a view of several rows has a key, one of a single row has none", s.Name)
	}
	for i, name := range s.Key {
		if !columns[name] {
			return fmt.Errorf("view %s: the key has no column %q", s.Name, name)
		}
		if slices.Contains(s.Key[:i], name) {
			return fmt.Errorf("view %s: the key names %s twice", s.Name, name)
		}
	}
	return nil
}
