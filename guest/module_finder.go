package guest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	verify "github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux"
)

// moduleFinder finds the files of modules.
type moduleFinder struct {
	look   *Look
	kernel image.Trust // of the kernel's image
	id     image.ModuleID
	cache  image.ModuleCache
}

// of is what is looked for as the file of m.
func (f *moduleFinder) of(m *linux.Module) image.ModuleID {
	id := f.id
	// A module that is not the kernel's own may have taken the place of one that is. One that
	// is has no other build: if memory says so, it lies.
	if id.Name = m.Name; m.Foreign() {
		id.BuildID = m.BuildID
	}
	return id
}

// find finds the files of those that are loaded and not known yet, and forgets the others.
func (f *moduleFinder) find(ctx context.Context, known *moduleFiles, modules []*linux.Module) {
	files := known.keep(modules)
	size := known.size()
	var sources []image.ModuleSource
	missing := map[string][]*linux.Module{}
	for _, m := range modules {
		before, ok := files[keyOf(m)]
		if ok && (before.file != nil || time.Now().Before(before.again)) || m.State != linux.ModuleLive {
			continue
		}
		if sources == nil {
			sources = known.sources.of(f.look, f.id.Release)
		}
		found := f.onHost(ctx, m, sources)
		if ctx.Err() != nil { // that says nothing of the next time
			return
		}
		if size += found.size; size > maxModuleBytes {
			size -= found.size
			found = moduleFile{err: fmt.Errorf("the files of modules have more than %d MiB", maxModuleBytes>>20)}
		} else if found.file == nil {
			missing[m.Name] = append(missing[m.Name], m)
		}
		found.tries = before.tries
		files[keyOf(m)] = found
	}
	if len(missing) > 0 {
		f.fromMemory(ctx, known, missing)
	}
	known.settle(modules, f.kernel.Basis == image.Signed && len(f.cache.Keys) > 0)
	known.sources.forget()
	f.cache.Prune()
}

// onHost looks for the file of one module everywhere but in the guest's memory.
func (f *moduleFinder) onHost(ctx context.Context, m *linux.Module, sources []image.ModuleSource) moduleFile {
	id := f.of(m)
	if b, ok := f.cache.Get(id); ok {
		if file, err := f.parse(id, b); err == nil {
			return moduleFile{file: file, trust: image.Trust{Basis: f.kernel.Basis, By: f.kernel.By, Where: m.Name + ".ko"}, size: len(b)}
		}
	}
	found := moduleFile{err: image.ErrNoModule}
	for _, s := range sources {
		b, trust, err := s.Module(ctx, id)
		var file *image.ModuleFile
		if err == nil {
			file, trust, err = f.judge(id, b, trust)
		}
		if err == nil {
			return moduleFile{file: file, trust: trust, size: len(b)}
		}
		if errors.Is(found.err, image.ErrNone) {
			found.err = err
		}
	}
	return found
}

// maxModuleBytes bounds the files that are kept, in bytes: a hundred modules have 30 MiB.
const maxModuleBytes = 512 << 20

// fromMemory finds modules in the guest's page cache.
func (f *moduleFinder) fromMemory(ctx context.Context, known *moduleFiles, missing map[string][]*linux.Module) {
	ctx, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	wanted := func(name string) bool { return missing[name] != nil }
	left := maxModuleBytes - known.size()
	for c, err := range f.look.Linux.ModuleFiles(ctx, wanted) {
		if err != nil {
			continue // there may be another; if not, the module stays without
		}
		name, _ := image.ModuleName(c.Name)
		b, err := image.UnpackModule(c.Data)
		if err != nil {
			continue
		}
		if left -= len(b); left < 0 {
			break
		}
		var path string // of a file that nobody signed
		for _, m := range missing[name] {
			id := f.of(m)
			file, trust, err := f.judge(id, b, image.Trust{Basis: image.GuestFile, Where: c.Name})
			if err == nil && trust.Unsigned != nil {
				if path == "" {
					path = ownImage{f.look}.path(ctx, c.INode)
				}
				trust.Where = path
			}
			if old := known.known[keyOf(m)]; err == nil && (old.file == nil || unvouched(old.trust) && !unvouched(trust)) {
				known.known[keyOf(m)] = moduleFile{file: file, trust: trust, size: len(b), tries: old.tries}
			}
		}
	}
}

// judge parses a file, and says what it is believed for.
func (f *moduleFinder) judge(id image.ModuleID, b []byte, t image.Trust) (*image.ModuleFile, image.Trust, error) {
	file, err := f.parse(id, b)
	if err != nil {
		return nil, t, err
	}
	t.Unsigned = f.cache.Verify(id, b)
	switch {
	case t.Unsigned == nil:
		if f.kernel.Basis >= t.Basis {
			t.Basis, t.By = f.kernel.Basis, f.kernel.By
		}
	case len(f.cache.Keys) > 0 && !errors.Is(t.Unsigned, verify.ErrUnsigned):
		// Distributions build a release again under its old name, with other keys.
		return nil, t, fmt.Errorf("%w: its file is of another build of the kernel, or was changed: %w", image.ErrNoModule, t.Unsigned)
	}
	return file, t, nil
}

// parse parses a file, if it is the one that is meant.
func (f *moduleFinder) parse(id image.ModuleID, b []byte) (*image.ModuleFile, error) {
	file, err := image.ParseModule(b)
	switch {
	case err != nil:
		return nil, err
	case file.Name != id.Name || file.Release != id.Release:
		return nil, fmt.Errorf("%w: the file is %s for %s", image.ErrNoModule, file.Name, file.Release)
	case id.BuildID != "" && file.BuildID != id.BuildID:
		return nil, fmt.Errorf("%w: its file has build-id %s, in memory it is %s", image.ErrNoModule, file.BuildID, id.BuildID)
	}
	return file, nil
}
