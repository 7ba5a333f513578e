// Package text compares a running kernel's text with the image that it was booted from.
//
// A kernel patches its own text in a hundred thousand places: for the processor that it
// finds, for tracing, for static keys. Each is in a table of the image (package image).
// So every byte of the text is either what the image says, moved by KASLR, or in such a
// place, and then it must be one of the values that the kernel itself writes there, and
// agree with what governs it: the static key's count, the static call's target, the list
// of kprobes, the users of ftrace. What is neither is a [Difference].
//
// The tables, and the symbols that lead to them, are the image's own. Of the guest's
// memory only the text and what governs it is read.
package text

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// ErrOtherKernel says that an image is not that of the guest's kernel.
var ErrOtherKernel = errors.New("boot image is of another kernel")

// ErrUnknownSites says that a kernel patches itself in a way that is not known here:
// everything that it changed so would differ.
var ErrUnknownSites = errors.New("its patch sites are not understood")

// Reference is a boot image with its tables, ready to compare any guest that runs it.
type Reference struct {
	Image *image.Image
	sites *image.Sites
	text  *region // of the kernel
	start uint64  // of .text, as linked
	end   uint64  // of what is mapped as text
	names names
	// exports are what the kernel exports to modules, as linked.
	exports func() map[string]uint64
	vdsos   func() ([]image.VDSO, error)
	// Regions beside the text, made once: they keep what was found to be in order.
	constant, vdsoImages func() ([]*region, error)
	pointers             func() (codePointers, error)
	operands             func() (*operands, error)
}

// NewReference prepares an image. It takes some ten milliseconds; keep the answer.
func NewReference(im *image.Image) (*Reference, error) {
	if s, ok := im.Section(".cfi_sites"); ok && s.Size > 0 {
		return nil, fmt.Errorf("kernel %s checks the types of indirect calls (CONFIG_CFI): %w", im.Release, ErrUnknownSites)
	}
	s, _ := im.Section(".text")
	r := &Reference{Image: im, start: s.Addr, end: s.End()}
	var inSites, inNames error
	var wg sync.WaitGroup
	wg.Go(func() { r.sites, inSites = im.Sites() })
	r.names, inNames = namesOf(im)
	wg.Wait()
	if err := cmp.Or(inSites, inNames); err != nil {
		return nil, err
	}
	r.exports = sync.OnceValue(im.Exports)
	r.vdsos = sync.OnceValues(im.VDSOs)
	r.constant, r.vdsoImages = sync.OnceValues(r.rodata), sync.OnceValues(r.vdsoRegions)
	r.pointers = sync.OnceValues(r.codePointers)
	r.operands = sync.OnceValues(r.findOperands)
	r.text = &region{
		start: r.start, end: r.end, kept: &verdicts{}, sites: r.sites, tops: outermost(r.sites.All, r.names.tracerSites), code: true,
		read: im.ReadAt, callSites: sync.OnceValue(im.CallSites), symbol: r.symbol,
	}
	r.text.index()
	return r, nil
}

// symbol is the kernel's symbol that addr is in, as linked.
func (r *Reference) symbol(addr uint64) (name string, offset int64, ok bool) {
	t, err := r.Image.Symbols()
	if err != nil {
		return "", 0, false
	}
	return t.At(int64(addr - r.start))
}

// Difference is a piece of memory that is not as it should be.
type Difference struct {
	// Module is the module that it is in; nil: the kernel's image.
	Module    *linux.Module
	Addr      virt.Addr
	Want, Got []byte // up to maxBytes of them
	Len       int    // of the piece, in bytes
	// Code is where the instruction begins in which it does, by the image, and WantCode and
	// GotCode are the bytes from there on to the end of an instruction.
	Code              virt.Addr
	WantCode, GotCode []byte
	Section           string     // that it is in, of read-only data; empty for text
	VDSO              string     // whose image it is in; empty for others
	Symbol            string     // of the function or variable that it is in, by the file's table
	Offset            int64      // in that
	Kind              image.Kind // of the patch site; 0: the kernel patches nothing there
	Reason            string
	// State says that the kernel does write these bytes there, but not in its present
	// state: that of a static key, a static call or the processor's features.
	State bool
	// Patching says that the kernel was patching such places when it was read, and InHand that the task which
	// does so is at work, or has what governs this one in hand. That is one look's word: who looks again bounds for how long one task
	// is believed (package check).
	Patching, InHand bool
	// Work is what they who patch, or change what governs sites, had done by then; empty if the place is in nobody's hand.
	Work []linux.Work
}

// maxBytes bounds the bytes of a difference that are kept.
const maxBytes = 64

// maxDifferences bounds what one comparison yields: the text of another kernel differs
// everywhere.
const maxDifferences = 10_000

// Text is the text of a guest's kernel, or of its modules, beside its reference.
type Text struct {
	ref     *Reference
	s       *linux.System
	offset  uint64 // by KASLR
	regions []*region
	chunks  []chunk
	state   *state
	digest  uint64    // of the state, once it is loaded
	pool    sync.Pool // of *worker
}

// New compares the text of a guest with a reference. That the image is the guest's
// kernel is checked by its build-id.
func New(s *linux.System, ref *Reference) (*Text, error) {
	if err := ref.isOf(s); err != nil {
		return nil, err
	}
	return over(ref, s, ref.text), nil
}

// isOf is an error if the image is that of another kernel than the guest's.
func (r *Reference) isOf(s *linux.System) error {
	if im := r.Image; im.BuildID == "" || im.BuildID != s.BuildID {
		return fmt.Errorf("%w: its build-id is %s, the guest's kernel %s has %s", ErrOtherKernel, orNone(im.BuildID), s.Release, orNone(s.BuildID))
	}
	return nil
}

// over is what compares regions.
func over(ref *Reference, s *linux.System, regions ...*region) *Text {
	t := &Text{ref: ref, s: s, offset: uint64(s.Text) - ref.start, regions: regions, chunks: chunksOf(regions)}
	t.state = newState(t)
	for _, r := range regions {
		if r.kept == nil {
			r.kept = &verdicts{}
		}
	}
	t.pool.New = func() any { return t.newWorker() }
	return t
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}

// Range is the kernel's text.
func (t *Text) Range() (start, end virt.Addr) {
	return virt.Addr(t.ref.start + t.offset), virt.Addr(t.ref.end + t.offset)
}

// Bytes is how much is compared.
func (t *Text) Bytes() (n uint64) {
	for _, r := range t.regions {
		n += r.end - r.start
	}
	return n
}

// Sites is how many patch sites what is compared has.
func (t *Text) Sites() (n int) {
	for _, r := range t.regions {
		n += len(r.tops)
	}
	return n
}

// Differences compares all of it and yields what nothing explains, in the order of
// addresses.
//
// It is one look. Where the guest runs, a kernel that patches itself takes longer: whoever
// wants what stays looks again (package check does). A [Difference] says whether the kernel
// was patching itself.
func (t *Text) Differences(ctx context.Context) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		if err := t.state.load(ctx, t.s); err != nil {
			if !yield(Difference{}, err) {
				return
			}
		}
		found := t.compare(ctx, nil)
		patching, untraced, work, underWay := t.state.patching, t.state.untraced, t.state.work, t.state.underWay
		// A look may have read the code, and what governs it, at two times.
		if s := t.s.Fresh(); s != t.s && len(found) > 0 {
			now := over(t.ref, s, t.regions...)
			_ = now.state.load(ctx, s) // its error was yielded
			found = now.present(ctx, lasting(found, now.compare(ctx, found)))
			patching, untraced, work, underWay = patching || now.state.patching, now.state.untraced, now.state.work, now.state.underWay
		}
		if untraced != nil && !yield(Difference{}, fmt.Errorf("calls for tracing were not all compared with what ftrace knows: %w", untraced)) {
			return
		}
		for _, f := range found {
			if f.err != nil {
				if !yield(Difference{}, f.err) {
					return
				}
				continue
			}
			d := t.describe(f)
			if patching && dynamic(d.Kind) {
				d.Patching, d.InHand = true, f.inHand || underWay
				if d.InHand {
					d.Work = work
				}
				d.Reason += ", while the kernel patches itself"
			}
			if !yield(d, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(Difference{}, err)
		}
	}
}

// dynamic reports whether the kernel patches sites of a kind while it runs.
func dynamic(k image.Kind) bool {
	switch k {
	case image.Jump, image.StaticCall, image.Trampoline, image.Fentry, tracerCall:
		return true
	}
	return false
}

// lasting are the findings that are at the same address as one before: a kernel that keeps
// patching itself is in the middle of another place each time. What cannot be read now takes
// nothing back.
func lasting(before, now []finding) (last []finding) {
	at := make(map[uint64]bool, len(before))
	for _, f := range before {
		if f.err == nil {
			at[f.addr] = true
		}
	}
	unread := map[int]bool{}
	for _, f := range now {
		if f.err != nil {
			unread[f.chunk] = true
		}
		if f.err != nil || at[f.addr] {
			last = append(last, f)
		}
	}
	for _, f := range before {
		if f.err == nil && unread[f.chunk] {
			last = append(last, f)
		}
	}
	slices.SortStableFunc(last, func(a, b finding) int { return cmp.Or(cmp.Compare(a.chunk, b.chunk), cmp.Compare(a.addr, b.addr)) })
	return last
}

// finding is a difference before it is described.
type finding struct {
	addr   uint64 // as linked
	n      int
	kind   image.Kind
	reason string
	want   [maxBytes]byte
	got    [maxBytes]byte
	chunk  int
	inHand bool
	err    error
}

// compare compares everything on all processors; with only, the chunks alone in which
// something was found before.
func (t *Text) compare(ctx context.Context, only []finding) []finding {
	t.digest = t.state.digest()
	chunks := len(t.chunks)
	todo := make([]bool, 0)
	if only != nil {
		todo = make([]bool, chunks)
		for _, f := range only {
			todo[f.chunk] = true
		}
	}
	workers := min(runtime.GOMAXPROCS(0), chunks)
	results := make([][]finding, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			w := t.pool.Get().(*worker)
			defer t.pool.Put(w)
			// Neighbouring chunks share tables and pages, so each has its own part.
			for c := i * chunks / workers; c < (i+1)*chunks/workers && ctx.Err() == nil; c++ {
				if only == nil || todo[c] {
					w.chunk(c)
				}
			}
			results[i], w.found = w.found, nil
		})
	}
	wg.Wait()
	return slices.Concat(results...)
}

func (t *Text) describe(f finding) Difference {
	r := t.chunks[f.chunk].region
	d := Difference{Module: r.module, Section: r.section, VDSO: r.vdso, Addr: virt.Addr(f.addr + t.offset), Len: f.n, Kind: f.kind, Reason: f.reason, State: aboutState(f.reason)}
	n := min(f.n, maxBytes)
	d.Want, d.Got = slices.Clone(f.want[:n]), slices.Clone(f.got[:n])
	if name, off, ok := r.symbol(f.addr); ok {
		d.Symbol, d.Offset = name, off
	}
	d.Code, d.WantCode, d.GotCode = d.Addr, d.Want, d.Got
	if r.code {
		t.code(r, &d)
	}
	return d
}

// maxFunction bounds the part of a function that is decoded to find an instruction.
const maxFunction = 64 << 10

// code finds the instructions that a difference is in.
func (t *Text) code(r *region, d *Difference) {
	if d.Symbol == "" || d.Offset > maxFunction {
		return
	}
	from := uint64(d.Addr) - t.offset - uint64(d.Offset)
	n := min(uint64(d.Offset)+uint64(len(d.Want))+x86.MaxInstruction, r.end-from)
	b := make([]byte, n)
	if from < r.start || r.read(b, from, t.offset) != nil {
		return
	}
	at, first := 0, int(d.Offset)
	for at < first {
		s, ok := x86.ShapeOf(b[at:])
		if !ok {
			return // data among the code
		}
		if at+s.Len > first {
			break
		}
		at += s.Len
	}
	end := at
	for end < first+len(d.Want) {
		s, ok := x86.ShapeOf(b[end:])
		if !ok {
			return
		}
		end += s.Len
	}
	d.Code -= virt.Addr(first - at)
	d.WantCode = b[at:end]
	d.GotCode = slices.Concat(b[at:first], d.Got, b[first+len(d.Got):end])
}
