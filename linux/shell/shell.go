// Package shell is the command lines that the shells of a Linux guest remember: bash,
// zsh and busybox.
package shell

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

// Entry is a command line that a shell remembers.
type Entry struct {
	Shell   string // bash, zsh or busybox
	Index   int    // as the shell numbers them; -1 where that is not known, or for one in no list
	Time    time.Time
	Command string
	Addr    virt.Addr // of what holds it
	How     Source
}

// Source is how a command line was found.
type Source string

// The sources, the surest first.
const (
	BySymbol Source = "symbol" // the list that the symbols of the shell or its library lead to
	ByCode   Source = "code"   // the list that the shell's own machine code leads to
	ByShape  Source = "shape"  // a list that looks like the shell's
	Stray    Source = "stray"  // an entry that looks like one, in no list
)

// Bounds of what is read of one shell.
const (
	maxMemory  = 64 << 20
	maxHistory = 1 << 17
	maxCommand = 64 << 10
)

// Reader reads the memory of shells. It is not safe for concurrent use.
type Reader struct {
	s         *linux.System
	processes *linux.ProcessReader
	copied    []byte // room for the memory of one shell
}

// NewReader begins a listing. What it remembers must not grow old: make one for each look
// at the guest.
func NewReader(s *linux.System) *Reader {
	return &Reader{s: s, processes: s.NewProcessReader()}
}

// History yields the command lines in the memory of t, if its program is called as a
// shell that is known here is, or in any case with all set. What cannot be read ends it
// with an error.
func (l *Reader) History(ctx context.Context, t linux.Task, all bool) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		h, err := l.memory(ctx, t, all)
		if err != nil {
			yield(nil, fmt.Errorf("command lines of task %#x: %w", uint64(t.Addr), err))
			return
		}
		if h == nil {
			return
		}
		var found []*Entry
		for _, of := range []func() []*Entry{h.bash, h.zsh, h.busybox} {
			if found = of(); len(found) > 0 {
				break
			}
		}
		for _, e := range found {
			if !yield(e, nil) {
				return
			}
		}
		if h.left < 0 {
			yield(nil, fmt.Errorf("command lines of task %#x: %w", uint64(t.Addr), kobj.ErrBudget))
		}
	}
}

// memory is what a process can write to, as it was copied.
type memory struct {
	s      *linux.System
	space  *virt.Space
	abi    linux.ABI
	files  image.Memory         // with what of mapped files is not in place
	images []*linux.MappedImage // files with code: its program first
	pieces []piece              // by address, not touching
	left   int                  // bytes of text that may still be looked at
}

// piece is consecutive memory.
type piece struct {
	at virt.Addr
	b  []byte
}

// memory copies the memory of t if it may be a shell; nil if it is none.
func (l *Reader) memory(ctx context.Context, t linux.Task, all bool) (*memory, error) {
	_, comm, err := l.processes.Name(t)
	if err != nil {
		return nil, err
	}
	mm, err := t.MM()
	if err != nil || mm == 0 {
		return nil, err
	}
	// To look for the program among all mappings takes long, and few are shells.
	named := all || shellName(comm)
	if !named {
		// Where it cannot be read, it is none that is known.
		if exe, _, _ := l.processes.ExecutablePath(mm); !shellName(path.Base(exe)) {
			return nil, nil
		}
	}
	abi, err := l.s.ABI(mm)
	if err != nil {
		return nil, err
	}
	space, err := l.s.UserSpace(mm)
	if err != nil {
		return nil, err
	}
	h := &memory{s: l.s, space: space, abi: abi, left: 4 * maxMemory}
	h.images, err = l.images(ctx, t)
	if err != nil || len(h.images) == 0 && !named {
		return nil, err
	}
	return h, h.copy(ctx, l, mm)
}

// maxImages bounds the files that a shell's symbols are looked for in: bash loads
// less than ten.
const maxImages = 128

// images are the files with code that t has mapped, its program first.
func (l *Reader) images(ctx context.Context, t linux.Task) (images []*linux.MappedImage, err error) {
	for i, err := range l.processes.Images(ctx, t) {
		switch {
		case err != nil || i == nil:
			continue
		case i.Program:
			images = slices.Insert(images, 0, i)
		case len(images) < maxImages:
			images = append(images, i)
		}
	}
	return images, ctx.Err()
}

// shellName reports whether a program of that name may be a shell: bash, zsh-static,
// busybox.nosuid, bash-5.2.
func shellName(name string) bool {
	name = strings.TrimPrefix(name, "-") // of a login
	if i := strings.IndexAny(name, "-._0123456789"); i > 0 {
		name = name[:i]
	}
	switch name {
	case "bash", "rbash", "zsh", "rzsh", "sh", "ash", "busybox":
		return true
	}
	return false
}

// wordSize is how many bytes a pointer of the shell's has.
func (h *memory) wordSize() int { return h.abi.WordSize() }

// copy copies what the process can write to and has in place, in one walk over its page
// tables.
func (h *memory) copy(ctx context.Context, l *Reader, mm virt.Addr) error {
	all, err := l.processes.MappedRanges(ctx, mm)
	if err != nil {
		return err
	}
	h.files = h.s.FilledMemory(h.space, all)
	maps := slices.DeleteFunc(slices.Clone(all), func(m *linux.Mapping) bool {
		return m.Flags&linux.VMWrite == 0 || m.Flags&linux.VMShared != 0
	})
	if len(maps) == 0 {
		return nil
	}
	var parts []part
	total := 0
	i := 0
	for e := range h.space.Mappings(maps[0].Start, maps[len(maps)-1].End-1) {
		last := e.VA + virt.Addr(e.Size)
		for i < len(maps) && maps[i].End <= e.VA {
			i++
		}
		for _, m := range maps[i:] { // a large page can lie under several
			if m.Start >= last {
				break
			}
			start, end := max(e.VA, m.Start), min(last, m.End)
			if total += int(end - start); total > maxMemory {
				return fmt.Errorf("%w: more than %d bytes to search", kobj.ErrBroken, maxMemory)
			}
			parts = append(parts, part{start, e.PA + phys.Addr(start-e.VA), int(end - start)})
		}
	}
	if total > len(l.copied) {
		l.copied = make([]byte, total)
	}
	room := l.copied[:total]
	for _, p := range parts {
		b := room[:p.n]
		if _, err := h.s.Memory.ReadAt(b, p.pa); err != nil {
			if errors.Is(err, phys.ErrGone) {
				return err
			}
			continue
		}
		h.add(p.at, b)
		room = room[p.n:]
	}
	return ctx.Err()
}

// part is a part of a process' memory: n bytes that lie in one page.
type part struct {
	at virt.Addr
	pa phys.Addr
	n  int
}

// add appends memory, which comes by ascending address, and behind the last in l.copied.
func (h *memory) add(at virt.Addr, b []byte) {
	if n := len(h.pieces); n > 0 {
		if p := &h.pieces[n-1]; p.at+virt.Addr(len(p.b)) == at {
			p.b = p.b[:len(p.b)+len(b)]
			return
		}
	}
	h.pieces = append(h.pieces, piece{at, b})
}

// bytes is the memory from a on to the end of its piece; nil if it was not copied.
func (h *memory) bytes(a virt.Addr) []byte {
	i, ok := slices.BinarySearchFunc(h.pieces, a, func(p piece, a virt.Addr) int { return cmp.Compare(p.at, a) })
	if !ok {
		i--
	}
	if i < 0 || a >= h.pieces[i].at+virt.Addr(len(h.pieces[i].b)) {
		return nil
	}
	return h.pieces[i].b[a-h.pieces[i].at:]
}

// word is the word at a; ok is false if it was not copied.
func (h *memory) word(a virt.Addr) (v virt.Addr, ok bool) {
	b := h.bytes(a)
	if len(b) < h.wordSize() {
		return 0, false
	}
	return linux.WordIn(b, h.wordSize()), true
}

// command is the command line at a; ok is false for what cannot be one.
func (h *memory) command(a virt.Addr) (text string, ok bool) {
	b := h.bytes(a)
	b = b[:min(len(b), maxCommand)]
	end := bytes.IndexByte(b, 0)
	// What is searched without a result costs as well.
	if h.left -= max(end, 64); end < 0 {
		h.left -= len(b)
	}
	if end <= 0 || h.left < 0 {
		return "", false
	}
	for _, c := range b[:end] {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != 0x1b || c == 0x7f {
			return "", false
		}
	}
	return string(b[:end]), true
}
