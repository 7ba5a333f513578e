package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/kernel/archive"
)

// Initrd is the archive of a guest's first root file system, which the host boots it with:
// the modules in it. It is read as a whole when the first is asked for, and again if it was
// replaced; what is kept are the modules' files as they are in it. It is safe for concurrent use.
type Initrd struct {
	Path  string
	Basis Basis // if a module has no signature

	mu    sync.Mutex
	read  string            // which file was read, by its inode, size and times; empty for none
	files map[string][]byte // by the module's name; nil content: it was let go of
	err   error
}

// ErrArchive says that a file is not an archive of an initial root file system.
var ErrArchive = errors.New("not a cpio archive of an initial root file system")

const (
	maxInitrd     = 1 << 30 // bytes of the file
	maxUnpacked   = 4 << 30 // of what it unpacks to
	maxEntries    = 1 << 20
	maxKeptInitrd = 512 << 20 // of modules
)

// Module implements [ModuleSource].
func (i *Initrd) Module(_ context.Context, id ModuleID) ([]byte, Trust, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := stamp(i.Path)
	b, ok := i.files[id.Name]
	if i.read == "" || i.read != now || ok && b == nil {
		i.index()
		i.read = now
		b, ok = i.files[id.Name]
	}
	switch {
	case ok:
	case i.err != nil:
		return nil, Trust{}, fmt.Errorf("modules in %s: %w", i.Path, i.err)
	default:
		return nil, Trust{}, ErrNoModule
	}
	b, err := UnpackModule(b)
	if err != nil {
		return nil, Trust{}, fmt.Errorf("module %s in %s: %w", id.Name, i.Path, err)
	}
	return b, Trust{Basis: i.Basis, Where: i.Path}, nil
}

// Forget lets go of the modules' content. Their names are kept, so that the archive is not read
// again for one that it does not have.
func (i *Initrd) Forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for name := range i.files {
		i.files[name] = nil
	}
}

// stamp identifies a file in its present state; empty if there is none.
func stamp(path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	return fmt.Sprint(st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
}

func (i *Initrd) index() {
	i.files, i.err = map[string][]byte{}, nil
	f, err := os.OpenFile(i.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		i.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > maxInitrd) {
		err = fmt.Errorf("%w: not a regular file of at most %d MiB", ErrArchive, maxInitrd>>20)
	}
	if err != nil {
		i.err = err
		return
	}
	kept := uint64(0)
	i.err = WalkInitrd(f, func(path string, size uint64, r io.Reader) error {
		name, ok := ModuleName(path)
		if !ok || size > maxModule {
			return nil
		}
		if kept += size; kept > maxKeptInitrd {
			return fmt.Errorf("more than %d MiB of modules", maxKeptInitrd>>20)
		}
		b := bytes.NewBuffer(make([]byte, 0, min(size, 1<<20)+bytes.MinRead)) // not nil
		if _, err := io.CopyN(b, r, int64(size)); err != nil {
			return err
		}
		// A later file takes the place of an earlier one, as when the kernel unpacks them.
		i.files[name] = b.Bytes()
		return nil
	})
}

// WalkInitrd calls each for the regular files of an initrd: cpio archives, one behind the
// other, of which each may be packed as a whole (Documentation/driver-api/early-userspace/
// buffer-format.rst). What each leaves of a file is passed over.
func WalkInitrd(r io.Reader, each func(path string, size uint64, r io.Reader) error) error {
	w := &initrdWalker{each: each, left: maxUnpacked}
	return w.archives(bufio.NewReaderSize(r, 1<<18), true)
}

type initrdWalker struct {
	each    func(path string, size uint64, r io.Reader) error
	left    int64
	entries int
}

// archives reads archives up to the end. Between them are zeros.
func (w *initrdWalker) archives(r *bufio.Reader, packed bool) error {
	for {
		magic, err := r.Peek(6)
		switch {
		case len(magic) == 0 && errors.Is(err, io.EOF):
			return nil
		case len(magic) > 0 && magic[0] == 0:
			if _, err := r.Discard(1); err != nil {
				return err
			}
			if w.left--; w.left < 0 {
				return errInitrdLarge
			}
		case string(magic) == "070701" || string(magic) == "070702":
			if err := w.archive(r); err != nil {
				return err
			}
		case packed && len(magic) >= 4:
			unpacked, err := unpackArchive(r, magic)
			if err != nil {
				return err
			}
			// Kernels go on behind a packed one too, but nobody builds such.
			return w.archives(bufio.NewReaderSize(unpacked, 1<<18), false)
		default:
			return fmt.Errorf("%w: it goes on with % x", ErrArchive, magic)
		}
	}
}

var errInitrdLarge = fmt.Errorf("%w: it unpacks to more than %d GiB", ErrArchive, maxUnpacked>>30)

// unpackArchive unpacks by the first bytes. LZMA and LZO, which kernels take too, no distribution uses.
func unpackArchive(r *bufio.Reader, magic []byte) (io.Reader, error) {
	switch {
	case bytes.HasPrefix(magic, []byte("\x02\x21\x4c\x18")), bytes.HasPrefix(magic, []byte("\x04\x22\x4d\x18")):
		return lz4.NewReader(r), nil
	case magic[0] == 0x1f, magic[0] == 0x28, magic[0] == 0xfd, magic[0] == 'B':
		return archive.Unpack(r)
	}
	return nil, fmt.Errorf("%w: it goes on with % x", ErrArchive, magic)
}

// archive reads one archive, up to its trailer.
func (w *initrdWalker) archive(r *bufio.Reader) error {
	err := archive.CPIO(r, w.entry, func(path string, size int64, r io.Reader) error {
		if err := w.each(path, uint64(size), r); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	if errors.Is(err, archive.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrArchive, err)
	}
	return err
}

// entry counts an entry, with its header.
func (w *initrdWalker) entry(size int64) error {
	const header = 128
	w.entries++
	if w.left -= header + size; w.left < 0 || w.entries > maxEntries {
		return errInitrdLarge
	}
	return nil
}
