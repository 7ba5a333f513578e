package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// maxImage bounds the code of one trampoline, in bytes: the kernel's own bound is a page.
const maxImage = 2 * phys.PageSize

// bpfImage judges a trampoline or dispatcher of BPF.
func (w *trampolineWalk) bpfImage(ctx context.Context, i bpf.Image) (*Finding, error) {
	found := func(at virt.Addr, what string) *Finding {
		f := w.found(fmt.Sprintf("%s at %#x %s", i.Name, uint64(i.Start), what), i.Name, i.Start, at)
		f.Expected = "code that calls BPF programs, what enters and leaves them, and the function that is traced"
		f.Basis = "the guest's memory alone: where the code leads that its list of symbols names as BPF's"
		return f
	}
	n := uint64(i.End - i.Start)
	if i.End <= i.Start || n > maxImage {
		return found(i.Start, fmt.Sprintf("has %d bytes, more than any that the kernel makes", n)), nil
	}
	code := make([]byte, n)
	if err := w.s.Linux.ReadAt(code, i.Start); err != nil {
		return nil, fmt.Errorf("%s at %#x: %w", i.Name, uint64(i.Start), err)
	}
	_, err := w.s.Linux.Member("bpf_tramp_image", "ksym") // 5.13
	dispatcher := strings.HasPrefix(i.Name, "bpf_dispatcher_")
	entries := entriesOf(code, err == nil && !dispatcher)
	if err != nil && !dispatcher && n == phys.PageSize {
		if entries, err = w.halfInUse(i); err != nil || entries == nil {
			return nil, err
		}
	}
	for out := range branchesFrom(code, i.Start, entries) {
		if out.bad {
			return found(out.at, "has bytes in its way that are not an instruction which the kernel puts there"), nil
		}
		what := w.bpfMayLead(out.to)
		switch {
		case what == "":
		case !w.mayBeGone(i, out.to):
			return found(out.at, "leads to "+what+", where no trampoline leads"), nil
		case !w.broken: // else that is a gap
			f := found(out.at, "leads to "+what+", where no trampoline leads but one that is being freed")
			return w.released(ctx, i, code, f)
		}
	}
	return nil, nil
}

// halfInUse is where the code of a trampoline begins whose page has two halves that are used in turn (up to 5.12,
// bpf_trampoline_update); nil: none is in use. The other leads where it did, which may be gone.
func (w *trampolineWalk) halfInUse(i bpf.Image) ([]int, error) {
	symbol, err := w.s.Linux.Member("bpf_trampoline", "ksym")
	if err != nil {
		return nil, err
	}
	selector, err := w.s.Linux.Member("bpf_trampoline", "selector")
	if err != nil {
		return nil, err
	}
	r := w.s.Linux.Reader()
	n := r.Uint(i.Symbol-virt.Addr(symbol.Offset), selector)
	if r.Err != nil || n == 0 {
		return nil, r.Err
	}
	return []int{int((n+1)&1) * phys.PageSize / 2}, nil
}

// entriesOf are where code of an image may be entered. One of a page has two halves, up to 5.12 and in
// dispatchers, which are used in turn: the other is as it was allocated, or holds what was there
// before. whole says that it begins at the start.
func entriesOf(code []byte, whole bool) (entries []int) {
	if len(code) != phys.PageSize {
		return []int{0}
	}
	for _, half := range []int{0, phys.PageSize / 2} {
		if half == 0 && whole || generated(code[half:]) {
			entries = append(entries, half)
		}
	}
	return entries
}

// generated reports whether code begins as a trampoline does (push %rbp; mov %rsp,%rbp), or a
// dispatcher (cmp $IMM,%rdx).
func generated(code []byte) bool {
	code = bytes.TrimPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) // endbr64
	return bytes.HasPrefix(code, []byte{0x55, 0x48, 0x89, 0xe5}) || bytes.HasPrefix(code, []byte{0x48, 0x81, 0xfa})
}

// outBranch is a branch that leaves a piece of code, or what cannot be decoded in it.
type outBranch struct {
	at, to virt.Addr
	bad    bool
}

// branchesFrom yields the direct branches that leave code, which is at start: those that are reached
// from its entries.
func branchesFrom(code []byte, start virt.Addr, entries []int) func(func(outBranch) bool) {
	return func(yield func(outBranch) bool) {
		seen := make([]bool, len(code)+1)
		seen[len(code)] = true
		todo := append([]int(nil), entries...)
		for len(todo) > 0 {
			i := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			for !seen[i] {
				seen[i] = true
				b, at := code[i:], start+virt.Addr(i)
				s, ok := x86.ShapeOf(b)
				if !ok {
					if len(b) >= 16 && !yield(outBranch{at: at, bad: true}) { // else it is cut off by the end
						return
					}
					break
				}
				kind := branchKind(b, s)
				if kind != notBranch && s.RelLen > 0 {
					to := relative(b, s, at)
					if to >= start && to-start < virt.Addr(len(code)) {
						if kind != isCall {
							todo = append(todo, int(to-start))
						}
					} else if !yield(outBranch{at: at, to: to}) {
						return
					}
				}
				if kind == isEnd {
					break
				}
				i += s.Len
			}
		}
	}
}

// The kinds of instructions that change where the code goes on.
const (
	notBranch = iota
	isCall
	isConditional
	isEnd // it goes on elsewhere, or nowhere
)

func branchKind(b []byte, s x86.Shape) int {
	op := b[s.Opcode:s.Len]
	switch c := op[0]; {
	case c == 0xe8:
		return isCall
	case c == 0xe9 || c == 0xeb || c == 0xc3 || c == 0xcc:
		return isEnd
	case c&0xf0 == 0x70 || c >= 0xe0 && c <= 0xe3:
		return isConditional
	case c == 0x0f && op[1]&0xf0 == 0x80:
		return isConditional
	case c == 0x0f && op[1] == 0x0b: // ud2
		return isEnd
	case c == 0xff && len(op) > 1 && op[1]>>3&7 == 4: // jmp through a register or memory
		return isEnd
	}
	return notBranch
}

// mayBeGone reports whether a trampoline may lead to a program that was at to: it outlives its programs while it
// is being freed, and where function tracing is broken, so that nothing takes it away (unregister_ftrace_direct fails). One
// that is being freed is entered from nowhere: what says so is one word (bpf_trampoline.cur_image).
func (w *trampolineWalk) mayBeGone(i bpf.Image, to virt.Addr) bool {
	if k := w.owners.CodeAt(to).Kind; k != linux.OwnerNone && k != linux.OwnerModule || !strings.HasPrefix(i.Name, "bpf_trampoline_") {
		return false // where programs were there may be modules by now
	}
	if w.broken {
		return true
	}
	current, err := w.current()
	if err != nil || current[i.Symbol] {
		return false
	}
	entered, err := w.entered()
	return err != nil || !slices.ContainsFunc(entered, func(a virt.Addr) bool { return a >= i.Start && a < i.End })
}

// readEntered reads where functions that are traced lead, by their code and by what tracing notes of them, and where
// BPF programs lead when they are entered.
func (w *trampolineWalk) readEntered(ctx context.Context) (to []virt.Addr, err error) {
	for f, err := range hooks.FtraceOps(ctx, w.s.Linux) {
		if err != nil {
			return nil, err
		}
		to = append(to, f.Direct&^1) // the lowest bit says that it is jumped to (6.19)
	}
	var code [maxEntry]byte
	enters := func(a virt.Addr) {
		if w.s.Linux.ReadAt(code[:], a) == nil { // else it is being unloaded
			to = append(to, enteredFrom(code[:], a)...)
		}
	}
	for f, err := range hooks.FtraceSites(ctx, w.s.Linux) {
		if err != nil {
			return nil, err
		}
		enters(f.Site)
	}
	for p, err := range bpf.Programs(ctx, w.s.Linux) {
		if err != nil {
			return nil, err
		}
		if p.JITAddr != 0 {
			enters(p.JITAddr)
		}
	}
	return to, ctx.Err()
}

// maxEntry is how much of a function is looked at for where it leads when it is entered: endbr64, the place for
// tracing, and some.
const maxEntry = 16

// enteredFrom are the targets of direct calls and jumps in the first instructions of a function at a.
func enteredFrom(code []byte, a virt.Addr) (to []virt.Addr) {
	for i := 0; i < len(code); {
		s, ok := x86.ShapeOf(code[i:])
		if !ok || i+s.Len > len(code) {
			break
		}
		if s.RelLen > 0 && branchKind(code[i:], s) != notBranch {
			to = append(to, relative(code[i:], s, a+virt.Addr(i)))
		}
		i += s.Len
	}
	return to
}

// bpfMayLead is empty if a trampoline of BPF may lead to to, and else what is there.
func (w *trampolineWalk) bpfMayLead(to virt.Addr) string {
	o := w.owners.CodeAt(to)
	switch o.Kind {
	case linux.OwnerProgram:
		return ""
	case linux.OwnerKernel:
		for _, prefix := range []string{"__bpf_", "bpf_", "__x86_"} {
			// Thunks have a second name in 7.2: that for code which runs before the kernel is mapped.
			if strings.HasPrefix(strings.TrimPrefix(o.Symbol, "__pi_"), prefix) {
				return ""
			}
		}
		if strings.Contains(o.Symbol, "return_thunk") || o.Symbol == "" {
			return ""
		}
		fallthrough
	case linux.OwnerModule:
		// The function that is traced, behind its place for tracing: five bytes, with an endbr nine.
		if o.Offset == 5 || o.Offset == 9 {
			return ""
		}
	case linux.OwnerNone:
		// The half that is not in use may lead to a program that is gone.
		var b [16]byte
		if w.s.Linux.ReadAt(b[:], to) != nil || filled(b[:]) {
			return ""
		}
	}
	return describeOwner(w.owners, to)
}

// filled reports whether there is nothing but traps or zeros.
func filled(b []byte) bool {
	first, second := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	return first == second && (first == 0 || first == 0xcccc_cccc_cccc_cccc)
}
