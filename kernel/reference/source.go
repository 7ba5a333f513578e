package reference

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

var (
	_ image.Source       = (*Store)(nil)
	_ image.ModuleSource = (*Store)(nil)
)

// Image implements [image.Source].
func (s *Store) Image(ctx context.Context, buildID string) (*image.Image, image.Trust, error) {
	e, err := s.kernel(buildID)
	if err != nil {
		return nil, image.Trust{}, err
	}
	source := image.Cached{File: image.File{Path: e.path, Basis: image.UserFile, Authorities: s.Authorities()}, Dir: s.cache}
	im, t, err := source.Image(ctx, buildID)
	if err != nil {
		return nil, image.Trust{}, err
	}
	t.Where = e.where()
	return im, t, nil
}

// kernel is the entry of a kernel: the vmlinuz if there is one, since a vmlinux has neither a
// signature nor relocations.
func (s *Store) kernel(buildID string) (*Entry, error) {
	if isHex(buildID) {
		for _, form := range []string{vmlinuz, vmlinux} {
			e, err := readKernelMeta(filepath.Join(s.dir, kernelsDir, buildID+"."+form+metaEnd))
			if err == nil || !errors.Is(err, os.ErrNotExist) {
				return e, err
			}
		}
	}
	return nil, fmt.Errorf("%w among the profiles", image.ErrNone)
}

// isHex says whether a build-id, which may be a guest's word, is one.
func isHex(id string) bool {
	if len(id) < 2*minBuildID || len(id) > 2*maxBuildID {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// kernelKeys are the keys in a kernel of the store, and why it is believed.
type kernelKeys struct {
	keys  []*x509.Certificate
	trust image.Trust
	err   error
}

// Module implements [image.ModuleSource].
func (s *Store) Module(ctx context.Context, id image.ModuleID) ([]byte, image.Trust, error) {
	path := filepath.Join(s.dir, modulesDir, id.BuildID+moduleEnd)
	if !isHex(id.BuildID) {
		path = s.moduleNamed(id.Release, id.Name)
	}
	if _, err := os.Stat(path); err != nil {
		return nil, image.Trust{}, fmt.Errorf("module %s: %w", id.Name, image.ErrNoModule)
	}
	e, b, err := readModule(path)
	if err != nil {
		return nil, image.Trust{}, fmt.Errorf("%s: %w", path, err)
	}
	t := image.Trust{Basis: image.UserFile, Where: e.where()}
	k := s.keysOf(ctx, id.Kernel)
	if t.Unsigned = k.err; k.err == nil {
		t.By, t.Unsigned = k.verify(b)
	}
	if t.Unsigned == nil {
		t.Basis = image.Signed
	}
	return b, t, nil
}

// verify says who vouches for a module: whoever signed the kernel that has its key.
func (k kernelKeys) verify(module []byte) (by string, err error) {
	if k.err != nil {
		return "", k.err
	}
	if _, err := trust.VerifyModule(module, k.keys); err != nil {
		return "", err
	}
	return k.trust.By, nil
}

// keysOf are the keys in a kernel of the store. It must be signed: a key in a kernel that
// anybody may have made proves nothing.
func (s *Store) keysOf(ctx context.Context, kernel string) kernelKeys {
	s.mu.Lock()
	k, ok := s.keys[kernel]
	s.mu.Unlock()
	if ok {
		return k
	}
	im, t, err := s.Image(ctx, kernel)
	switch {
	case err != nil:
		k.err = fmt.Errorf("its kernel: %w", err)
	case t.Basis != image.Signed:
		k.err = fmt.Errorf("its kernel: %w", t.Unsigned)
	default:
		k.trust = t
		k.keys, k.err = im.ModuleKeys()
	}
	if ctx.Err() == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.keys == nil {
			s.keys = map[string]kernelKeys{}
		}
		s.keys[kernel] = k
	}
	return k
}

// moduleNamed is the path of the module of that name; it may be none.
func (s *Store) moduleNamed(release, name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.modules == nil {
		s.modules = map[string]string{}
		all, _ := s.List(Module) // those that can be read
		for _, e := range all {
			s.modules[e.Release+"\x00"+e.Name] = e.path
		}
	}
	return s.modules[release+"\x00"+name]
}
