// Package reference is the user's store of references: the kernels and modules that guests
// are compared with, by their build-ids, and the authorities whose signatures on them count.
//
// What is added comes from files and packages that may be hostile. No name in them becomes
// part of a path: a file is named by its build-id, in hex. Every file is written beside its
// place and renamed. The folder itself is the user's own, and trusted as the host is.
package reference

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// Kind is what an entry of the store is.
type Kind string

// The kinds.
const (
	Kernel    Kind = "kernel"
	Module    Kind = "module"
	Authority Kind = "authority"
)

// Entry is something in the store.
type Entry struct {
	Kind Kind
	// ID is the build-id, or an authority's fingerprint (SHA-256): lower-case hex.
	ID string
	// Name is the module's or the authority's; of a kernel it is the form of its file, vmlinuz or vmlinux.
	Name    string
	Release string // of the kernel; empty for an authority
	Size    int64  // in bytes, as it was added: unpacked, a vmlinux without its debug information
	SHA256  string // of that
	From    string // the file that it was taken from, and where in it
	Added   time.Time

	path string // of the file; the metadata of a kernel is in another beside it
}

// Title names an entry for people.
func (e *Entry) Title() string {
	switch e.Kind {
	case Kernel:
		return e.Name + " " + e.Release
	case Module:
		return "module " + e.Name + " of " + e.Release
	}
	return "authority " + e.Name
}

// Store is a folder of references. It is safe for concurrent use, also by several processes.
type Store struct {
	dir   string
	cache string // where kernels are kept unpacked; empty: nowhere

	mu      sync.Mutex
	modules map[string]string     // paths by release and name
	keys    map[string]kernelKeys // by build-id of the kernel
}

// The folders of a store, and how the names of the files end.
const (
	kernelsDir     = "kernels"
	modulesDir     = "modules"
	authoritiesDir = "authorities"
	vmlinuz        = "vmlinuz"
	vmlinux        = "vmlinux"
	metaEnd        = ".json"
	moduleEnd      = ".ko.zst"
)

// Default is the folder of this user's store: $OUTSIGHT_PROFILES, or outsight/profiles in the
// XDG data folder; "" if the user has none.
func Default() string {
	if dir := os.Getenv("OUTSIGHT_PROFILES"); dir != "" {
		return dir
	}
	data := os.Getenv("XDG_DATA_HOME")
	if !filepath.IsAbs(data) { // relative ones are to be ignored
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "outsight", "profiles")
}

// Open opens the store in a folder, which need not exist yet. cache is the folder in which
// kernels are kept unpacked (see [image.Cached]); empty for none.
func Open(dir, cache string) *Store { return &Store{dir: dir, cache: cache} }

// Dir is the store's folder.
func (s *Store) Dir() string { return s.dir }

// ErrNothing says that a word names nothing in the store.
var ErrNothing = errors.New("nothing in the store has this name, release or ID")

// errMeta says that the store's own data cannot be read.
var errMeta = errors.New("what the store knows of the file is damaged: remove it, and add it again")

// maxMeta bounds the metadata of an entry, in bytes.
const maxMeta = 64 << 10

// List are the entries of some kinds, or of all: kernels, then modules, then authorities, by
// release and name. What cannot be read is an error beside the others.
func (s *Store) List(kinds ...Kind) ([]*Entry, error) {
	var all []*Entry
	var errs []error
	for _, k := range []struct {
		kind     Kind
		dir, end string
		read     func(string) (*Entry, error)
	}{
		{Kernel, kernelsDir, metaEnd, readKernelMeta}, {Module, modulesDir, moduleEnd, readModuleMeta}, {Authority, authoritiesDir, metaEnd, readAuthorityMeta},
	} {
		if len(kinds) > 0 && !slices.Contains(kinds, k.kind) {
			continue
		}
		names, err := names(filepath.Join(s.dir, k.dir), k.end)
		if err != nil {
			errs = append(errs, err)
		}
		first := len(all)
		for _, name := range names {
			e, err := k.read(name)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
				continue
			}
			e.Kind = k.kind
			all = append(all, e)
		}
		slices.SortFunc(all[first:], func(a, b *Entry) int {
			if c := strings.Compare(a.Release, b.Release); c != 0 {
				return c
			}
			return strings.Compare(a.Name+a.ID, b.Name+b.ID)
		})
	}
	return all, errors.Join(errs...)
}

// names are the files of a folder whose names end so; none if there is no folder.
func names(dir, end string) (all []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), end) && !strings.HasPrefix(e.Name(), ".") {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all, err
}

// readMeta reads an entry from a file of JSON.
func readMeta(name string, into any) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, maxMeta)
	n, _ := f.Read(b)
	if err := json.Unmarshal(b[:n], into); err != nil {
		return fmt.Errorf("%w: %w", errMeta, err)
	}
	return nil
}

func readKernelMeta(name string) (*Entry, error) {
	e := &Entry{path: strings.TrimSuffix(name, metaEnd)}
	if err := readMeta(name, e); err != nil {
		return nil, err
	}
	if filepath.Base(e.path) != e.ID+"."+e.Name {
		return nil, errMeta
	}
	return e, nil
}

// Find are the entries that a word names: by the beginning of the ID, by the release (a kernel
// and all its modules), or by the name.
func (s *Store) Find(word string) ([]*Entry, error) {
	all, err := s.List()
	const shortest = 4
	var byID, byRelease, byName []*Entry
	for _, e := range all {
		switch {
		case len(word) >= shortest && strings.HasPrefix(e.ID, strings.ToLower(word)):
			byID = append(byID, e)
		case e.Release != "" && e.Release == word:
			byRelease = append(byRelease, e)
		case e.Name == word:
			byName = append(byName, e)
		}
	}
	for _, found := range [][]*Entry{byID, byRelease, byName} {
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("%w: %q", ErrNothing, word), err)
}

// Remove takes an entry out of the store.
func (s *Store) Remove(e *Entry) error {
	s.mu.Lock()
	s.modules, s.keys = nil, nil
	s.mu.Unlock()
	err := os.Remove(e.path)
	if e.Kind == Kernel {
		err = errors.Join(err, os.Remove(e.path+metaEnd))
	}
	return err
}

// Authorities are those that are built in, and those that the user added.
func (s *Store) Authorities() []trust.Authority {
	all := trust.Authorities()
	entries, _ := names(filepath.Join(s.dir, authoritiesDir), metaEnd) // List reports errors
	for _, name := range entries {
		var a authorityFile
		if readMeta(name, &a) != nil {
			continue
		}
		if parsed, err := trust.ParseAuthority(a.Name, a.DER); err == nil {
			all = append(all, parsed)
		}
	}
	return all
}

// write writes a file of the store, by way of another beside it.
func (s *Store) write(dir, name string, parts ...[]byte) error {
	dir = filepath.Join(s.dir, dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the store: %w", err)
	}
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}
	defer os.Remove(f.Name()) // once renamed, it is not there
	for _, p := range parts {
		if err == nil {
			_, err = f.Write(p)
		}
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("write to the store: %w", err)
	}
	return nil
}

const tempPrefix = ".new-"

// tidy removes what an earlier run left half written.
func (s *Store) tidy() {
	for _, dir := range []string{"", kernelsDir, modulesDir, authoritiesDir} {
		entries, _ := os.ReadDir(filepath.Join(s.dir, dir)) // there may be none
		for _, e := range entries {
			info, err := e.Info()
			if err == nil && strings.HasPrefix(e.Name(), tempPrefix) && time.Since(info.ModTime()) > time.Hour {
				os.Remove(filepath.Join(s.dir, dir, e.Name()))
			}
		}
	}
}

// clean bounds a text from a file, and says whether it can be the name of something.
func clean(s string) bool {
	return s != "" && len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// Short is a build-id as people type it.
func Short(id string) string { return id[:min(len(id), 12)] }

// where names a kernel of the store in messages.
func (e *Entry) where() string { return "profile " + Short(e.ID) + " (" + e.Title() + ")" }

// readBounded reads a file of the store.
func readBounded(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxKernel {
		return nil, fmt.Errorf("%s: %w", name, image.ErrFormat)
	}
	return os.ReadFile(name)
}
