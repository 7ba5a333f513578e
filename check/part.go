package check

import (
	"errors"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/linux/kobj"
)

// part is something of a guest that checks share.
type part[T any] struct {
	read func() (v T, holes []error, err error)

	mu    sync.Mutex
	done  bool
	v     T
	err   error
	holes []error  // what of it could not be read
	users []*Check // that asked for it
}

// partError says that a part could not be read at all. That is a gap of the part, not of each
// check that passes the error on.
type partError struct{ error }

func (e partError) Unwrap() error { return e.error }

// get reads the part, for the first that asks, and gives it to c.
func (p *part[T]) get(c *Check) (T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c != nil && !slices.Contains(p.users, c) {
		p.users = append(p.users, c)
	}
	if !p.done {
		p.v, p.holes, p.err = p.read()
		if p.err != nil && !errors.Is(p.err, kobj.ErrUnsupported) {
			p.holes, p.err = append(p.holes, p.err), partError{p.err}
		}
		p.done = true
	}
	return p.v, p.err
}

// gaps are what could not be read of the part, which is called name.
func (p *part[T]) gaps(name string) []Gap {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Gap, 0, len(p.holes))
	for _, hole := range p.holes {
		all = append(all, Gap{Checks: slices.Clone(p.users), Part: name, Err: hole})
	}
	return all
}
