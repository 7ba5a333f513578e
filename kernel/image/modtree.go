package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ModuleTree is the folder of a kernel's modules (/lib/modules/RELEASE).
type ModuleTree struct {
	Dir   string
	Basis Basis // if a module has no signature

	once  sync.Once
	files map[string]string // by the module's name
	err   error
}

// maxTree bounds the files of a tree. Distributions have some 5000 modules.
const maxTree = 1 << 17

// index finds the files. Where there are several of a name, depmod prefers those in updates.
func (t *ModuleTree) index() {
	t.files = map[string]string{}
	n := 0
	t.err = filepath.WalkDir(t.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n++; n > maxTree {
			return fmt.Errorf("more than %d files", maxTree)
		}
		name, ok := ModuleName(path)
		if !ok || d.IsDir() {
			return nil
		}
		if _, twice := t.files[name]; !twice || strings.HasPrefix(path, filepath.Join(t.Dir, "updates")+"/") {
			t.files[name] = path
		}
		return nil
	})
	if errors.Is(t.err, fs.ErrNotExist) {
		t.err = nil
	}
}

// Module implements [ModuleSource].
func (t *ModuleTree) Module(_ context.Context, id ModuleID) ([]byte, Trust, error) {
	t.once.Do(t.index)
	path, ok := t.files[id.Name]
	switch {
	case ok:
	case t.err != nil:
		return nil, Trust{}, fmt.Errorf("modules in %s: %w", t.Dir, t.err)
	default:
		return nil, Trust{}, ErrNoModule
	}
	b, err := readModule(path)
	if err != nil {
		return nil, Trust{}, err
	}
	return b, Trust{Basis: t.Basis, Where: path}, nil
}

func readModule(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would never open
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("module: %w", err)
	case !st.Mode().IsRegular() || st.Size() > maxModule:
		return nil, fmt.Errorf("%s: %w: not a regular file of at most %d MiB", path, ErrModule, maxModule>>20)
	}
	b := make([]byte, st.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("module %s: %w", path, err)
	}
	if b, err = UnpackModule(b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
