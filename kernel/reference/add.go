package reference

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/kernel/archive"
	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// What is taken from one file or package.
const (
	maxKernel   = 256 << 20 // a boot image, a vmlinux without its debug information
	maxDebug    = 4 << 30   // a vmlinux with it
	maxModule   = 128 << 20 // unpacked; the largest of distributions takes 30 MiB
	maxKernels  = 32        // files that may be kernels
	maxSpooled  = 16 << 30  // what those unpack to
	maxModules  = 20_000    // a distribution's kernel has 4,000 to 6,000
	maxStored   = 6 << 30
	maxUnpacked = 16 << 30
	maxSkipped  = 100 // that are reported
	minBuildID  = 4   // in bytes; SHA-1's has 20
	maxBuildID  = 64
)

// Added is what was taken from a file or package.
type Added struct {
	Kernels []*Entry
	Modules int
	// Skipped are files that looked like kernels or modules, and why they were not taken.
	Skipped []Skipped
}

// Skipped is a file that was not taken.
type Skipped struct {
	Name string
	Err  error
}

var (
	// ErrNoKernel says that a file or package has no kernel and no module.
	ErrNoKernel = errors.New("no kernel and no module for x86-64 in it")
	// ErrSigned says that a file was not taken because the store has one of the same build-id,
	// with a signature that this one lacks.
	ErrSigned = errors.New("the store has a signed one of the same build-id, and this one differs")
)

// Add takes every kernel and every module of a file or package into the store: a vmlinuz, a
// vmlinux, a module, a .deb or an .rpm.
func (s *Store) Add(ctx context.Context, path string) (*Added, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would never open
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store: %w", err)
	}
	s.tidy()
	a := newAdding(ctx, s, filepath.Base(path))
	err = archive.Walk(a.ctx, f, st.Size(), archive.DefaultBudget, a.file)
	alone := errors.Is(err, archive.ErrFormat)
	if alone {
		err = a.alone(f)
	}
	a.wait()
	s.forget()
	switch {
	case ctx.Err() != nil:
		return &a.Added, ctx.Err()
	case a.failed != nil:
		return &a.Added, a.failed
	case err != nil:
		return &a.Added, fmt.Errorf("%s: %w", path, err)
	case alone && len(a.Skipped) > 0:
		return &a.Added, fmt.Errorf("%s: %w", path, a.Skipped[0].Err)
	case len(a.Kernels) == 0 && a.Modules == 0 && len(a.Skipped) == 0:
		return &a.Added, fmt.Errorf("%s: %w", path, ErrNoKernel)
	}
	return &a.Added, nil
}

// forget drops what was kept of the store's content.
func (s *Store) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.modules, s.keys = nil, nil
}

// adding is one call of Add. Modules are unpacked beside the reading of the package.
type adding struct {
	Added
	ctx         context.Context
	s           *Store
	from        string
	authorities []trust.Authority

	cancel           func()
	slots            chan struct{}
	wg               sync.WaitGroup
	mu               sync.Mutex
	stored, unpacked int64
	taken            int // modules that were begun
	tried            int // kernels that were
	spooled          int64
	failed           error // the store cannot be written
}

func newAdding(ctx context.Context, s *Store, from string) *adding {
	a := &adding{s: s, from: from, authorities: s.Authorities(), slots: make(chan struct{}, min(runtime.GOMAXPROCS(0), 4))}
	a.ctx, a.cancel = context.WithCancel(ctx)
	return a
}

func (a *adding) wait() {
	a.wg.Wait()
	a.cancel()
}

// skip notes why a file was not taken. An error of the store ends it all.
func (a *adding) skip(name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if errors.Is(err, errStore) || errors.Is(err, errSpent) {
		a.failed = err
		a.cancel()
		return
	}
	if len(a.Skipped) < maxSkipped {
		a.Skipped = append(a.Skipped, Skipped{name, err})
	}
}

// errStore marks what went wrong with the store and not with a file.
var errStore = errors.New("the store cannot be written")

// errSpent marks what a package may not have more of.
var errSpent = fmt.Errorf("%w: kernels and modules", archive.ErrBudget)

// spend counts what is stored, and unpack what modules unpack to, whether or not they are.
func (a *adding) spend(n int) error  { return a.count(&a.stored, n, maxStored) }
func (a *adding) unpack(n int) error { return a.count(&a.unpacked, n, maxUnpacked) }

func (a *adding) count(sum *int64, n int, most int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *sum += int64(n); *sum > most {
		return fmt.Errorf("%w of more than %d GiB", errSpent, most>>30)
	}
	return nil
}

// file takes a file of a package, if its name is that of a kernel or module.
func (a *adding) file(f *archive.File) error {
	base := f.Base()
	_, isModule := image.ModuleName(base)
	switch {
	case isModule:
		if a.taken++; a.taken > maxModules {
			return fmt.Errorf("%w: more than %d modules", archive.ErrBudget, maxModules)
		}
		if f.Size > maxModule {
			a.skip(f.Name, fmt.Errorf("%w: it has %d bytes", image.ErrModule, f.Size))
			return nil
		}
		packed := make([]byte, 0, min(f.Size, 1<<20)) // the size is the package's word
		b := bytes.NewBuffer(packed)
		if _, err := io.Copy(b, f); err != nil {
			return err
		}
		a.slots <- struct{}{}
		a.wg.Go(func() {
			defer func() { <-a.slots }()
			a.module(f.Name, b)
		})
	case isKernel(base):
		if a.tried++; a.tried > maxKernels {
			return fmt.Errorf("%w: more than %d files that are called as kernels are", archive.ErrBudget, maxKernels)
		}
		u, err := archive.Unpack(f)
		if err != nil {
			a.skip(f.Name, err)
			return nil
		}
		defer u.Close()
		return a.kernel(f.Name, u)
	}
	return nil
}

// isKernel says whether a file of that name may be a kernel: vmlinuz, vmlinux, with a release
// or packed.
func isKernel(base string) bool {
	for _, start := range []string{vmlinuz, vmlinux, "bzImage"} {
		if strings.HasPrefix(base, start) {
			for _, other := range []string{".hmac", ".sig", ".json", ".txt", ".sha256", ".sha512"} {
				if strings.HasSuffix(base, other) {
					return false
				}
			}
			return true
		}
	}
	return false
}

// alone takes a file that is not a package. Its content says what it is.
func (a *adding) alone(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	u, err := archive.Unpack(f)
	if err != nil {
		return err
	}
	defer u.Close()
	head := make([]byte, 18)
	n, err := io.ReadFull(u, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	const relocatable = 1
	r := io.MultiReader(bytes.NewReader(head[:n]), u)
	if n < len(head) || string(head[:4]) != "\x7fELF" || head[16] != relocatable {
		return a.kernel("", r)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(r, maxModule+1)); err != nil {
		return err
	}
	a.module("", &b)
	return nil
}

// kernel takes a kernel. Only what is wrong with the package ends the reading of it.
func (a *adding) kernel(name string, r io.Reader) error {
	// A vmlinux with its debug information is read by pieces, so from a file.
	spool, err := os.CreateTemp(a.s.dir, tempPrefix+"*")
	if err != nil {
		a.skip(name, fmt.Errorf("%w: %w", errStore, err))
		return nil
	}
	defer os.Remove(spool.Name())
	defer spool.Close()
	size, err := io.Copy(spool, io.LimitReader(r, maxDebug+1))
	a.spooled += size
	switch {
	case a.ctx.Err() != nil:
		return a.ctx.Err()
	case a.spooled > maxSpooled: // holes in a file cost a package nothing
		return fmt.Errorf("%w: kernels of more than %d GiB", archive.ErrBudget, maxSpooled>>30)
	case errors.Is(err, unix.ENOSPC):
		a.skip(name, fmt.Errorf("%w: %w", errStore, err))
		return nil
	case err != nil:
		return err
	case size > maxDebug:
		a.skip(name, fmt.Errorf("%w: it has more than %d GiB", image.ErrFormat, maxDebug>>30))
		return nil
	}
	if err := a.readKernel(name, spool, size); err != nil {
		a.skip(name, err)
	}
	return nil
}

func (a *adding) readKernel(name string, r io.ReaderAt, size int64) error {
	form := vmlinuz
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return fmt.Errorf("%w: it has %d bytes", image.ErrFormat, size)
	}
	var b []byte
	var err error
	if string(magic[:]) == "\x7fELF" {
		form = vmlinux
		b, err = image.Strip(r, size)
	} else if size > maxKernel {
		err = fmt.Errorf("%w: it has %d bytes", image.ErrFormat, size)
	} else {
		b = make([]byte, size)
		_, err = r.ReadAt(b, 0)
	}
	if err != nil {
		return err
	}
	im, t, err := image.Read(b, image.Trust{}, a.authorities)
	if err != nil {
		return err
	}
	if !isHex(im.BuildID) || !clean(im.Release) {
		return fmt.Errorf("%w: it has no build-id, or no release", image.ErrFormat)
	}
	e := a.entry(Kernel, im.BuildID, form, im.Release, name, b)
	e.path = filepath.Join(a.s.dir, kernelsDir, e.ID+"."+form)
	if t.Basis != image.Signed && !a.mayReplace(e) {
		return ErrSigned
	}
	if err := a.spend(len(b)); err != nil {
		return err
	}
	meta, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := errors.Join(a.s.write(kernelsDir, filepath.Base(e.path), b), a.s.write(kernelsDir, filepath.Base(e.path)+metaEnd, meta)); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Kernels = append(a.Kernels, e)
	return nil
}

// entry describes what is added.
func (a *adding) entry(kind Kind, id, name, release, inside string, b []byte) *Entry {
	sum := sha256.Sum256(b)
	from := a.from
	if inside != "" {
		from += ": " + inside[:min(len(inside), 1024)]
	}
	return &Entry{Kind: kind, ID: id, Name: name, Release: release, Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:]), From: from, Added: time.Now().UTC()}
}

// mayReplace says whether a kernel that nobody signed may be stored: not over one that
// somebody did.
func (a *adding) mayReplace(e *Entry) bool {
	old, err := readKernelMeta(e.path + metaEnd)
	if err != nil || old.SHA256 == e.SHA256 {
		return true
	}
	b, err := readBounded(e.path)
	if err != nil {
		return true
	}
	_, err = trust.Verify(b, a.authorities)
	return err != nil
}

// module takes a module.
func (a *adding) module(name string, packed io.Reader) {
	if err := a.readModule(name, packed); err != nil && a.ctx.Err() == nil {
		a.skip(name, err)
	}
}

func (a *adding) readModule(name string, packed io.Reader) error {
	u, err := archive.Unpack(packed)
	if err != nil {
		return err
	}
	defer u.Close()
	b, err := io.ReadAll(io.LimitReader(u, maxModule+1))
	if err != nil {
		return err
	}
	if err := a.unpack(len(b)); err != nil {
		return err
	}
	if len(b) > maxModule {
		return fmt.Errorf("%w: it unpacks to more than %d MiB", image.ErrModule, maxModule>>20)
	}
	m, err := image.ParseModule(b)
	if err != nil {
		return err
	}
	if m.Release == "" {
		return nil // debug information alone
	}
	if !isHex(m.BuildID) || !clean(m.Release) || !clean(m.Name) || strings.Contains(m.Name, "/") {
		return fmt.Errorf("%w: it has no build-id, or no name", image.ErrModule)
	}
	e := a.entry(Module, m.BuildID, m.Name, m.Release, name, b)
	e.path = filepath.Join(a.s.dir, modulesDir, e.ID+moduleEnd)
	if !a.mayReplaceModule(e, b) {
		return ErrSigned
	}
	if err := a.spend(len(b)); err != nil {
		return err
	}
	if err := a.s.writeModule(e, b); err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.Modules++
	return nil
}

// mayReplaceModule says whether a module may be stored: not over another that is verified by
// its kernel's keys, if this one is not.
func (a *adding) mayReplaceModule(e *Entry, b []byte) bool {
	old, content, err := readModule(e.path)
	if err != nil || old.SHA256 == e.SHA256 {
		return true
	}
	k := a.s.keysFor(a.ctx, e.Release)
	if _, err := k.verify(content); err != nil {
		return true
	}
	_, err = k.verify(b)
	return err == nil
}
