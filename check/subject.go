package check

import (
	"context"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/trace/addrspace"
	"github.com/outsight-vmi/outsight/virt"
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
	// spaces are the address spaces that were seen to run; nil if nobody watched.
	spaces *addrspace.Watched

	check   *Check
	parts   *parts
	history *History
	paced   time.Time // when, by a clock that waits for the guest: see [History.pace]
	needs   *needs    // notes the parts that it is asked for; nil: nobody wants to know
}

// parts are what checks share.
type parts struct {
	owners   part[*linux.Owners]
	modules  part[[]*linux.Module]
	tasks    part[*tasks]
	programs part[*programs]
	sockets  part[*sockets]
	// memory is the kernel's, by its page tables.
	memory part[*kernelMemory]
	// exports are what modules may use of the kernel; nil: not known.
	exports part[map[virt.Addr]bool]
	// comparison is modules beside their files.
	comparison comparison

	mu       sync.Mutex
	shown    map[string]*shownFunctions // by view
	compared *moduleReferences          // set by the check that compares modules
}

// ownersPart names the part that all others may need.
const ownersPart = "owners of code"

func newSubject(ctx context.Context, l *guest.Look, o options) *Subject {
	p := &parts{}
	s := &Subject{Look: l, Told: o.told, mute: o.mute, heard: o.heard, spaces: o.spaces, parts: p, history: o.history}
	pid := 0
	if l.Machine != nil {
		pid = l.Machine.PID
	}
	s.paced = s.history.pace(l.At, pid)
	s.history.watch(l.Boot, s.paced, l.Linux.AtWork(patchingMutexes...))
	partOf(&p.owners, ownersPart, s, func(s *linux.System) (*linux.Owners, []error, error) {
		o, err := s.Owners()
		if err != nil {
			return nil, nil, err
		}
		return o, o.Missing, nil
	})
	readOwners := p.owners.read
	p.owners.read = func() (o *linux.Owners, version uint64, holes []error, err error) {
		if o, version, holes, err = readOwners(); err == nil {
			l.Linux.SetOwners(o)
		}
		return o, version, holes, err
	}
	partOf(&p.modules, "modules", s, func(s *linux.System) (ms []*linux.Module, _ []error, _ error) {
		for m, err := range s.Modules(ctx) {
			if err != nil {
				return nil, nil, err
			}
			ms = append(ms, m)
		}
		return ms, nil, nil
	})
	p.comparison.read = func(ctx context.Context) (*guest.ModuleComparison, error) {
		modules, err := s.Modules()
		if err != nil {
			return nil, err
		}
		return l.ModuleText(ctx, modules)
	}
	partOf(&p.tasks, "tasks", s, func(s *linux.System) (*tasks, []error, error) {
		t, err := readTasks(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		return t, t.holes, nil
	})
	partOf(&p.programs, "programs", s, func(s *linux.System) (*programs, []error, error) {
		ps, err := readPrograms(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		return ps, ps.holes, nil
	})
	partOf(&p.sockets, "sockets", s, func(s *linux.System) (*sockets, []error, error) {
		ks, err := readSockets(ctx, s)
		if err != nil {
			return nil, nil, err
		}
		return ks, ks.holes, nil
	})
	partOf(&p.exports, "exported symbols", s, func(s *linux.System) (map[virt.Addr]bool, []error, error) { return readExports(s), nil, nil })
	partOf(&p.memory, "executable memory", s, func(s *linux.System) (*kernelMemory, []error, error) { return readKernelMemory(ctx, s) })
	return s
}

// version is that of a part at this look.
func (p *parts) version(name string) uint64 {
	for _, q := range p.all() {
		if q.called() == name {
			return q.now()
		}
	}
	return 0
}

// shared is a part, whatever it is.
type shared interface {
	called() string
	now() uint64
	gaps() []Gap
}

func (p *parts) all() []shared {
	return []shared{&p.owners, &p.modules, &p.tasks, &p.programs, &p.memory, &p.sockets, &p.exports}
}

// of is s for one check.
func (s *Subject) of(c *Check) *Subject {
	n := *s
	n.check = c
	return &n
}

// Owners knows whose code lies where.
func (s *Subject) Owners() (*linux.Owners, error) { return s.parts.owners.get(s) }

// Modules are those on the kernel's list.
func (s *Subject) Modules() ([]*linux.Module, error) { return s.parts.modules.get(s) }

// Tasks are the processes and threads, by every way that leads to them.
func (s *Subject) Tasks() (*tasks, error) { return s.parts.tasks.get(s) }

// Programs are the processes that run programs, with their files and mappings.
func (s *Subject) Programs() (*programs, error) { return s.parts.programs.get(s) }

// Sockets are those of all namespaces.
func (s *Subject) Sockets() (*sockets, error) { return s.parts.sockets.get(s) }

// Executable is the kernel's memory that it can execute, by address.
func (s *Subject) Executable() ([]executable, error) {
	m, err := s.kernelMemory()
	if err != nil {
		return nil, err
	}
	return m.executable, nil
}

// kernelMemory is what the page tables of the kernel's half say.
func (s *Subject) kernelMemory() (*kernelMemory, error) { return s.parts.memory.get(s) }

// gaps are what could not be read of what checks share.
func (s *Subject) gaps() []Gap {
	var all []Gap
	for _, p := range s.parts.all() {
		all = append(all, p.gaps()...)
	}
	return all
}
