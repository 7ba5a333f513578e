package guest

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/text"
)

// moduleFiles are the files of modules that were found, which are the same for all looks
// of one boot.
type moduleFiles struct {
	mu    sync.Mutex
	build string                   // of the kernel
	known map[moduleKey]moduleFile // of those that are loaded
	// signs says that modules of this kernel are signed.
	signs   bool
	sources keptSources
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
	size  int   // of the file, in bytes
	err   error // why there is none

	tries int       // that found none
	again time.Time // when it is looked for again
}

// ErrUnsignedModule says that the only file of a module is the guest's own, and unsigned, while
// the modules of its kernel are signed. It is an [image.ErrNone].
var ErrUnsignedModule = fmt.Errorf("its file is the guest's own, and not signed as those of this kernel are: %w", image.ErrNoModule)

// UnsignedModuleError is [ErrUnsignedModule], with the file.
type UnsignedModuleError struct{ File string }

func (e *UnsignedModuleError) Error() string { return e.File + ": " + ErrUnsignedModule.Error() }

// Unwrap makes it an [ErrUnsignedModule].
func (e *UnsignedModuleError) Unwrap() error { return ErrUnsignedModule }

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
	// Signs says that modules of this kernel are signed, by keys that it has in it.
	Signs bool
}

// Proves reports whether that a module equals its file proves anything: not if the guest's own,
// unsigned file is all there is of a module that should be signed. Where it differs, something
// changed one of them all the same.
func (c *ModuleComparison) Proves(m *linux.Module) bool {
	t, ok := c.Trust[m]
	return ok && (!c.Signs || !unvouched(t))
}

// unvouched reports whether nobody but the guest vouches for a file.
func unvouched(t image.Trust) bool { return t.Basis <= image.GuestFile && t.Unsigned != nil }

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
		known.build, known.known, known.placed, known.signs = f.id.Kernel, map[moduleKey]moduleFile{}, text.Placed{}, false
	}
	f.find(ctx, known, modules)
	c := &ModuleComparison{Kernel: kernel, Trust: map[*linux.Module]image.Trust{}, Signs: known.signs}
	var refs []text.ModuleReference
	for _, m := range modules {
		r := text.ModuleReference{Module: m}
		if m.State != linux.ModuleLive {
			c.Without = append(c.Without, text.Unplaced{Module: m, Err: fmt.Errorf("it is %s", m.State)})
		} else if k := known.known[keyOf(m)]; k.file == nil {
			c.Without = append(c.Without, text.Unplaced{Module: m, Err: cmp.Or(k.err, ctx.Err(), image.ErrNoModule)})
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
