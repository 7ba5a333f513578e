package check

import (
	"context"
	"sync"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
)

// Subject is the guest that is judged, at one look, with what several checks need of it:
// each is read once, by the first that asks. Each check has a Subject of its own, which notes
// what the check asked for: what could not be read of that is a gap of all who did.
type Subject struct {
	*guest.Look

	// Told is what the guest's own programs say of it; nil if nobody asked them.
	Told *Told
	mute error // why they did not answer

	heard *heard // what they were told; nil if nobody listened

	check   *Check
	parts   *parts
	history *History
}

// parts are what checks share.
type parts struct {
	owners   part[*linux.Owners]
	modules  part[[]*linux.Module]
	tasks    part[*tasks]
	programs part[*programs]
	sockets  part[*sockets]
	// executable is the kernel's memory that it can execute.
	executable part[[]executable]

	mu       sync.Mutex
	shown    map[string]*shownFunctions // by view
	compared *moduleReferences          // set by the check that compares modules
}

func newSubject(ctx context.Context, l *guest.Look, o options) *Subject {
	p := &parts{}
	p.owners.read = func() (*linux.Owners, []error, error) {
		o, err := l.Linux.Owners()
		if err != nil {
			return nil, nil, err
		}
		return o, o.Missing, nil
	}
	p.modules.read = func() (ms []*linux.Module, _ []error, _ error) {
		for m, err := range l.Linux.Modules(ctx) {
			if err != nil {
				return nil, nil, err
			}
			ms = append(ms, m)
		}
		return ms, nil, nil
	}
	p.tasks.read = func() (*tasks, []error, error) {
		t, err := readTasks(ctx, l.Linux)
		if err != nil {
			return nil, nil, err
		}
		return t, t.holes, nil
	}
	p.programs.read = func() (*programs, []error, error) {
		ps, err := readPrograms(ctx, l.Linux)
		if err != nil {
			return nil, nil, err
		}
		return ps, ps.holes, nil
	}
	p.sockets.read = func() (*sockets, []error, error) {
		ks, err := readSockets(ctx, l.Linux)
		if err != nil {
			return nil, nil, err
		}
		return ks, ks.holes, nil
	}
	p.executable.read = func() ([]executable, []error, error) { return readExecutable(ctx, l.Linux) }
	return &Subject{Look: l, Told: o.told, mute: o.mute, heard: o.heard, parts: p, history: o.history}
}

// of is s for one check.
func (s *Subject) of(c *Check) *Subject {
	return &Subject{Look: s.Look, Told: s.Told, mute: s.mute, heard: s.heard, check: c, parts: s.parts, history: s.history}
}

// Owners knows whose code lies where.
func (s *Subject) Owners() (*linux.Owners, error) { return s.parts.owners.get(s.check) }

// Modules are those on the kernel's list.
func (s *Subject) Modules() ([]*linux.Module, error) { return s.parts.modules.get(s.check) }

// Tasks are the processes and threads, by every way that leads to them.
func (s *Subject) Tasks() (*tasks, error) { return s.parts.tasks.get(s.check) }

// Programs are the processes that run programs, with their files and mappings.
func (s *Subject) Programs() (*programs, error) { return s.parts.programs.get(s.check) }

// Sockets are those of all namespaces.
func (s *Subject) Sockets() (*sockets, error) { return s.parts.sockets.get(s.check) }

// Executable is the kernel's memory that it can execute, by address.
func (s *Subject) Executable() ([]executable, error) { return s.parts.executable.get(s.check) }

// gaps are what could not be read of what checks share.
func (s *Subject) gaps() []Gap {
	p := s.parts
	var all []Gap
	all = append(all, p.owners.gaps("owners of code")...)
	all = append(all, p.modules.gaps("modules")...)
	all = append(all, p.tasks.gaps("tasks")...)
	all = append(all, p.programs.gaps("programs")...)
	all = append(all, p.executable.gaps("executable memory")...)
	return append(all, p.sockets.gaps("sockets")...)
}
