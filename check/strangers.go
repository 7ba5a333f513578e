package check

import (
	"context"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
)

// Modules may hook the kernel, and own objects of it. Which of that is legal depends on whose they are: one that a
// key of the kernel's signed does what the kernel's own authors wrote.

// comparison is modules beside their files, prepared once for each look.
type comparison struct {
	once sync.Once
	read func(context.Context) (*guest.ModuleComparison, error)
	it   *guest.ModuleComparison
	err  error
}

func (c *comparison) get(ctx context.Context) (*guest.ModuleComparison, error) {
	c.once.Do(func() { c.it, c.err = c.read(ctx) })
	return c.it, c.err
}

// standing is who answers for a module.
type standing struct {
	// vouched says that somebody does: a key of the kernel's, or the user or the host by its file.
	vouched bool
	// strange is why it is not one of the kernel's own, as far as is known; empty if nothing says so.
	strange string
}

// standingOf is who answers for the module of that name. What rests on that is not kept: files may be found later.
func (s *Subject) standingOf(ctx context.Context, name string) (st standing, m *linux.Module) {
	s.needs.lose()
	modules, err := s.Modules()
	i := slices.IndexFunc(modules, func(m *linux.Module) bool { return m.Name == name })
	if err != nil || i < 0 {
		return st, nil
	}
	m = modules[i]
	signing := slices.ContainsFunc(modules, func(m *linux.Module) bool { return m.Taints&linux.TaintUnsigned == 0 })
	c, err := s.parts.comparison.get(ctx)
	if err != nil { // no image, no keys
		return standing{strange: foreignTaint(m, signing)}, m
	}
	t, ok := c.Trust[m]
	return standingBy(t, ok, c.Signs, foreignTaint(m, signing)), m
}

// standingBy is what a module's file (known, if there is one), whether the kernel's modules are signed and the taints of it
// say together. A module clears its taints as it likes, but it cannot sign itself.
func standingBy(t image.Trust, known, signs bool, taint string) (st standing) {
	switch {
	case known && t.Unsigned == nil, known && t.Basis >= image.UserFile, known && !signs && t.Basis >= image.HostFile:
		return standing{vouched: true}
	case taint != "":
		st.strange = taint
	case known && signs:
		st.strange = "not signed by a key of this kernel"
	}
	return st
}
