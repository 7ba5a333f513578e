package kobj

import "reflect"

// Kept is room for a T that stays from look to look, for as long as a kernel runs: for what need
// not be read or judged again while the bytes that it came from are the same. It is the zero T
// at first, and looks at one guest share it: a T has its own lock.
func Kept[T any](s *Walker) *T {
	type room struct{ value T }
	key := reflect.TypeFor[room]()
	s.layouts.mu.Lock()
	defer s.layouts.mu.Unlock()
	if s.layouts.known == nil {
		s.layouts.known = map[reflect.Type]any{}
	}
	k, ok := s.layouts.known[key].(*room)
	if !ok {
		k = &room{}
		s.layouts.known[key] = k
	}
	return &k.value
}
