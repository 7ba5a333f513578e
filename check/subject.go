package check

import (
	"context"
	"sync"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
)

// Subject is the guest that is judged, at one look, with what several checks need of it:
// each is read once, by the first that asks.
type Subject struct {
	*guest.Look

	// Told is what the guest's own programs say of it; nil if nobody asked them.
	Told *Told
	// Owners knows whose code lies where.
	Owners func() (*linux.Owners, error)
	// Modules are those on the kernel's list.
	Modules func() ([]*linux.Module, error)
	// Tasks are the processes and threads, by every way that leads to them.
	Tasks func() (*tasks, error)
	// Programs are the processes that run programs, with their files and mappings.
	Programs func() (*programs, error)
	// Sockets are those of all namespaces.
	Sockets func() (*sockets, error)

	mu    sync.Mutex
	holes []error // in what several checks share
}

func newSubject(ctx context.Context, l *guest.Look, told *Told) *Subject {
	s := &Subject{Look: l, Told: told, Owners: sync.OnceValues(l.Linux.Owners)}
	s.Modules = sync.OnceValues(func() (ms []*linux.Module, err error) {
		for m, err := range l.Linux.Modules(ctx) {
			if err != nil {
				return nil, err
			}
			ms = append(ms, m)
		}
		return ms, nil
	})
	s.Programs = sync.OnceValues(func() (*programs, error) {
		p, err := readPrograms(ctx, l.Linux)
		if err == nil {
			s.note(p.holes)
		}
		return p, err
	})
	s.Sockets = sync.OnceValues(func() (*sockets, error) {
		k, err := readSockets(ctx, l.Linux)
		if err == nil {
			s.note(k.holes)
		}
		return k, err
	})
	s.Tasks = sync.OnceValues(func() (*tasks, error) {
		t, err := readTasks(ctx, l.Linux)
		if err == nil {
			s.note(t.holes)
		}
		return t, err
	})
	return s
}

// note keeps what could not be read of something that checks share: whichever of them are
// run, it is reported.
func (s *Subject) note(holes []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holes = append(s.holes, holes...)
}
