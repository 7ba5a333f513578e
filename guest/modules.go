package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	verify "github.com/outsight-vmi/outsight/kernel/image/trust"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/text"
)

// moduleFiles are the files of modules that were found, which are the same for all looks
// of one boot.
type moduleFiles struct {
	mu    sync.Mutex
	build string // of the kernel
	known map[moduleKey]moduleFile
	// Of the same file several modules cannot be loaded: so parsed files distinguish them.
	placed text.Placed
}

// moduleKey is a module as it was loaded: loaded again, its file is looked for again.
type moduleKey struct {
	name, buildID string
	at, start     uint64
}

type moduleFile struct {
	file  *image.ModuleFile
	trust image.Trust
	err   error // why there is none
}

// ModuleComparison is modules beside their files.
type ModuleComparison struct {
	Text *text.Text
	// Kernel is what the kernel's image is believed for, whose keys modules are signed with.
	Kernel image.Trust
	// Trust is what the file of each module is believed for.
	Trust map[*linux.Module]image.Trust
	// Without are the modules that cannot be compared, with why: those that wrap
	// [image.ErrNone] have no reference.
	Without []text.Unplaced
}

// ModuleText prepares to compare the text and read-only data of modules with their files.
// They are taken from [Options.References], if that gives modules, the store in
// [Options.Profiles], from where the host has them (beside the kernel's file, in the initrd), and
// from the guest's page cache. A module
// that one of the kernel's own keys signed is as trusted as the kernel's image, wherever it was
// found. Modules must be in the order of the kernel's list.
func (l *Look) ModuleText(ctx context.Context, modules []*linux.Module) (*ModuleComparison, error) {
	ref, kernel, err := l.Reference(ctx)
	if err != nil {
		return nil, err
	}
	f := &moduleFinder{look: l, kernel: kernel, id: image.ModuleID{Kernel: l.Linux.BuildID, Release: cmp.Or(ref.Image.Release, l.Linux.Release)}}
	if keys, err := ref.Image.ModuleKeys(); err == nil {
		f.cache.Keys = keys
	}
	if dir := l.of.opts.Images; dir != "" {
		f.cache.Dir = filepath.Join(dir, "modules")
	}
	known := &l.of.moduleFiles
	known.mu.Lock()
	defer known.mu.Unlock()
	if known.build != f.id.Kernel || known.known == nil {
		known.build, known.known, known.placed = f.id.Kernel, map[moduleKey]moduleFile{}, text.Placed{}
	}
	f.find(ctx, known.known, modules)
	c := &ModuleComparison{Kernel: kernel, Trust: map[*linux.Module]image.Trust{}}
	var refs []text.ModuleReference
	for _, m := range modules {
		r := text.ModuleReference{Module: m}
		if m.State != linux.ModuleLive {
			c.Without = append(c.Without, text.Unplaced{Module: m, Err: fmt.Errorf("it is %s", m.State)})
		} else if k := known.known[keyOf(m)]; k.err != nil {
			c.Without = append(c.Without, text.Unplaced{Module: m, Err: k.err})
		} else {
			r.File, c.Trust[m] = k.file, k.trust
		}
		refs = append(refs, r)
	}
	t, unplaced, err := text.NewModules(l.Linux, ref, refs, &known.placed)
	c.Text, c.Without = t, append(c.Without, unplaced...)
	return c, err
}

func keyOf(m *linux.Module) moduleKey {
	return moduleKey{m.Name, m.BuildID, uint64(m.Addr), uint64(m.Start())}
}

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

// find finds the files of those that are not known yet.
func (f *moduleFinder) find(ctx context.Context, known map[moduleKey]moduleFile, modules []*linux.Module) {
	var sources []image.ModuleSource
	missing := map[string][]*linux.Module{}
	for _, m := range modules {
		if _, ok := known[keyOf(m)]; ok || m.State != linux.ModuleLive {
			continue
		}
		id := f.of(m)
		if b, ok := f.cache.Get(id); ok {
			if file, err := f.parse(id, b); err == nil {
				known[keyOf(m)] = moduleFile{file, image.Trust{Basis: f.kernel.Basis, By: f.kernel.By, Where: m.Name + ".ko"}, nil}
				continue
			}
		}
		if sources == nil {
			sources = f.look.of.moduleSources(f.look, f.id.Release)
		}
		found := moduleFile{err: image.ErrNoModule}
		for _, s := range sources {
			b, trust, err := s.Module(ctx, id)
			if err == nil {
				found.err = nil
				if found.file, found.trust, err = f.judge(id, b, trust); err == nil {
					break
				}
			}
			if found.file = nil; errors.Is(found.err, image.ErrNone) || found.err == nil {
				found.err = err
			}
		}
		if found.file == nil {
			missing[m.Name] = append(missing[m.Name], m)
		}
		known[keyOf(m)] = found
	}
	if len(missing) > 0 {
		f.fromMemory(ctx, known, missing)
	}
	f.cache.Prune()
}

// maxModuleBytes bounds the files that are taken from the guest's memory, in bytes: a hundred
// modules have 30 MiB.
const maxModuleBytes = 512 << 20

// fromMemory finds modules in the guest's page cache.
func (f *moduleFinder) fromMemory(ctx context.Context, known map[moduleKey]moduleFile, missing map[string][]*linux.Module) {
	ctx, cancel := context.WithTimeout(ctx, ownTime)
	defer cancel()
	wanted := func(name string) bool { return missing[name] != nil }
	left := maxModuleBytes
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
		for _, m := range missing[name] {
			id := f.of(m)
			file, trust, err := f.judge(id, b, image.Trust{Basis: image.GuestFile, Where: c.Name})
			if old := known[keyOf(m)]; err == nil && (old.file == nil || old.trust.Basis < trust.Basis) {
				known[keyOf(m)] = moduleFile{file, trust, nil}
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

// moduleSources are where the files of modules may be found, the best first.
func (g *Guest) moduleSources(l *Look, release string) (all []image.ModuleSource) {
	if s, ok := g.opts.References.(image.ModuleSource); ok {
		all = append(all, s)
	}
	if g.store != nil {
		all = append(all, g.store)
	}
	m := l.Machine
	// The release may be the guest's word.
	if m == nil || m.Kernel == "" || release != filepath.Base(release) || release == ".." {
		return all
	}
	// As distributions have it, and as a folder that has both: boot/vmlinuz and lib/modules.
	dir := filepath.Dir(m.Kernel)
	for _, root := range []string{dir, filepath.Dir(dir)} {
		all = append(all, &image.ModuleTree{Dir: filepath.Join(root, "lib/modules", release), Basis: image.HostFile})
	}
	if m.Initrd != "" {
		all = append(all, &image.Initrd{Path: m.Initrd, Basis: image.HostFile})
	}
	return all
}
