package guest

import (
	"path/filepath"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/vm"
)

// keep forgets the files of modules that are no longer loaded, and returns those that are known.
func (k *moduleFiles) keep(modules []*linux.Module) map[moduleKey]moduleFile {
	loaded := make(map[moduleKey]moduleFile, len(modules))
	for _, m := range modules {
		if f, ok := k.known[keyOf(m)]; ok {
			loaded[keyOf(m)] = f
		}
	}
	k.known = loaded
	return loaded
}

// size is how much the files have that are known, in bytes.
func (k *moduleFiles) size() (n int) {
	for _, f := range k.known {
		n += f.size
	}
	return n
}

// maxLookAgain bounds the time after which a file that was not found is looked for again, which
// doubles with each time: to search the guest's page cache takes a second.
const maxLookAgain = 16 * lookAgain

// settle takes away what proves nothing, and says when what was not found is looked for again.
// signed says that the kernel has a distribution's signature: then its modules have, too.
func (k *moduleFiles) settle(modules []*linux.Module, signed bool) {
	k.signs = k.signs || signed
	for _, f := range k.known {
		k.signs = k.signs || f.file != nil && f.trust.Unsigned == nil
	}
	now := time.Now()
	for _, m := range modules {
		f, ok := k.known[keyOf(m)]
		if !ok {
			continue
		}
		// One of the kernel's own must be signed. Another, of which memory shows which build it is,
		// may be compared with its file: what differs was changed.
		if f.file != nil && k.signs && unvouched(f.trust) && (!m.Foreign() || m.BuildID == "") {
			f = moduleFile{err: &UnsignedModuleError{f.trust.Where}, tries: f.tries}
		}
		if f.file == nil && !now.Before(f.again) {
			f.again = now.Add(min(lookAgain<<min(f.tries, 16), maxLookAgain))
			f.tries++
		}
		k.known[keyOf(m)] = f
	}
}

// keptSources are where the files of modules may be found. To read an initrd takes a second,
// and a guest may load modules at every look.
type keptSources struct {
	all             []image.ModuleSource
	initrd          *image.Initrd // nil for none
	kernel, release string
	at              time.Time // of the folders
}

// of are the sources for a look, the best first.
func (k *keptSources) of(l *Look, release string) []image.ModuleSource {
	m := l.Machine
	if m == nil {
		m = &vm.Machine{}
	}
	if k.initrd == nil || k.initrd.Path != m.Initrd {
		k.initrd, k.all = nil, nil
		if m.Initrd != "" {
			k.initrd = &image.Initrd{Path: m.Initrd, Basis: image.HostFile}
		}
	}
	if k.all == nil || k.kernel != m.Kernel || k.release != release || time.Since(k.at) > lookAgain {
		k.kernel, k.release, k.at = m.Kernel, release, time.Now()
		k.all = l.of.moduleSources(m.Kernel, release, k.initrd)
	}
	return k.all
}

// forget lets go of what is large.
func (k *keptSources) forget() {
	if k.initrd != nil {
		k.initrd.Forget()
	}
}

// moduleSources are where the files of modules may be found, the best first. initrd is nil for
// none.
func (g *Guest) moduleSources(kernel, release string, initrd *image.Initrd) (all []image.ModuleSource) {
	if s, ok := g.opts.References.(image.ModuleSource); ok {
		all = append(all, s)
	}
	if g.store != nil {
		all = append(all, g.store)
	}
	// The release may be the guest's word.
	if kernel == "" || release != filepath.Base(release) || release == ".." {
		return all
	}
	// As distributions have it, and as a folder that has both: boot/vmlinuz and lib/modules.
	dir := filepath.Dir(kernel)
	for _, root := range []string{dir, filepath.Dir(dir)} {
		all = append(all, &image.ModuleTree{Dir: filepath.Join(root, "lib/modules", release), Basis: image.HostFile})
	}
	if initrd != nil {
		all = append(all, initrd)
	}
	return all
}
