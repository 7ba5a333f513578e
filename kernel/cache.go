package kernel

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/phys"
)

// The cache keeps, for each kernel build, the answers that its tables gave, so
// that the tables need not be parsed again. Guests are hostile: one could carry
// the build-id of another's kernel with forged tables, to poison the cache for it.
// So an entry is used for a guest only if that guest's memory holds the very same
// tables, byte for byte: they are authenticated (GMAC) under a key that never
// leaves this host. See docs/decisions/0002-profile-cache.md.

// cacheVersion changes when the meaning of what is cached does.
const cacheVersion = 7

// maxEntry bounds a cache file, in bytes. Real ones take some tens of KiB.
const maxEntry = 16 << 20

// cacheEntry is the part of a cache file that belongs to one kernel build.
type cacheEntry struct {
	Release string
	Banner  string
	Probe   string // the banner at the start of the read-only data; not always the same
	BuildID string
	Rodata  int64 // from _text to the start of the read-only data, in bytes
	Symbols region
	Table   kallsyms.Layout // in Symbols
	Types   region
	Nonce   []byte               // of Tags
	Tags    [sealedTables][]byte // authenticate both regions' bytes
	Memo    memo                 `json:"-"` // written beside the JSON

	dir  string
	path string
	seal func() error // fills Nonce and Tags, for an entry not yet saved
}

// DefaultCache is the folder of profiles for this user, or "" if the user has no
// cache folder.
func DefaultCache() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "outsight", "profiles")
}

// maxSameBanner bounds the entries of kernels with one banner: a guest could make
// any number of them, and each costs time to check.
const maxSameBanner = 8

// prefix is how the file names of kernels with one banner begin.
func prefix(banner string) string {
	sum := sha256.Sum256([]byte(banner))
	return hex.EncodeToString(sum[:6]) + "-"
}

// loadCached makes an image of the kernel whose read-only data begins at start,
// from the cache, or returns nil.
func loadCached(mem phys.Memory, start phys.Addr, banner string, opts Options) (*image, *cacheEntry) {
	if opts.Cache == "" {
		return nil, nil
	}
	names, err := filepath.Glob(filepath.Join(opts.Cache, prefix(banner)+"*.profile"))
	if err != nil || len(names) == 0 {
		return nil, nil
	}
	aead, err := hostKey(opts.Cache)
	if err != nil {
		opts.Warn(err)
		return nil, nil
	}
	for _, name := range names[:min(len(names), maxSameBanner)] {
		e, err := readEntry(name, aead)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errVersion) {
				opts.Warn(fmt.Errorf("profile cache: %w; it will be rebuilt", err))
			}
			continue
		}
		if len(e.Nonce) != aead.NonceSize() {
			continue
		}
		sealed := &seal{aead: aead, nonce: e.Nonce, tags: e.Tags, base: e.Table.Base}
		im := e.image(mem, start, sealed)
		if im == nil || im.profile.Banner != e.Banner || e.Probe != banner {
			continue
		}
		if sealed.holdsAt(im) != nil {
			continue // the same banner, other tables: another build, or a forgery
		}
		return im, e
	}
	return nil, nil
}

// image places what e knows at the given start of read-only data. What is read of its tables
// must be what was sealed.
func (e *cacheEntry) image(mem phys.Memory, start phys.Addr, sealed *seal) *image {
	im := &image{
		mem: mem, text: start - phys.Addr(e.Rodata), symbols: e.Symbols, types: e.Types, sealed: sealed,
		profile: &Profile{Origin: FromCache, BuildID: e.BuildID, memo: e.Memo},
	}
	im.profile.symbols = sync.OnceValues(func() (*kallsyms.Table, error) {
		return kallsyms.Open(e.Table, func(p []byte, off int) error { return sealed.readSealed(im, p, off) })
	})
	im.parseTypesLater()
	if im.text%align != 0 || !im.bannerHolds() {
		return nil
	}
	return im
}

// newCacheEntry prepares the entry of a kernel that was parsed from memory.
func newCacheEntry(im *image, opts Options) *cacheEntry {
	rodata, ok := im.profile.Symbol("__start_rodata")
	if opts.Cache == "" || !ok || im.profile.BuildID == "" {
		return nil
	}
	table, err := im.profile.Table()
	if err != nil {
		return nil
	}
	page := make([]byte, phys.PageSize)
	if _, err := im.mem.ReadAt(page, im.text+phys.Addr(rodata.Rel)); err != nil {
		return nil
	}
	probe, ok := findBanner(page)
	if !ok {
		return nil // only a full scan finds this kernel, so nothing would look here
	}
	e := &cacheEntry{
		Release: im.profile.Release, Banner: im.profile.Banner, Probe: probe, BuildID: im.profile.BuildID,
		Rodata: rodata.Rel, Symbols: im.symbols, Table: table.Layout(), Types: im.types,
		dir: opts.Cache, path: filepath.Join(opts.Cache, prefix(probe)+im.profile.BuildID+".profile"),
	}
	e.seal = func() error {
		aead, err := hostKey(e.dir)
		if err != nil {
			return err
		}
		e.Nonce = make([]byte, aead.NonceSize())
		if _, err := rand.Read(e.Nonce); err != nil {
			return err
		}
		// What was parsed, not what the guest has there by now.
		types, err := im.typeBytes()
		if err != nil {
			return err
		}
		sealed := seal{aead: aead, nonce: e.Nonce, base: e.Table.Base}
		e.Tags = [sealedTables][]byte{sealed.tag(nil, im.symbolBytes, symbolTable, 0), sealed.tag(nil, types, typeTable, 0)}
		return nil
	}
	return e
}

const keySize = 16 // AES-128, in bytes

// newKey makes the key, unless another process does so at the same time.
func newKey(dir, path string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(key)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	// A link puts it in place atomically, and fails if there is one by now.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(path)
}

// hostKey is the key of this cache, made at first use.
func hostKey(dir string) (cipher.AEAD, error) {
	path := filepath.Join(dir, "key")
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("profile cache: %w", err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("profile cache: %s is damaged; remove the folder and it will be created again", path)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// readEntry reads a cache file: a nonce, a tag over the rest, and the rest: the version,
// the length of the entry in JSON, that, and the memo.
func readEntry(path string, aead cipher.AEAD) (*cacheEntry, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	e, err := parseEntry(b, aead)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	e.dir, e.path = filepath.Dir(path), path
	return e, nil
}

// errVersion is an entry of another version of outsight, to be rebuilt silently.
var errVersion = errors.New("file of another version")

func parseEntry(b []byte, aead cipher.AEAD) (*cacheEntry, error) {
	head := aead.NonceSize() + aead.Overhead()
	if len(b) < head || len(b) > maxEntry {
		return nil, fmt.Errorf("file of %d bytes is damaged", len(b))
	}
	body := b[head:]
	if _, err := aead.Open(nil, b[:aead.NonceSize()], b[aead.NonceSize():head], body); err != nil {
		return nil, errors.New("file is damaged, or was not written here")
	}
	if len(body) == 0 || body[0] != cacheVersion {
		return nil, errVersion
	}
	body = body[1:]
	n, size := binary.Uvarint(body)
	if size <= 0 || n > uint64(len(body)-size) {
		return nil, errors.New("file is damaged")
	}
	body = body[size:]
	e := &cacheEntry{}
	if err := json.Unmarshal(body[:n], e); err != nil {
		return nil, fmt.Errorf("file is damaged: %w", err)
	}
	var err error
	if e.Memo, err = parseMemo(body[n:]); err != nil {
		return nil, fmt.Errorf("file is damaged: %w", err)
	}
	return e, nil
}

// save writes the entry with what p has learned. Many processes may do so at
// once: the last one wins, and readers never see half a file.
func (e *cacheEntry) save(p *Profile) error {
	if e.seal != nil && e.Tags[symbolTable] == nil {
		if err := e.seal(); err != nil {
			return err
		}
	}
	aead, err := hostKey(e.dir)
	if err != nil {
		return err
	}
	head, err := json.Marshal(e)
	if err != nil {
		return err
	}
	body := binary.AppendUvarint([]byte{cacheVersion}, uint64(len(head)))
	body = p.memo.appendTo(append(body, head...))
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	out := append(nonce, aead.Seal(nil, nonce, nil, body)...)
	e.makeRoom()
	return writeFile(e.path, append(out, body...))
}

// makeRoom removes the oldest entries of the same banner, so that the new one is
// among those that are looked at.
func (e *cacheEntry) makeRoom() {
	names, err := filepath.Glob(filepath.Join(e.dir, prefix(e.Probe)+"*.profile"))
	if err != nil || len(names) < maxSameBanner || slices.Contains(names, e.path) {
		return
	}
	age := func(name string) time.Time {
		info, err := os.Stat(name)
		if err != nil {
			return time.Time{}
		}
		return info.ModTime()
	}
	slices.SortFunc(names, func(a, b string) int { return age(a).Compare(age(b)) })
	for _, name := range names[:len(names)-maxSameBanner+1] {
		_ = os.Remove(name) // gone already, or we may not remove it: the entry is only a cache
	}
}

// writeFile replaces a file atomically.
func writeFile(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(b)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	return err
}
