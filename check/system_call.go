package check

import (
	"context"
	"fmt"
	"iter"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
)

func init() {
	Register(Check{
		ID:        "system-call-function",
		Title:     "System calls that lead to another function than their own",
		Severity:  Critical,
		Technique: "T1014", // Rootkit
		Source:    "sys_call_table, ia32_sys_call_table, x32_sys_call_table, the code of x64_sys_call, ia32_sys_call and x32_sys_call, syscall_metadata, kallsyms",
		Proves: `The kernel does not do a system call by the function of its name: by that of another call, by another place in the kernel's text, or by code of a module
or BPF program. Or the table and the function that selects by the number (since 6.9, and the stable kernels of April 2024) disagree. Nothing in Linux changes where either leads after it was built.`,
		Blind: `Where the kernel was built without names for tracing (CONFIG_FTRACE_SYSCALLS), and for 32-bit calls before 6.9, any function that is a system call passes.
A function that is itself changed, or traced: the checks of text and of ftrace find that.`,
		Next: `Compare "outsight syscalls TARGET" with another guest of the same kernel, and disassemble the function with the command shown. Which call it is says what for:
getdents64 hides files and processes, kill and prctl are doors for whoever knows the number.`,
		Example: `In a guest of 6.12 the function that selects system calls by number was changed to do getpid in place of pread64; the table was left alone:

    $ outsight check lab:demo --only system-call-function
    SEVERITY  CONFIDENCE  CHECK                 TITLE
    critical  certain     system-call-function  system call 17 (pread64, 64) leads by its dispatcher to __do_sys_getpid
    critical  certain     system-call-function  system call 17 (pread64, 64) leads by its table, not as the code that selects it does, to __x64_sys_pread64`,
		Quick: true,
		Kept:  true,
		Run:   systemCallFunctions,
	})
}

func systemCallFunctions(ctx context.Context, s *Subject) iter.Seq2[*Finding, error] {
	return func(yield func(*Finding, error) bool) {
		owners, err := s.Owners()
		if err != nil {
			yield(nil, err)
			return
		}
		for c, err := range hooks.Syscalls(ctx, s.Linux, owners) {
			if err != nil {
				if !yield(nil, err) {
					return
				}
				continue
			}
			// Code of nobody is what code-pointer finds.
			owner := owners.CodeAt(c.Handler)
			if c.Expected || owner.Kind == linux.OwnerNone {
				continue
			}
			if !yield(systemCallFound(s, c, owner), nil) {
				return
			}
		}
	}
}

func systemCallFound(s *Subject, c *hooks.Syscall, owner linux.Owner) *Finding {
	name, expected := c.Name, "the function of "+c.Name
	if c.Name == "" {
		name, expected = "without a name", "a function that is a system call"
	}
	leads := owner.Function()
	if owner.Kind != linux.OwnerKernel {
		leads += " of " + owner.String()
	}
	way := c.Via
	if c.Via == "table" && !c.Used {
		way += ", not as the code that selects it does," // which of them was changed is shown by the other's finding
	}
	return &Finding{
		Confidence: Certain,
		Title:      fmt.Sprintf("system call %d (%s, %s) leads by its %s to %s", c.Number, name, c.ABI, way, leads),
		Object:     Object{Kind: "system call", Name: fmt.Sprintf("%s/%d/%s", c.ABI, c.Number, c.Via), Addr: c.Site},
		Expected:   expected + ", from its start, by table and dispatcher alike",
		Seen:       fmt.Sprintf("%s (%#x)", leads, uint64(c.Handler)),
		Evidence: []Evidence{
			{Text: "what leads there", Addr: c.Site, Bytes: bytesAt(s, c.Site, 8)},
			{Text: "the function", Addr: c.Handler, Bytes: codeAt(s, uint64(c.Handler))},
		},
		Basis: "the guest's symbols, the names that it noted for tracing, and its table and dispatcher compared with each other",
		Show:  fmt.Sprintf("outsight disassemble {} %#x", uint64(c.Handler)),
	}
}
