package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/kernel/image/trust"
)

// To unpack a boot image and to verify its signature takes 150 to 250 ms, more than
// everything else in a comparison. So a file's payload is kept unpacked, with what its
// signature said. The user's own folder is trusted as the host is; that a file is the
// same as before is believed of its inode, size and times.

// cacheVersion changes when the meaning of what is kept does.
const cacheVersion = 1

// maxKept bounds the images that are kept. Each takes some 40 MiB of disk.
const maxKept = 8

// maxHeader bounds the header of a kept image, in bytes.
const maxHeader = 1 << 20

// DefaultCache is the folder of unpacked images for this user, or "" if the user has no
// cache folder.
func DefaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "outsight", "images")
}

// Cached is a source of one file, whose content is kept unpacked.
type Cached struct {
	File
	Dir string // to keep it in; empty: none
}

// Image implements [Source].
func (c Cached) Image(ctx context.Context, buildID string) (*Image, Trust, error) {
	if c.Dir == "" {
		return c.File.Image(ctx, buildID)
	}
	key, err := c.key()
	if err != nil {
		return nil, Trust{}, err
	}
	if im, t, err := openKept(c.kept(key)); err == nil && im.BuildID == buildID && buildID != "" {
		t.Where = c.Path
		if t.Basis != Signed {
			t.Basis = c.Basis
		}
		return im, t, nil
	}
	im, t, err := c.File.Image(ctx, buildID)
	if err != nil {
		return nil, Trust{}, err
	}
	c.keepAs(key, im, t)
	return im, t, nil
}

// keepAs keeps what the file was unpacked to, unless it was replaced since it had that key.
func (c Cached) keepAs(key string, im *Image, t Trust) {
	if after, err := c.key(); err == nil && after == key {
		_ = im.keep(c.kept(key), t) // an optimization: the folder may not be writable
	}
}

// kept is the path of the unpacked image of a key.
func (c Cached) kept(key string) string { return filepath.Join(c.Dir, key+".image") }

// Check reports why the file cannot be what a guest's kernel is compared with, whichever kernel that is.
func (c Cached) Check() error {
	key := ""
	if c.Dir != "" {
		var err error
		if key, err = c.key(); err != nil {
			return err
		}
		if _, _, err := openKept(c.kept(key)); err == nil {
			return nil
		}
	}
	b, err := readFile(c.Path)
	if err != nil {
		return err
	}
	im, t, err := Read(b, Trust{Basis: c.Basis, Where: c.Path}, c.Authorities)
	switch {
	case err != nil:
		return err
	case im.BuildID == "" || im.Release == "":
		return fmt.Errorf("%s: %w: it has no build-id or no release of a kernel", c.Path, ErrFormat)
	}
	c.keepAs(key, im, t) // so that it is not unpacked a second time
	return nil
}

// key names a file as it is now, with whose signatures are believed.
func (c Cached) key() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(c.Path, &st); err != nil {
		return "", fmt.Errorf("boot image %s: %w", c.Path, err)
	}
	h := sha256.New()
	fmt.Fprintln(h, cacheVersion, st.Dev, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
	authorities := c.Authorities
	if authorities == nil {
		authorities = trust.Authorities()
	}
	for _, a := range authorities {
		h.Write([]byte(a.Name))
		h.Write(a.Certificate.Raw)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// keptHeader is what a kept image begins with, as JSON in a line of its own.
type keptHeader struct {
	Version                       int
	Release, BuildID, Compression string
	Basis                         Basis
	By, Unsigned                  string
	Payload                       int64 // where the ELF file begins
	End, Size                     uint64
	Sections                      []keptSection
}

type keptSection struct {
	Name            string
	Addr, Size, Off uint64
	Bits, Exec      bool
}

// kept is the file of an image that was kept. Sections are read when they are needed.
type kept struct {
	f       *os.File
	payload int64
	parts   []part
}

type part struct {
	once sync.Once
	b    []byte
}

// section are the bytes of a section, nil if they cannot be read.
func (k *kept) section(s Section) []byte {
	p := &k.parts[s.n]
	p.once.Do(func() {
		b := allocate(int(s.Size))
		if n, _ := k.f.ReadAt(b, k.payload+int64(s.off)); n == len(b) {
			p.b = b
		}
	})
	return p.b
}

// openKept opens an image that was kept.
func openKept(name string) (*Image, Trust, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, Trust{}, err
	}
	im, t, err := readKept(f)
	if err != nil {
		f.Close()
		return nil, Trust{}, fmt.Errorf("%s: %w", name, err)
	}
	return im, t, nil
}

var errKept = errors.New("kept image is damaged, or of another version")

func readKept(f *os.File) (*Image, Trust, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, Trust{}, err
	}
	head := make([]byte, min(st.Size(), 16<<10))
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, Trust{}, err
	}
	line, _, ok := bytes.Cut(head, []byte("\n"))
	var h keptHeader
	if !ok || json.Unmarshal(line, &h) != nil || h.Version != cacheVersion || len(h.Sections) > maxSections ||
		h.Size > maxImage || h.End > h.Size || h.Payload < 0 || h.Payload > maxHeader || uint64(st.Size()-h.Payload) < h.Size {
		return nil, Trust{}, errKept
	}
	im := &Image{Release: h.Release, BuildID: h.BuildID, Compression: h.Compression, end: h.End}
	im.kept = &kept{f: f, payload: h.Payload, parts: make([]part, len(h.Sections))}
	for i, s := range h.Sections {
		if s.Bits && (s.Off > h.Size || s.Size > h.Size-s.Off) || s.Addr+s.Size < s.Addr {
			return nil, Trust{}, errKept
		}
		im.sections = append(im.sections, Section{Name: s.Name, Addr: s.Addr, Size: s.Size, off: s.Off, bits: s.Bits, exec: s.Exec, n: i})
	}
	if _, ok := im.Section(".text"); !ok {
		return nil, Trust{}, errKept
	}
	if im.Compression != "" {
		b := make([]byte, h.Size-h.End)
		if _, err := f.ReadAt(b, h.Payload+int64(h.End)); err != nil {
			return nil, Trust{}, err
		}
		if im.relocs, err = parseRelocs(b); err != nil {
			return nil, Trust{}, err
		}
	}
	im.symbols = sync.OnceValues(im.findSymbols)
	t := Trust{Basis: h.Basis, By: h.By}
	if h.Unsigned != "" {
		t.Unsigned = unsigned(h.Unsigned)
	}
	return im, t, nil
}

// unsigned is why an image is not believed for its signature, from its text.
func unsigned(text string) error {
	for _, known := range []error{trust.ErrUnsigned, trust.ErrTampered, trust.ErrUnknown, trust.ErrSignature} {
		if rest, ok := strings.CutPrefix(text, known.Error()); ok {
			return fmt.Errorf("%w%s", known, rest)
		}
	}
	return errors.New(text)
}

// keep writes an image to a file, with holes where it is zeros.
func (im *Image) keep(name string, t Trust) error {
	h := keptHeader{
		Version: cacheVersion, Release: im.Release, BuildID: im.BuildID, Compression: im.Compression,
		Basis: t.Basis, By: t.By, Payload: 16 << 10, End: im.end, Size: uint64(len(im.data)),
	}
	if t.Unsigned != nil {
		h.Unsigned = t.Unsigned.Error()
	}
	for _, s := range im.sections {
		h.Sections = append(h.Sections, keptSection{s.Name, s.Addr, s.Size, s.off, s.bits, s.exec})
	}
	head, err := json.Marshal(h)
	if err != nil || int64(len(head)) >= h.Payload {
		return fmt.Errorf("%w: header of %d bytes", errKept, len(head))
	}
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	prune(dir)
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // once renamed, it is not there
	_, err = f.Write(append(head, '\n'))
	const block = 64 << 10
	zeros := make([]byte, block)
	for off := 0; off < len(im.data) && err == nil; off += block {
		b := im.data[off:min(off+block, len(im.data))]
		if !bytes.Equal(b, zeros[:len(b)]) {
			_, err = f.WriteAt(b, h.Payload+int64(off))
		}
	}
	err = errors.Join(err, f.Truncate(h.Payload+int64(len(im.data))), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// prune removes the oldest images, and what was left half written.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	type entry struct {
		name string
		info fs.FileInfo
	}
	var all []entry
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch name := filepath.Join(dir, e.Name()); {
		case strings.HasSuffix(name, ".image"):
			all = append(all, entry{name, info})
		case strings.HasPrefix(e.Name(), ".new-") && time.Since(info.ModTime()) > time.Hour:
			os.Remove(name)
		}
	}
	slices.SortFunc(all, func(a, b entry) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for len(all) >= maxKept {
		os.Remove(all[0].name)
		all = all[1:]
	}
}
