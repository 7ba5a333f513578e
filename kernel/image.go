package kernel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/note"
)

// image is a kernel's image somewhere in memory: bytes that look like a kernel,
// of which it is not known whether it runs. Addresses are those of the layout
// under which the memory was searched, which may still be a guess.
type image struct {
	mem     phys.Memory
	text    phys.Addr // of _text
	profile *Profile
	guess   bool // where the memory's bytes belong is not known for sure
	// Where the tables lie, in bytes from _text.
	symbols, types region
	symbolBytes    []byte                 // of a table that was parsed
	typeBytes      func() ([]byte, error) // what is parsed of the types
	sealed         *seal                  // of an image that was known
}

// region is a part of an image.
type region struct {
	Rel int64  // bytes from _text
	Len uint64 // in bytes
}

// The symbols that finding a kernel needs.
var ownSymbols = []string{
	"_text", "_end", "__start_rodata", "linux_banner", "__start_BTF", "_binary__btf_vmlinux_bin_start",
	"__start_notes", "__stop_notes", "init_top_pgt", "level3_kernel_pgt", "level4_kernel_pgt",
	"page_offset_base", "vmcoreinfo_data", "vmcoreinfo_size", "max_pfn", "max_low_pfn",
	"system_state", "boot_cpu_data", "init_task",
	"timekeeper_data", "tk_core", "shadow_timekeeper",
}

// windowStep is by how much the window on an image's read-only data grows until
// the symbol table is found, windowUsual what is enough for distributions' kernels
// (their tables end 3 to 5 MB behind the start), and windowMax where the search
// ends, in bytes.
const (
	windowStep  = 1 << 20
	windowUsual = 12 << 20
	windowMax   = 64 << 20
)

// errNoTables says that a place that looked like a kernel held no symbol table.
var errNoTables = errors.New("no symbol table")

// searchMax bounds how much one search reads into windows, in bytes: some ten
// seconds' worth. A hostile guest may be full of what looks like the start of a
// kernel. A variable, so that a test need not read so much.
var searchMax = 16 << 30

// maxTries bounds how many token tables are looked behind in one window.
const maxTries = 64

// errTooMany says that a search was given up.
var errTooMany = errors.New("too many places in memory look like a kernel: the search was cut")

// parseAt finds the tables of the kernel whose read-only data begins at start. The
// first from bytes hold no token table, and no more than window are looked at. The named symbols are looked up at once. What
// is read is taken off budget.
func parseAt(mem phys.Memory, start phys.Addr, from, window int, symbols []string, budget *int) (*image, error) {
	w := make([]byte, 0, 8*windowStep)
	for tries := maxTries; len(w) < window && tries > 0; {
		step := windowStep
		if len(w) == 0 {
			step += from
		}
		if *budget -= step; *budget < 0 {
			return nil, errTooMany
		}
		have := len(w)
		if have+step > cap(w) {
			w = append(make([]byte, 0, max(2*cap(w), have+step)), w...)
		}
		n, err := readParts(mem, w[have:have+step], start+phys.Addr(have))
		if n == 0 {
			return nil, fmt.Errorf("%w in the %d KiB at %#x: %w", errNoTables, have>>10, uint64(start), err)
		}
		w = w[:have+n]
		p := kallsyms.NextIndex(w, from)
		for ; p >= 0 && tries > 0; p = kallsyms.NextIndex(w, p+4) {
			t, err := kallsyms.Find(w, p)
			if err == nil {
				return anchor(mem, start, w, t, symbols)
			}
			if errors.Is(err, kallsyms.ErrShort) && n == step {
				break // go on from here with a wider window
			}
			tries--
		}
		if from = p; p < 0 {
			from = max(0, len(w)-overlap)
		}
	}
	return nil, fmt.Errorf("%w in the %d MiB at %#x", errNoTables, len(w)>>20, uint64(start))
}

// anchor finds out where _text lies for a symbol table found in window w, which
// begins at start.
func anchor(mem phys.Memory, start phys.Addr, w []byte, t *kallsyms.Table, symbols []string) (*image, error) {
	im := &image{mem: mem, profile: &Profile{Origin: FromGuest, memo: newMemo()}}
	im.profile.symbols = func() (*kallsyms.Table, error) { return t, nil }
	if err := im.profile.Prefetch(slices.Concat(ownSymbols, symbols)...); err != nil {
		return nil, err
	}
	var tries []phys.Addr
	if pos, ok := t.TextPosition(); ok {
		tries = append(tries, start+phys.Addr(pos))
	} else {
		if s, ok := im.profile.Symbol("__start_rodata"); ok {
			tries = append(tries, start-phys.Addr(s.Rel))
		}
		// Else somewhere before the tables, on a large page's boundary.
		first := (start + phys.Addr(t.Start)) &^ (align - 1)
		for back := phys.Addr(0); back <= windowMax && back <= first; back += align {
			tries = append(tries, first-back)
		}
	}
	for _, text := range tries {
		im.text = text
		if text%align != 0 || !im.bannerHolds() {
			continue
		}
		im.symbols = region{Rel: int64(start) + int64(t.Start) - int64(text), Len: uint64(t.End - t.Start)}
		im.symbolBytes = w[t.Start:t.End]
		if err := im.findTypes(); err != nil {
			return nil, err
		}
		im.identify()
		return im, nil
	}
	if text, ok := im.moved(start, w); ok {
		return nil, &movedError{text}
	}
	if !im.namesData() {
		if err := im.anchorText(start + phys.Addr(t.Start)); err != nil {
			return nil, err
		}
		im.symbols = region{Rel: int64(start) + int64(t.Start) - int64(im.text), Len: uint64(t.End - t.Start)}
		im.symbolBytes = w[t.Start:t.End]
		return im, nil
	}
	return nil, fmt.Errorf("symbol table at %#x belongs to no kernel image in memory", uint64(start)+uint64(t.Start))
}

// at is the place of a symbol in the image.
func (im *image) at(name string) (phys.Addr, bool) {
	s, ok := im.profile.Symbol(name)
	if !ok || s.Percpu {
		return 0, false
	}
	return im.text + phys.Addr(s.Rel), true
}

// bannerHolds reports whether linux_banner is where the symbols say, and keeps it.
func (im *image) bannerHolds() bool {
	pa, ok := im.at("linux_banner")
	if !ok {
		return false
	}
	buf := make([]byte, 512)
	if n, _ := im.mem.ReadAt(buf, pa); n < len(buf) || !bytes.HasPrefix(buf, bannerPrefix) {
		return false
	}
	banner, ok := findBanner(buf)
	if !ok {
		return false
	}
	im.setBanner(banner)
	return true
}

func (im *image) setBanner(banner string) {
	im.profile.Banner = banner
	im.profile.Release, _, _ = strings.Cut(banner[len(bannerPrefix):], " ")
}

// findTypes locates BTF by its section's symbols and arranges for it to be
// parsed when first needed.
func (im *image) findTypes() error {
	pa, ok := im.at("__start_BTF")
	if !ok { // its name until 5.6
		pa, ok = im.at("_binary__btf_vmlinux_bin_start")
	}
	if !ok {
		return fmt.Errorf("kernel %s carries no type information (CONFIG_DEBUG_INFO_BTF): it cannot be read without", im.profile.Release)
	}
	var head [32]byte
	if _, err := im.mem.ReadAt(head[:], pa); err != nil {
		return fmt.Errorf("type information of kernel %s: %w", im.profile.Release, err)
	}
	h, err := btf.ParseHeader(head[:])
	if err != nil {
		return fmt.Errorf("type information of kernel %s at %#x: %w", im.profile.Release, uint64(pa), err)
	}
	im.types = region{Rel: int64(pa - im.text), Len: h.Size()}
	im.parseTypesLater()
	return nil
}

// parseTypesLater arranges for the types to be read and parsed when first needed.
func (im *image) parseTypesLater() {
	im.typeBytes = sync.OnceValues(func() ([]byte, error) {
		b, err := im.read(im.types)
		if err == nil && im.sealed != nil && !im.sealed.holds(b, typeTable, 0) {
			err = errChanged
		}
		if err != nil {
			return nil, fmt.Errorf("type information of kernel %s: %w", im.profile.Release, err)
		}
		return b, nil
	})
	im.profile.types = sync.OnceValues(func() (*btf.Spec, error) {
		b, err := im.typeBytes()
		if err != nil {
			return nil, err
		}
		return btf.Parse(b)
	})
}

// read copies a region of the image.
func (im *image) read(r region) ([]byte, error) {
	if r.Len > btf.MaxSize {
		return nil, fmt.Errorf("region of %d bytes at _text%+#x is too large", r.Len, r.Rel)
	}
	b := make([]byte, r.Len)
	_, err := readParts(im.mem, b, im.text+phys.Addr(r.Rel))
	return b, err
}

// readParts is ReadAt, a part for each processor where it is worth it: what takes long is
// the host's page faults in fresh memory.
func readParts(mem phys.Memory, p []byte, pa phys.Addr) (int, error) {
	parts := min(runtime.GOMAXPROCS(0), len(p)>>20)
	if parts <= 1 {
		return mem.ReadAt(p, pa)
	}
	size := (len(p)/parts + phys.PageSize - 1) &^ (phys.PageSize - 1)
	var failed atomic.Bool
	var wg sync.WaitGroup
	for off := 0; off < len(p); off += size {
		part := p[off:min(len(p), off+size)]
		wg.Go(func() {
			if _, err := mem.ReadAt(part, pa+phys.Addr(off)); err != nil {
				failed.Store(true)
			}
		})
	}
	wg.Wait()
	if failed.Load() {
		return mem.ReadAt(p, pa) // for how much of it is there
	}
	return len(p), nil
}

// identify reads the build-id from the image's notes.
func (im *image) identify() {
	start, ok1 := im.at("__start_notes")
	end, ok2 := im.at("__stop_notes")
	if !ok1 || !ok2 || end <= start || end-start > 1<<16 {
		return
	}
	b := make([]byte, end-start)
	if _, err := im.mem.ReadAt(b, start); err == nil {
		im.profile.BuildID = buildID(b)
	}
}

// buildID is the build-id in a section of ELF notes, if it has one.
func buildID(notes []byte) string {
	return validID(hex.EncodeToString(note.BuildID(notes, binary.LittleEndian, 4)))
}

// validID returns id if it is a build-id in lower-case hex, else nothing. It comes
// from the guest, and becomes part of a file's name.
func validID(id string) string {
	if len(id) < 2 || len(id) > 128 || len(id)%2 != 0 || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}
