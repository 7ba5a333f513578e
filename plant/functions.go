package plant

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/bpf"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// maxTrampoline bounds the code of a trampoline: the kernel gives each a page.
const maxTrampoline = 4096

// functions says whether functions of the kernel call programs (fentry, fexit): such a function's first instruction, behind an
// endbr64, is a call to a trampoline, which calls them.
type functions struct {
	o     *functionLayout
	err   error
	calls map[virt.Addr]map[virt.Addr]bool // what a trampoline's image calls
	buf   []byte
}

type functionLayout struct {
	trampoline, image, start, ksymStart, ksymEnd kobj.Field
}

func newFunctions(l *guest.Look) *functions {
	f := &functions{calls: map[virt.Addr]map[virt.Addr]bool{}}
	f.o, f.err = kobj.LayoutOf(l.Linux.Walker, "trampolines of planted probes", func(r *kobj.Resolver, o *functionLayout) {
		o.trampoline = r.Field("bpf_tracing_link", "trampoline")
		o.image, o.start = r.Field("bpf_trampoline", "cur_image"), r.Field("bpf_tramp_image", "image")
		o.ksymStart, o.ksymEnd = r.Field("bpf_tramp_image", "ksym.start"), r.Field("bpf_tramp_image", "ksym.end")
	})
	return f
}

// attached says why a function does not call a program; nil if it does.
func (f *functions) attached(l *guest.Look, k *bpf.Link, p *bpf.Program) error {
	if f.err != nil {
		return f.err
	}
	entry, ok := l.Linux.Address(p.Target)
	if !ok {
		return fmt.Errorf("the kernel has no function %q", p.Target)
	}
	r := l.Linux.Reader()
	image := r.Pointer(r.Pointer(k.Addr, f.o.trampoline), f.o.image)
	start := r.Pointer(image, f.o.start)
	from, to := r.Pointer(image, f.o.ksymStart), r.Pointer(image, f.o.ksymEnd)
	if r.Err != nil {
		return r.Err
	}
	if start == 0 || start < from || start >= to || to-from > maxTrampoline {
		return fmt.Errorf("function %s has no trampoline", p.Target)
	}
	called, err := site(l.Linux, entry)
	switch {
	case err != nil:
		return fmt.Errorf("function %s: %w", p.Target, err)
	case called == 0:
		return fmt.Errorf("function %s calls nothing when it begins", p.Target)
	case called != start:
		// With other users of the function, tracing calls them in turn: ftrace-triple knows whether they are as the kernel notes them.
		owners, err := l.Linux.Owners()
		if err != nil {
			return err
		}
		if o := owners.CodeAt(called); o.Kind != linux.OwnerTrampoline && (o.Kind != linux.OwnerKernel || !strings.HasPrefix(o.Symbol, "ftrace_")) {
			return fmt.Errorf("function %s calls %#x when it begins, not its trampoline at %#x", p.Target, uint64(called), uint64(start))
		}
	}
	calls, err := f.of(l.Linux, start, to)
	if err != nil {
		return err
	}
	if !calls[p.JITAddr] {
		return fmt.Errorf("the trampoline of function %s at %#x does not call it", p.Target, uint64(start))
	}
	return nil
}

// of is what the code from start to end calls.
func (f *functions) of(s *linux.System, start, end virt.Addr) (map[virt.Addr]bool, error) {
	if calls, ok := f.calls[start]; ok {
		return calls, nil
	}
	if f.buf == nil {
		f.buf = make([]byte, maxTrampoline)
	}
	b := f.buf[:end-start]
	if err := s.ReadAt(b, start); err != nil {
		return nil, err
	}
	calls := map[virt.Addr]bool{}
	for at := 0; at < len(b); {
		shape, ok := x86.ShapeOf(b[at:])
		if !ok || at+shape.Len > len(b) {
			break // what lies behind the last instruction
		}
		if b[at+shape.Opcode] == callNear && shape.RelLen == 4 {
			calls[callee(b[at+shape.Len-4:], start+virt.Addr(at+shape.Len))] = true
		}
		at += shape.Len
	}
	f.calls[start] = calls
	return calls, nil
}

const (
	callNear = 0xe8
	jumpNear = 0xe9
	callSize = 5
)

// callee is where a call or jump leads: b is its distance, behind which the next instruction is.
func callee(b []byte, next virt.Addr) virt.Addr {
	return next + virt.Addr(int64(int32(le.Uint32(b))))
}

// site is what a function calls in its place for tracing; 0: nothing is there but the instruction that does nothing. It is an error if the
// function has no such place.
func site(s *linux.System, entry virt.Addr) (virt.Addr, error) {
	var b [4 + callSize]byte
	if err := s.ReadAt(b[:], entry); err != nil {
		return 0, err
	}
	at := b[:callSize]
	switch [4]byte(b[:4]) {
	case endbr, sealed, sealed615:
		at, entry = b[4:], entry+4
	}
	switch {
	case [callSize]byte(at) == nop5:
		return 0, nil
	case at[0] == callNear || at[0] == jumpNear: // it is jumped to since 6.19
		return callee(at[1:], entry+callSize), nil
	}
	return 0, fmt.Errorf("no place for tracing at %#x", uint64(entry))
}

var (
	endbr = [4]byte{0xf3, 0x0f, 0x1e, 0xfa}
	// What the kernel puts in place of an endbr64 to which no pointer leads (gen_endbr_poison); changed in 6.15.
	sealed, sealed615 = [4]byte{0x66, 0x0f, 0x1f, 0x00}, [4]byte{0x0f, 0x1f, 0x40, 0xd6}

	nop5 = [callSize]byte{0x0f, 0x1f, 0x44, 0x00, 0x00}
)

// Traceable says why functions of the guest's kernel cannot call programs when they begin and return; nil if all of them can.
func Traceable(l *guest.Look, names []string) error {
	s := l.Linux
	if newFunctions(l).err != nil {
		return fmt.Errorf("kernel %s has no trampolines of BPF", s.Release)
	}
	if _, ok := s.Address("register_ftrace_direct"); !ok {
		return fmt.Errorf("kernel %s is built without CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS", s.Release)
	}
	r := s.Reader()
	for _, v := range []struct {
		name string
		want uint32
		why  string
	}{
		{"ftrace_enabled", 1, "function tracing is switched off (kernel.ftrace_enabled)"},
		{"ftrace_disabled", 0, "the kernel has switched function tracing off after a warning"},
		{"bpf_jit_enable", 1, "the kernel does not compile BPF programs (net.core.bpf_jit_enable)"},
	} {
		a, ok := s.Address(v.name)
		if !ok {
			return fmt.Errorf("kernel %s has no %s", s.Release, v.name)
		}
		if r.U32(a) != v.want && r.Err == nil {
			return fmt.Errorf("%s", v.why)
		}
	}
	if r.Err != nil {
		return r.Err
	}
	for _, name := range names {
		entry, ok := s.Address(name)
		if !ok {
			return fmt.Errorf("kernel %s has no function %s", s.Release, name)
		}
		if _, err := site(s, entry); err != nil {
			return fmt.Errorf("function %s: %w", name, err)
		}
	}
	return nil
}
