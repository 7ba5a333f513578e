package check

import (
	"errors"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
)

// part is something of a guest that checks share.
type part[T any] struct {
	name string
	read func() (v T, version uint64, holes []error, err error)

	mu      sync.Mutex
	done    bool
	v       T
	version uint64 // changes when v may have
	err     error
	holes   []error  // what of it could not be read
	users   []*Check // that asked for it
}

// partError says that a part could not be read at all. That is a gap of the part, not of each
// check that passes the error on.
type partError struct{ error }

func (e partError) Unwrap() error { return e.error }

// get reads the part, for the first that asks, and gives it to s.
func (p *part[T]) get(s *Subject) (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := s.check; c != nil && !slices.Contains(p.users, c) {
		p.users = append(p.users, c)
	}
	p.need()
	s.needs.note(p.name, p.version)
	return p.v, p.err
}

// need reads the part if it has not been read yet. p.mu is held.
func (p *part[T]) need() {
	if p.done {
		return
	}
	p.v, p.version, p.holes, p.err = p.read()
	if p.err != nil && !errors.Is(p.err, kobj.ErrUnsupported) {
		p.holes, p.err = append(p.holes, p.err), partError{p.err}
	}
	p.done = true
}

func (p *part[T]) called() string { return p.name }

// now is the version of the part at this look.
func (p *part[T]) now() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.need()
	return p.version
}

// partOf has a part read by the subject s, unless it is the same as at an earlier look.
func partOf[T any](p *part[T], name string, s *Subject, read func(s *linux.System) (v T, holes []error, err error)) {
	type result struct {
		v     T
		holes []error
		err   error
	}
	p.name = name
	p.read = func() (T, uint64, []error, error) {
		r, version := conclude(s, name, func(s *Subject) (*result, bool) {
			r := &result{}
			r.v, r.holes, r.err = read(s.Linux)
			return r, r.err == nil && len(r.holes) == 0
		})
		return r.v, version, r.holes, r.err
	}
}

// gaps are what could not be read of the part.
func (p *part[T]) gaps() []Gap {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Gap, 0, len(p.holes))
	for _, hole := range p.holes {
		all = append(all, Gap{Checks: slices.Clone(p.users), Part: p.name, Err: hole})
	}
	return all
}
