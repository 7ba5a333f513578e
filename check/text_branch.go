package check

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

func init() {
	Register(Check{
		ID:        "text-branch",
		Title:     "Text of the kernel or a module that leads to code that it has nothing to do with",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "the instructions of _stext.._etext and of modules, the kernel's page tables, static_call_sites, ftrace's records, kprobes; of modules also which use which (source_list)",
		Proves: `The kernel's own code jumps or calls straight into executable memory that is not the kernel's: directly, by an address that it loads into a register, or by one that
stands behind the jump. What the kernel itself puts there (static calls, tracing, probes, dispatchers of BPF) does not account for this one. Or a module's code
does so, or calls a module that it does not use. No image of the kernel and no file of the module is needed: this is the memory alone.`,
		Blind: `A change that stays within the kernel's text, or that has the code compute where it goes: kernel-text finds these if it knows the image. Where each function
keeps a place for tracing, a call of a trampoline or of a BPF program: ftrace-triple judges that. Of a module: a change that stays within its own text, or leads to the kernel's or to that of a
module that it uses, and a jump into another module from the middle of a function; module-text finds these if it has the module's file.`,
		Next: `Disassemble the branch with the command shown and what it leads to with "outsight disassemble TARGET ADDRESS", and take that memory out with "outsight read TARGET ADDRESS 4096 -o FILE". The function that is
hooked says what for.`,
		Example: `An inline hook was written over the beginning of a function:

    $ outsight check lab:demo --only text-branch
    SEVERITY  CONFIDENCE  CHECK        TITLE
    critical  certain     text-branch  kernel text at vfs_read+0x5 leads to 0xffffffffc03a6000, whose owner is unknown`,
		Steady: true,
		Quick:  true,
		Run:    textBranches,
	})
}

// branchWalk is one run of the check.
type branchWalk struct {
	ctx    context.Context
	s      *Subject
	owners *linux.Owners
	// code is executable memory outside of the kernel's text, by address.
	code  []run
	text  run
	known []run // code that is on no list, read when something leads to code of nobody

	// What may lead out of the kernel, read when the first branch that does is seen.
	legal *legalBranches
	added map[string]map[virt.Addr]virt.Addr // static calls of modules, read when the first is judged
	// decoded is the function that was looked at last.
	decoded boundaries
	yield   func(*Finding, error) bool
	ended   bool
	ties    *moduleTies // read when the first branch between modules is seen
}

// legalBranches are the places that the kernel itself writes branches to.
type legalBranches struct {
	traced []virt.Addr             // by ftrace, ascending
	probed map[virt.Addr]bool      // by optimized kprobes
	static map[virt.Addr]virt.Addr // calls of the kernel, to their keys
	err    error                   // why it has not all of them
}

func textBranches(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &branchWalk{ctx: ctx, s: s, owners: owners, text: s.between("_stext", "_etext"), yield: yield}
		if w.text.end == 0 {
			yield(nil, fmt.Errorf("kernel text: the symbols _stext and _etext are not known"))
			return
		}
		if err := w.outside(); err != nil && !yield(nil, err) {
			return
		}
		if len(w.code) == 0 {
			return
		}
		kept := kobj.Kept[branchWindows](s.Linux.Walker)
		kept.begin()
		if w.scan(ctx, w.text, ""); w.ended {
			return
		}
		modules, err := s.Modules()
		if err != nil {
			yield(nil, err)
			return
		}
		for _, m := range modules {
			for _, r := range m.Memory {
				if r.Kind != linux.ModuleText || m.State != linux.ModuleLive {
					continue
				}
				if w.scan(ctx, run{start: r.Start, end: r.Start + virt.Addr(r.Size)}, m.Name); w.ended {
					return
				}
			}
		}
		if ctx.Err() == nil {
			kept.forget()
		}
	}
}

// outside finds executable memory outside of the kernel's text: all that a branch from there
// may lead to.
func (w *branchWalk) outside() error {
	all, err := w.s.Executable()
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.start >= w.text.start&^(phys.PageSize-1) && e.end <= w.text.end+phys.PageSize {
			continue
		}
		if n := len(w.code); n > 0 && w.code[n-1].end == e.start {
			w.code[n-1].end = e.end
		} else {
			w.code = append(w.code, run{start: e.start, end: e.end})
		}
	}
	return nil
}

// leadsOut reports whether a is executable memory that is not the kernel's text.
func (w *branchWalk) leadsOut(a virt.Addr) bool {
	if a >= w.text.start && a < w.text.end {
		return false
	}
	i := sort.Search(len(w.code), func(i int) bool { return w.code[i].end > a })
	return i < len(w.code) && a >= w.code[i].start
}

const (
	branchWindow = 64 << 10
	branchSlack  = 16 // bytes of the longest form of a branch
)

// scan looks at the code in r: that of a module, if it has a name.
func (w *branchWalk) scan(ctx context.Context, r run, module string) {
	kept := kobj.Kept[branchWindows](w.s.Linux.Walker)
	for at := r.start; at < r.end && !w.ended && ctx.Err() == nil; at += branchWindow {
		branches, err := kept.of(w.s, at, min(branchWindow+branchSlack, r.end-at), w.text)
		if err != nil {
			if module == "" { // else it has just been unloaded
				w.ended = !w.yield(nil, fmt.Errorf("kernel text at %#x: %w", uint64(at), err))
			}
			continue
		}
		for _, b := range w.outward(branches) {
			to := b.to
			if b.through {
				word, err := w.s.Linux.Word(to)
				if to = virt.Addr(word); err != nil {
					continue
				}
			}
			if w.leadsOut(to) {
				if w.judge(at+virt.Addr(b.at), to, module); w.ended {
					return
				}
			}
		}
	}
}

// outward are the branches of a window that may lead to code outside of the kernel's text.
func (w *branchWalk) outward(b *windowBranches) []branch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.sorted || !slices.Equal(b.code, w.code) {
		b.sorted, b.code, b.outward = true, w.code, nil
		for _, one := range b.all {
			if one.through || w.leadsOut(one.to) {
				b.outward = append(b.outward, one)
			}
		}
	}
	return b.outward
}

// branches are the places in b, which is at at, where a branch out of text may begin. One that
// goes by memory is one of them wherever it leads now.
func branches(b []byte, at virt.Addr, text run) (all []branch) {
	for i := range min(branchWindow, len(b)) {
		if !mayBranch[b[i]] || i+1 < len(b) && !mayFollow(b[i], b[i+1]) {
			continue
		}
		to, through, ok := branchesTo(b[i:], at+virt.Addr(i))
		if !ok || !through && text.holds(to) {
			continue
		}
		all = append(all, branch{int32(i), through, to})
	}
	return all
}

// mayBranch are the first bytes of what branchesTo knows.
var mayBranch = [256]bool{0xe8: true, 0xe9: true, 0x0f: true, 0x48: true, 0x49: true, 0x68: true, 0xff: true}

// mayFollow reports whether what begins with these two bytes may be one of them: most that
// begins with the first is not.
func mayFollow(first, second byte) bool {
	switch first {
	case 0x48, 0x49:
		return second&0xf8 == 0xb8
	case 0x0f:
		return second&0xf0 == 0x80
	case 0xff:
		return second == 0x25 || second == 0x15
	}
	return true
}

// branchesTo is where the branch leads that b, which is at a, begins with: a direct call or
// jump, conditional or not; an address that is loaded into a register; one that is pushed and
// returned to; one that a jump takes from memory near it, which is then to be read (through).
func branchesTo(b []byte, a virt.Addr) (to virt.Addr, through, ok bool) {
	le := binary.LittleEndian
	distance := func(at, end int) virt.Addr { return a + virt.Addr(end) + virt.Addr(int64(int32(le.Uint32(b[at:])))) }
	switch {
	case len(b) >= 5 && (b[0] == 0xe8 || b[0] == 0xe9):
		return distance(1, 5), false, true
	case len(b) >= 6 && b[0] == 0x0f && b[1]&0xf0 == 0x80:
		return distance(2, 6), false, true
	case len(b) >= 10 && (b[0] == 0x48 || b[0] == 0x49) && b[1]&0xf8 == 0xb8: // movabs
		return virt.Addr(le.Uint64(b[2:])), false, true
	case len(b) >= 6 && b[0] == 0x68 && b[5] == 0xc3: // push; ret
		return virt.Addr(int64(int32(le.Uint32(b[1:])))), false, true
	case len(b) >= 14 && b[0] == 0x68 && le.Uint32(b[5:]) == 0x042444c7 && b[13] == 0xc3: // the same, in two halves
		return virt.Addr(le.Uint32(b[1:])) | virt.Addr(le.Uint32(b[9:]))<<32, false, true
	case len(b) >= 6 && b[0] == 0xff && (b[1] == 0x25 || b[1] == 0x15): // jmp or call *x(%rip)
		// Farther away it is a variable of the kernel: a pointer to a function.
		from := distance(2, 6)
		return from, true, from-a <= branchWindow || a-from <= branchWindow
	}
	return 0, false, false
}

// judge judges bytes at a that would lead to to, if they are an instruction.
func (w *branchWalk) judge(a, to virt.Addr, module string) {
	between := false
	if module != "" && w.owners.CodeBetween(to, to+1) {
		o := w.owners.OwnerAt(to)
		if between = o.Kind == linux.OwnerModule && !w.tied(module, o.Name); !between {
			return
		}
	}
	if w.isThunk(to) || w.isFill(to) {
		return
	}
	from := w.owners.CodeAt(a)
	if from.Symbol == "" || !w.instructionAt(a, from) {
		return
	}
	owner := w.owners.CodeAt(to)
	if between && !w.betweenModules(a, module, from, owner) {
		return
	}
	if owner.Kind == linux.OwnerNone && w.isKnown(to) {
		return
	}
	if w.legal == nil {
		w.legal, _ = conclude(w.s, "places of branches", func(s *Subject) (*legalBranches, bool) {
			l := readLegal(w.ctx, s)
			return l, l.err == nil && w.ctx.Err() == nil
		})
		if w.legal.err != nil && !w.yield(nil, w.legal.err) {
			w.ended = true
			return
		}
	}
	if between && !w.addStaticCalls(module) || w.mayLead(a, to, module, from, owner) {
		return
	}
	what, expected := "code of an unknown owner", "branches within the kernel"
	title := fmt.Sprintf("%s leads to %#x, whose owner is unknown", from.Function(), uint64(to))
	if owner.Kind != linux.OwnerNone {
		what = owner.Function() + " of " + owner.String()
		title = fmt.Sprintf("%s leads to %s, and neither tracing nor a static call put that there", from.Function(), what)
	}
	of := "kernel text at "
	if module != "" {
		of, expected = "text of module "+module+" at ", "branches to the kernel and its modules"
	}
	w.ended = !w.yield(&Finding{
		Confidence: Certain,
		Title:      of + title,
		Object:     Object{Kind: "kernel text", Name: from.Function(), Addr: a},
		Aspect:     "branch",
		Expected:   expected,
		Seen:       fmt.Sprintf("%#x, %s", uint64(to), what),
		Evidence:   []Evidence{{Text: "the branch", Addr: a, Bytes: codeAt(w.s, uint64(a))}, {Text: "what it leads to", Addr: to, Bytes: codeAt(w.s, uint64(to))}},
		Basis:      "the guest's memory alone: its text, page tables, and its lists of what may change the text",
		Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(a)),
		nextAddr:   to,
	}, nil)
}

// maxDecoded bounds the part of a function that is decoded to see where its instructions
// begin.
const maxDecoded = 64 << 10

// boundaries are where instructions of one function begin, as far as it was decoded: a function
// that is full of branches is decoded once.
type boundaries struct {
	start  virt.Addr
	code   []byte // from there on
	begins []bool // whether an instruction does, by the offset
	at     uint64 // where the next one begins
	bad    bool   // it is not one
}

// instructionAt reports whether an instruction of the function around a begins there.
func (w *branchWalk) instructionAt(a virt.Addr, from linux.Owner) bool {
	if from.Offset > maxDecoded {
		return false
	}
	return w.decoded.instructionAt(w.s.Linux.ReadAt, a, from.Offset)
}

// instructionAt reports whether an instruction begins at a, offset bytes into its function.
func (f *boundaries) instructionAt(read func([]byte, virt.Addr) error, a virt.Addr, offset uint64) bool {
	if start := a - virt.Addr(offset); f.start != start {
		*f = boundaries{start: start, code: f.code[:0], begins: f.begins[:0]}
	}
	if n := int(offset) + branchSlack; len(f.code) < n {
		have := len(f.code)
		f.code = slices.Grow(f.code, n-have)[:n]
		if read(f.code[have:], f.start+virt.Addr(have)) != nil {
			f.code = f.code[:have]
			return false
		}
		f.begins = append(f.begins, make([]bool, n-len(f.begins))...)
	}
	for f.at <= offset && !f.bad {
		f.begins[f.at] = true
		shape, ok := x86.ShapeOf(f.code[f.at:])
		f.at, f.bad = f.at+uint64(shape.Len), !ok
	}
	return f.begins[offset]
}

// isKnown reports whether code is at a that is on no list: what is left of a module's branches to
// its init function may lead to a filter of a socket that has its place now.
func (w *branchWalk) isKnown(a virt.Addr) bool {
	if w.known == nil {
		w.known = append(w.s.knownCode(), w.s.classicPrograms(w.ctx, w.owners)...)
	}
	return slices.ContainsFunc(w.known, func(k run) bool { return k.holds(a) })
}

// isThunk reports whether nothing but an indirect jump is at a: what the kernel makes against
// indirect target selection (its_init_thunk, 6.15 and stables of May 2025).
func (w *branchWalk) isThunk(a virt.Addr) bool {
	var b [4]byte
	if w.s.Linux.ReadAt(b[:], a) != nil {
		return false
	}
	return b[0] == 0xff && b[1]&0xf8 == 0xe0 && b[2] == 0xcc || b[0] == 0x41 && b[1] == 0xff && b[2]&0xf8 == 0xe0 && b[3] == 0xcc
}

// isFill reports whether there is no code at a: only the traps that free executable memory is
// filled with. A static_cpu_has of a module's init function leaves branches to that behind, in
// .altinstr_aux, when the function is freed (seen with nf_tables of 7.2).
func (w *branchWalk) isFill(a virt.Addr) bool {
	const int3 = 0xcc
	var b [branchSlack]byte
	if w.s.Linux.ReadAt(b[:], a) != nil {
		return false
	}
	return !slices.ContainsFunc(b[:], func(c byte) bool { return c != int3 })
}

// readLegal reads what may change the kernel's text.
func readLegal(ctx context.Context, s *Subject) *legalBranches {
	l := &legalBranches{probed: map[virt.Addr]bool{}}
	for site, err := range hooks.Traceable(ctx, s.Linux) {
		if err == nil { // else ftrace-triple reports it
			l.traced = append(l.traced, site)
		}
	}
	slices.Sort(l.traced)
	l.traced = slices.Clip(l.traced)
	for k, err := range hooks.Kprobes(ctx, s.Linux) {
		if err == nil && slices.Contains(k.Flags, "optimized") {
			l.probed[k.Probed] = true
		}
	}
	table := s.between("__start_static_call_sites", "__stop_static_call_sites")
	const entry, maxEntries = 8, 1 << 20
	if n := table.end - table.start; n > 0 && n%entry == 0 && n <= entry*maxEntries {
		var ok bool
		if l.static, ok = staticCalls(s, table.start, uint64(n)/entry); !ok {
			l.err = fmt.Errorf("static calls at %#x could not be read", uint64(table.start))
		}
	}
	return l
}

// mayLead reports whether what governs the text has put a branch at a to to.
func (w *branchWalk) mayLead(a, to virt.Addr, module string, from, owner linux.Owner) bool {
	_, traced := slices.BinarySearch(w.legal.traced, a)
	switch {
	case traced && (owner.Kind == linux.OwnerProgram || owner.Kind == linux.OwnerTrampoline && owner.Name == "ftrace"):
		return true
	case traced && owner.Kind == linux.OwnerModule && from.Kind == linux.OwnerModule:
		return true // called directly (register_ftrace_direct), which ftrace-triple judges
	case w.legal.probed[a]:
		return owner.Kind == linux.OwnerTrampoline && owner.Name == "kprobes"
	case owner.Kind == linux.OwnerNone:
		return false
	case strings.HasPrefix(from.Symbol, "bpf_dispatcher_"):
		return owner.Kind == linux.OwnerProgram // BPF changes its own dispatchers by itself (up to 6.1)
	case strings.HasPrefix(from.Symbol, "ftrace_"):
		return true // its entry code calls the only user directly
	}
	key, ok := w.legal.static[a]
	if !ok {
		key, ok = w.added[module][a]
	}
	if name, tramp := strings.CutPrefix(from.Symbol, "__SCT__"); !ok && tramp {
		key, ok = w.s.Linux.Address("__SCK__" + name)
	}
	if !ok {
		return false
	}
	f, err := w.s.Linux.Word(key) // struct static_call_key.func
	return err == nil && virt.Addr(f) == to && startsFunction(owner)
}

// startsFunction reports whether an address whose owner is o is the start of a function; of a
// BPF dispatcher each half of its page is one.
func startsFunction(o linux.Owner) bool {
	return o.Offset == 0 || o.Kind == linux.OwnerProgram && o.Offset == phys.PageSize/2
}
