package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

func init() {
	Register(Check{
		ID:        "trampoline-code",
		Title:     "Trampolines of tracing and BPF whose code the kernel did not make",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source: `ftrace_ops_trampoline_list and the code of each trampoline, against ftrace_caller or ftrace_regs_caller, of which create_trampoline (arch/x86/kernel/ftrace.c)
makes it; what bpf_kallsyms lists that is not a program (trampolines, dispatchers), decoded from its entry on, and where its branches lead`,
		Proves: `Code that the kernel made for tracing or BPF, or claims to have made, is not that: a trampoline of ftrace differs from its template, or calls something else than its user's
function; or one of BPF calls a function of the kernel that trampolines do not call, or code of nobody. Such code has a name on the kernel's lists, so that pointers to it look harmless.`,
		Blind: `Code of BPF that computes where it goes, or that only changes data. What is behind the end of a trampoline in its page, and the half of a page that BPF
does not use (up to 5.12, and in dispatchers). Of a trampoline of BPF that is being freed while tasks are in the traced function, what lies before the place that they return to. The template is the guest's own memory: kernel-text compares
that with the boot image. BPF programs themselves: they are what the verifier and the compiler made of what somebody loaded.`,
		Next: `Disassemble the code with the command shown. "outsight ftrace TARGET" shows the users of tracing, "outsight bpf TARGET" the programs, and "outsight bpf_links TARGET" where they are attached; what is hooked says what for.`,
		Example: `The call in a trampoline of the function tracer was led elsewhere, while its user and its records stay as they are:

    $ outsight check lab:demo --only trampoline-code
    SEVERITY  CONFIDENCE  CHECK            TITLE
    critical  certain     trampoline-code  the ftrace trampoline at 0xffffffffc051a000 calls commit_creds of kernel, and not the function of its user`,
		Quick: true,
		Kept:  true,
		Run:   trampolineCode,
	})
}

func trampolineCode(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		w := &trampolineWalk{s: s, owners: owners, broken: s.Linux.TracingOff().Broken()}
		w.current = sync.OnceValues(func() (map[virt.Addr]bool, error) { return bpf.Current(ctx, s.Linux) })
		w.entered = sync.OnceValues(func() ([]virt.Addr, error) { return w.readEntered(ctx) })
		unsupported := 0
		for _, judge := range []func(context.Context) iter.Seq2[*Finding, error]{w.ftrace, w.bpf} {
			for f, err := range judge(ctx) {
				if errors.Is(err, kobj.ErrUnsupported) {
					if unsupported++; unsupported < 2 {
						continue // the other is there
					}
				}
				if !yield(f, err) {
					return
				}
			}
		}
	}
}

// trampolineWalk is one run of the check.
type trampolineWalk struct {
	s      *Subject
	owners *linux.Owners
	broken bool // what the kernel notes of tracing is not kept any more
	// current are the symbols of BPF's trampolines that are in use.
	current func() (map[virt.Addr]bool, error)
	entered func() ([]virt.Addr, error) // where functions lead when they are entered
	kept    [2]*ftraceTemplate          // that were read: without, and with all registers
	// releases are the trampolines of BPF that are being freed, and lead where none may, by their symbols.
	releases map[virt.Addr]bpf.Release
}

// ftraceTemplate is what trampolines of ftrace are copies of.
type ftraceTemplate struct {
	name  string
	start virt.Addr
	code  []byte // as it is in memory: it may be patched for the processor
	// Where in it the user's structure is loaded, its function is called, and, if all registers
	// are kept, what jumps to a function that is called directly: 0 for nowhere.
	op, call, jump uint64
}

// maxTemplate bounds one, in bytes: they have some 300.
const maxTemplate = 4096

// template reads one of the two.
func (w *trampolineWalk) template(regs bool) (*ftraceTemplate, error) {
	t, i := &ftraceTemplate{name: "ftrace_caller"}, 0
	call, jump := "ftrace_call", ""
	if regs {
		t.name, i, call, jump = "ftrace_regs_caller", 1, "ftrace_regs_call", "ftrace_regs_caller_jmp"
	}
	if w.kept[i] != nil {
		return w.kept[i], nil
	}
	at := map[string]virt.Addr{}
	for _, symbol := range []string{t.name, t.name + "_end", t.name + "_op_ptr", call, jump} {
		a, ok := w.s.Linux.Address(symbol)
		if !ok && symbol != "" {
			return nil, fmt.Errorf("trampolines of ftrace: %w: the kernel has no symbol %s", kobj.ErrUnsupported, symbol)
		}
		at[symbol] = a
	}
	t.start = at[t.name]
	n := uint64(at[t.name+"_end"] - t.start)
	t.op, t.call = uint64(at[t.name+"_op_ptr"]-t.start), uint64(at[call]-t.start)
	if regs {
		t.jump = uint64(at[jump] - t.start)
	}
	if n > maxTemplate || t.op >= n || t.call >= n || t.jump >= n {
		return nil, fmt.Errorf("trampolines of ftrace: %w: %s of %d bytes", kobj.ErrBroken, t.name, n)
	}
	t.code = make([]byte, n)
	if err := w.s.Linux.ReadAt(t.code, t.start); err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	w.kept[i] = t
	return t, nil
}

func (w *trampolineWalk) ftrace(ctx context.Context) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		if w.broken {
			yield(nil, tracingEnded("the code of its trampolines was not judged"))
			return
		}
		for op, err := range hooks.FtraceTrampolines(ctx, w.s.Linux) {
			var f *Finding
			if err == nil && op.Trampoline != 0 {
				f, err = w.ftraceTrampoline(op)
			}
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}

// ftraceTrampoline judges the trampoline of one user.
func (w *trampolineWalk) ftraceTrampoline(op *hooks.FtraceOp) (*Finding, error) {
	t, err := w.template(slices.Contains(op.Flags, "save_regs"))
	if err != nil {
		return nil, err
	}
	size := uint64(len(t.code))
	if op.TrampolineSize > maxTemplate || op.TrampolineSize < size+1+8 {
		return w.foundFtrace(op, t, 0, fmt.Sprintf("has %d bytes, and its template %d", op.TrampolineSize, size)), nil
	}
	code := make([]byte, op.TrampolineSize)
	if err := w.s.Linux.ReadAt(code, op.Trampoline); err != nil {
		return nil, fmt.Errorf("trampoline of ftrace at %#x: %w", uint64(op.Trampoline), err)
	}
	differs := t.compare(code, op.Trampoline)
	if differs >= 0 && uint64(differs) != t.call {
		return w.foundFtrace(op, t, uint64(differs), fmt.Sprintf("differs from %s at +%#x", t.name, differs)), nil
	}
	if to := branchTarget(code[t.call:], op.Trampoline+virt.Addr(t.call)); code[t.call] != 0xe8 || !w.tracer(op, to) {
		return w.foundFtrace(op, t, t.call, "calls "+describeOwner(w.owners, to)+", and not the function of its user"), nil
	}
	if !w.returns(code[size:len(code)-8], op.Trampoline+virt.Addr(size)) {
		return w.foundFtrace(op, t, size, "does not end with a return"), nil
	}
	if user := virt.Addr(binary.LittleEndian.Uint64(code[len(code)-8:])); user != op.Addr {
		return w.foundFtrace(op, t, uint64(len(code)-8), fmt.Sprintf("hands on %#x as its user, which is at %#x", uint64(user), uint64(op.Addr))), nil
	}
	return nil, nil
}

// compare is where a trampoline at at first differs from the template, except for what is called;
// -1 if it does not.
func (t *ftraceTemplate) compare(code []byte, at virt.Addr) int {
	size := len(t.code)
	for i := 0; i < size; {
		s, ok := x86.ShapeOf(t.code[i:])
		if !ok || i+s.Len > size {
			return i
		}
		want, got := t.code[i:i+s.Len], code[i:i+s.Len]
		same := slices.Equal(want, got)
		switch {
		case uint64(i) == t.call:
			same = true
		case uint64(i) == t.jump && t.jump != 0:
			same = s.Len == 2 && got[0] == 0x66 && got[1] == 0x90 // create_trampoline takes it out
		case uint64(i) == t.op:
			// The user's structure is in the last eight bytes.
			same = s.RelLen == 4 && slices.Equal(want[:s.Rel], got[:s.Rel]) && relative(got, s, at+virt.Addr(i)) == at+virt.Addr(len(code)-8)
		case s.RelLen > 0:
			to, from := relative(want, s, t.start+virt.Addr(i)), relative(got, s, at+virt.Addr(i))
			within := to >= t.start && to <= t.start+virt.Addr(size)
			same = slices.Equal(want[:s.Rel], got[:s.Rel]) && slices.Equal(want[s.Rel+s.RelLen:], got[s.Rel+s.RelLen:]) &&
				(from == to || within && from == at+(to-t.start))
		}
		if !same {
			return i
		}
		i += s.Len
	}
	return -1
}

// relative is what an instruction at at leads to, or names, by its distance from there.
func relative(b []byte, s x86.Shape, at virt.Addr) virt.Addr {
	end := at + virt.Addr(s.Len)
	if s.RelLen == 1 {
		return end + virt.Addr(int64(int8(b[s.Rel])))
	}
	return end + virt.Addr(int64(int32(binary.LittleEndian.Uint32(b[s.Rel:]))))
}

// branchTarget is where the direct branch leads that b, at at, begins with; 0 for none.
func branchTarget(b []byte, at virt.Addr) virt.Addr {
	if s, ok := x86.ShapeOf(b); ok && s.RelLen > 0 {
		return relative(b, s, at)
	}
	return 0
}

// tracer reports whether the trampoline of a user may call a function (ftrace_ops_get_func).
func (w *trampolineWalk) tracer(op *hooks.FtraceOp, to virt.Addr) bool {
	if to != 0 && (to == op.Func || to == op.Saved) {
		return true
	}
	o := w.owners.CodeAt(to)
	return o.Kind == linux.OwnerKernel && o.Offset == 0 && slices.Contains([]string{"ftrace_ops_assist_func", "ftrace_ops_list_func", "arch_ftrace_ops_list_func"}, o.Symbol)
}

// returns reports whether code at at is a return, or a jump to a return thunk, and fill.
func (w *trampolineWalk) returns(code []byte, at virt.Addr) bool {
	n := 1
	if code[0] == 0xe9 && len(code) >= 5 {
		n = 5
		if o := w.owners.CodeAt(branchTarget(code, at)); o.Kind != linux.OwnerKernel || !strings.Contains(o.Symbol, "return_thunk") {
			return false
		}
	} else if code[0] != 0xc3 {
		return false
	}
	return !slices.ContainsFunc(code[n:], func(c byte) bool { return c != 0xcc && c != 0 && c != 0x90 })
}

func (w *trampolineWalk) foundFtrace(op *hooks.FtraceOp, t *ftraceTemplate, at uint64, what string) *Finding {
	f := w.found(fmt.Sprintf("the ftrace trampoline at %#x %s", uint64(op.Trampoline), what), "ftrace_trampoline", op.Trampoline, op.Trampoline+virt.Addr(at))
	f.Expected = "a copy of " + t.name + " that calls " + describeOwner(w.owners, op.Func)
	f.Evidence = append(f.Evidence, Evidence{Text: "its user, a struct ftrace_ops", Addr: op.Addr})
	if at < uint64(len(t.code)) {
		f.Evidence = append(f.Evidence, Evidence{Text: "the same place of the template", Addr: t.start + virt.Addr(at), Bytes: codeAt(w.s, uint64(t.start)+at)})
	}
	f.Basis = "the trampoline against the kernel's own code in memory, of which it is a copy"
	return f
}

func (w *trampolineWalk) found(title, name string, start, at virt.Addr) *Finding {
	b := codeAt(w.s, uint64(at))
	return &Finding{
		Confidence: Certain,
		Title:      title,
		Object:     Object{Kind: "trampoline", Name: name, Addr: start},
		Aspect:     "code",
		Seen:       describeCode(b, at),
		Evidence:   []Evidence{{Text: "what is there", Addr: at, Bytes: b}},
		Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(start)),
	}
}

func (w *trampolineWalk) bpf(ctx context.Context) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		w.releases = map[virt.Addr]bpf.Release{}
		defer func() { w.s.history.watchReleases(w.s.boot(), w.s.paced, w.releases) }()
		for i, err := range bpf.Images(ctx, w.s.Linux) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			f, err := w.bpfImage(ctx, i)
			if (f != nil || err != nil) && !yield(f, err) {
				return
			}
		}
	}
}
