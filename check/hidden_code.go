package check

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/virt"
)

func init() {
	Register(Check{
		ID:        "hidden-code",
		Title:     "Memory that the kernel could execute and whose owner is unknown",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "the kernel's page tables against its text, modules, BPF programs (bpf_ksym, prog packs), ftrace and kprobe trampolines",
		Proves: `A page is executable in the kernel's address space, holds something, and lies in nothing that the kernel has on its lists of code: the text of a
module that took itself off the list, a stub of an inline hook, shellcode. Or it can be written and executed, which a kernel built with CONFIG_STRICT_KERNEL_RWX, as those of distributions are, has no more after it has booted.`,
		Blind: `Page tables beyond those that RAM has use for, which an attacker can make: that not all were followed is reported. Code that was put into pages of a module or of the kernel itself: the check of kernel text finds that.`,
		Next: `Take the pages out with the command shown and disassemble them. Search for pointers to them ("outsight search TARGET --pointer ADDRESS"): what leads there says what is
hooked.`,
		Example: `A rootkit allocates executable memory and copies a stub of an inline hook there:

    $ outsight check lab:demo
    SEVERITY  CONFIDENCE  CHECK        TITLE
    critical  certain     hidden-code  4 KiB of kernel memory at 0xffffffffc02c7000 are executable, and belong to nothing that the kernel lists
    $ outsight disassemble lab:demo 0xffffffffc02c7000`,
		Quick: true,
		Kept:  true,
		Run:   hiddenCode,
	})
}

// run is executable pages that follow each other, of an unknown owner.
type run struct {
	start, end virt.Addr
	writable   bool
}

func hiddenCode(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		runs, err := s.strangeCode(ctx, owners)
		for _, r := range runs {
			if !yield(s.foundCode(r), nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// maxFree bounds how many executable pages of unknown owners are looked at: those of the large pages
// that programs and modules share, as far as they are free, a few of which a guest has.
const maxFree = 4096

// maxKernelPages bounds all executable pages that are looked at: 16 GiB.
const maxKernelPages = 1 << 22

// strangeCode is the executable memory of the kernel that nobody owns, or that can be
// written too.
func (s *Subject) strangeCode(ctx context.Context, owners *linux.Owners) (runs []run, err error) {
	left, written := maxFree, maxFree
	known := append(s.knownCode(), s.classicPrograms(ctx, owners)...)
	broken := s.Linux.TracingOff().Broken()
	strange := func(from, to virt.Addr) bool {
		for _, k := range known {
			if from < k.end && to > k.start {
				return false
			}
		}
		// Large pages are shared out in pieces, to BPF programs since 5.18 (57631054fae6) and
		// modules since 6.13; what is free of them is filled.
		if owners.CodeBetween(from, to) {
			return false
		}
		left--
		return !s.fill(from) && (!broken || !s.tracingTrampoline(from))
	}
	note := func(from, to virt.Addr, writable bool) {
		if n := len(runs); n > 0 && runs[n-1].end == from && runs[n-1].writable == writable {
			runs[n-1].end = to
		} else {
			runs = append(runs, run{from, to, writable})
		}
	}
	all, err := s.Executable()
	if err != nil {
		return nil, err
	}
	pages := maxKernelPages
	over := func() bool {
		return ctx.Err() != nil || left <= 0 || written <= 0 || pages <= 0 || len(runs) > maxFindings
	}
	for _, e := range all {
		for n := virt.Addr(0); n < e.end-e.start && !over(); n += phys.PageSize {
			page := e.start + n
			pages--
			switch {
			case !e.writable:
				if strange(page, page+phys.PageSize) {
					note(page, page+phys.PageSize, false)
				}
			case e.large:
				note(e.start, e.end, true)
				written--
				n = e.end - e.start - phys.PageSize
			default:
				if !changing(owners.CodeAt(page)) {
					note(page, page+phys.PageSize, true)
				}
				written--
			}
		}
	}
	switch {
	case ctx.Err() != nil:
		return runs, ctx.Err()
	case pages <= 0:
		return runs, fmt.Errorf("more than %d pages of the kernel's memory are executable: the rest was not looked at", maxKernelPages)
	case over():
		return runs, fmt.Errorf("more than %d parts of the kernel's memory are executable and of unknown owners, or can be written too: the rest was not looked at", maxFree-min(left, written))
	}
	return runs, nil
}

// changing reports whether code is written again while it is in use: trampolines and
// dispatchers of BPF, each in a page of its own (bpf_jit_alloc_exec_page, up to 6.9).
func changing(o linux.Owner) bool {
	return o.Kind == linux.OwnerProgram && (strings.HasPrefix(o.Symbol, "bpf_trampoline_") || strings.HasPrefix(o.Symbol, "bpf_dispatcher_"))
}

func (s *Subject) foundCode(r run) *Finding {
	what := "executable, and belong to nothing that the kernel lists"
	if r.writable {
		what = "both writable and executable"
	}
	return &Finding{
		nextAddr:   r.start,
		Confidence: Certain,
		Title:      fmt.Sprintf("%d KiB of kernel memory at %#x are %s", (r.end-r.start)>>10, uint64(r.start), what),
		Object:     Object{Kind: "kernel memory", Addr: r.start},
		Expected:   "executable memory is read-only, and is the text of the kernel, a module or a BPF program, or a trampoline",
		Seen:       fmt.Sprintf("%#x-%#x", uint64(r.start), uint64(r.end)),
		Evidence:   []Evidence{{Text: "its first bytes", Addr: r.start, Bytes: codeAt(s, uint64(r.start))}},
		Basis:      "the guest's page tables, and its lists of code",
		Show:       fmt.Sprintf("outsight disassemble {} %#x", uint64(r.start)),
	}
}

// tracingTrampoline reports whether a page begins as the kernel's own ftrace_caller or
// ftrace_regs_caller does, of which trampolines are copies (create_trampoline): one that is
// left when the kernel has switched tracing off is on no list.
func (s *Subject) tracingTrampoline(a virt.Addr) bool {
	var is, want [tracingCodeCompared]byte
	if s.Linux.ReadAt(is[:], a) != nil {
		return false
	}
	for _, name := range []string{"ftrace_caller", "ftrace_regs_caller"} {
		if from, ok := s.Linux.Address(name); ok && s.Linux.ReadAt(want[:], from) == nil && is == want {
			return true
		}
	}
	return false
}

const tracingCodeCompared = 64 // bytes before the first that differs, an operand (ftrace_epilogue's offset)

var pages = sync.Pool{New: func() any { return new([phys.PageSize]byte) }}

// fill reports whether a page holds nothing but what kernels fill the rest of code with:
// breakpoints, zeros or nops of one byte.
func (s *Subject) fill(a virt.Addr) bool {
	page := pages.Get().(*[phys.PageSize]byte) // hundreds are looked at
	defer pages.Put(page)
	if s.Linux.ReadAt(page[:], a) != nil {
		return false
	}
	first := page[0]
	return (first == 0xcc || first == 0 || first == 0x90) && bytes.Count(page[:], page[:1]) == len(page)
}

// knownCode is executable memory that Owners does not know, for nothing there has a name.
func (s *Subject) knownCode() (known []run) {
	r := s.Linux.Reader()
	variable := func(name string) virt.Addr {
		a, ok := s.Linux.Address(name)
		if !ok {
			return 0
		}
		r.Err = nil
		return r.Ptr(a)
	}
	// The code that starts processors, below 1 MiB: executable in the direct map where the
	// kernel does not take that back (before 5.19).
	if a := variable("real_mode_header"); a != 0 {
		if start, ok := s.Linux.Address("real_mode_blob"); ok {
			// It is below 1 MiB of physical memory (reserve_real_mode): the variable can be forged.
			pa, direct := s.Linux.Space.DirectMapped(a)
			if end, ok := s.Linux.Address("real_mode_blob_end"); ok && end > start && end-start < 1<<20 && direct && uint64(pa)+uint64(end-start) <= 1<<20 {
				known = append(known, run{start: a, end: a + end - start})
			}
		}
	}
	if a := variable("hv_hypercall_pg"); a != 0 && s.isHypercall(a) {
		known = append(known, run{start: a, end: a + phys.PageSize})
	}
	return append(known, s.kexecPages()...)
}

// isHypercall reports whether a page begins as that which Hyper-V fills in does: with vmcall or
// vmmcall.
func (s *Subject) isHypercall(a virt.Addr) bool {
	var b [16]byte
	if s.Linux.ReadAt(b[:], a) != nil {
		return false
	}
	return bytes.Contains(b[:], []byte{0x0f, 0x01, 0xc1}) || bytes.Contains(b[:], []byte{0x0f, 0x01, 0xd9})
}
