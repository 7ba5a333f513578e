package tcg

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// entryFunctions are where system calls pass on their way to the function that does them. Which of them
// there are depends on the version: do_int80_syscall_32 up to 6.6, do_int80_emulation since 6.7 and stable
// kernels of December 2023.
var entryFunctions = []string{
	"do_syscall_64", "__do_fast_syscall_32", "do_int80_syscall_32", "do_int80_emulation", "do_syscall_32_irqs_on",
}

// dispatchers are what they call, with the number in the second argument: since 6.9 and stable kernels of April 2024.
// Before, they call what a table has, through a thunk or not. The last two are for numbers that no call has, since 5.14.
var dispatchers = []string{"x64_sys_call", "x32_sys_call", "ia32_sys_call", "__x64_sys_ni_syscall", "__ia32_sys_ni_syscall"}

// returnSites are the instructions to which the functions of system calls return: RAX is the result there, as the
// function gave it, before signals change it.
func returnSites(s *linux.System, owners *linux.Owners) (sites []virt.Addr, err error) {
	var errs []error
	for _, name := range entryFunctions {
		code, start, ok := function(s, name)
		if !ok {
			continue
		}
		found := 0
		// Where a dispatcher is called, what is called by a register is something else: apic_read in do_int80_emulation up to 6.7.
		direct := slices.ContainsFunc(code, func(i placed) bool { return i.Op == x86asm.CALL && dispatches(s, i, dispatchers[:3]) })
		for i := range code {
			if code[i].Op != x86asm.CALL || !leadsToCalls(s, owners, code[i]) || direct && !dispatches(s, code[i], dispatchers) {
				continue
			}
			sites = append(sites, code[i].at+virt.Addr(code[i].length))
			found++
		}
		if found == 0 {
			errs = append(errs, fmt.Errorf("%s at %#x calls nothing that could do a system call", name, uint64(start)))
		}
	}
	if len(sites) == 0 {
		errs = append(errs, fmt.Errorf("system calls: %w", s.NoSymbol("do_syscall_64")))
		return nil, errors.Join(errs...)
	}
	return sites, nil
}

// refusedSites are the instructions that write the result of a number that no call has into the saved registers, where the compiler
// knows what sys_ni_syscall returns. One in front of what calls the functions is for all calls, until they have a result.
func refusedSites(s *linux.System, owners *linux.Owners) (sites []virt.Addr) {
	for _, name := range entryFunctions {
		code, _, _ := function(s, name)
		dispatched := false
		for _, i := range code {
			dispatched = dispatched || i.Op == x86asm.CALL && leadsToCalls(s, owners, i) && isRel(i)
			if !dispatched || i.Op != x86asm.MOV || i.Args[1] != x86asm.Imm(-int64(unix.ENOSYS)) {
				continue
			}
			if to, ok := i.Args[0].(x86asm.Mem); ok && to.Disp == regAX && to.Base != 0 && to.Index == 0 {
				sites = append(sites, i.at)
			}
		}
	}
	return sites
}

func isRel(i placed) bool {
	_, ok := i.Args[0].(x86asm.Rel)
	return ok
}

type placed struct {
	x86asm.Inst
	at     virt.Addr
	length int
}

// maxFunction bounds how much of a function is decoded, in bytes.
const maxFunction = 16 << 10

// function decodes a function of the kernel. Where its code is not understood, it goes on behind one byte: a
// call that is found there by mistake leads to no dispatcher.
func function(s *linux.System, name string) (code []placed, start virt.Addr, ok bool) {
	start, size, ok := s.TableAt(name)
	if !ok {
		return nil, 0, false
	}
	b := make([]byte, min(size, maxFunction))
	n, _ := s.Space.ReadAt(b, start)
	for i := 0; i < n; {
		inst, err := x86.Decode(b[i:n])
		if err != nil {
			i++
			continue
		}
		code = append(code, placed{inst, start + virt.Addr(i), inst.Len})
		i += inst.Len
	}
	return code, start, n > 0
}

// leadsToCalls says whether a call leads to the functions of system calls.
func leadsToCalls(s *linux.System, owners *linux.Owners, i placed) bool {
	rel, direct := i.Args[0].(x86asm.Rel)
	if !direct {
		return true // by a register: entry functions without a dispatcher call nothing else so
	}
	if dispatches(s, i, dispatchers) {
		return true
	}
	to := i.at + virt.Addr(i.length) + virt.Addr(int64(rel))
	return strings.HasPrefix(owners.CodeAt(to).Symbol, "__x86_indirect_thunk") ||
		strings.HasPrefix(owners.CodeAt(to).Symbol, "__x86_indirect_call_thunk")
}

// dispatches says whether a call leads to one of these functions.
func dispatches(s *linux.System, i placed, names []string) bool {
	rel, ok := i.Args[0].(x86asm.Rel)
	to := i.at + virt.Addr(i.length) + virt.Addr(int64(rel))
	return ok && slices.ContainsFunc(names, func(name string) bool {
		// Calls of a kernel that counts its depth (retbleed=stuff) lead in front of the function.
		a, known := s.Address(name)
		return known && to <= a && a-to <= 32
	})
}

// returnsOf are the instructions with which a function returns.
func returnsOf(s *linux.System, owners *linux.Owners, name string) (sites []virt.Addr) {
	code, _, _ := function(s, name)
	for _, i := range code {
		rel, direct := i.Args[0].(x86asm.Rel)
		switch {
		case i.Op == x86asm.RET:
			sites = append(sites, i.at)
		case i.Op == x86asm.JMP && direct:
			// A kernel with retpolines returns by a jump.
			to := i.at + virt.Addr(i.length) + virt.Addr(int64(rel))
			if o := owners.CodeAt(to); strings.Contains(o.Symbol, "return_thunk") || strings.HasPrefix(o.Symbol, "srso_") || strings.HasPrefix(o.Symbol, "retbleed_") {
				sites = append(sites, i.at)
			}
		}
	}
	return sites
}

// leavesOf are the instructions with which a function returns, also where it ends with a jump to another function that
// returns in its place. What returns there may have been called by somebody else.
func leavesOf(s *linux.System, owners *linux.Owners, name string) (sites []virt.Addr) {
	seen := map[string]bool{}
	for names := []string{name}; len(names) > 0 && len(seen) < maxLeaves; names = names[1:] {
		if seen[names[0]] {
			continue
		}
		seen[names[0]] = true
		sites = append(sites, returnsOf(s, owners, names[0])...)
		code, start, _ := function(s, names[0])
		for _, i := range code {
			rel, direct := i.Args[0].(x86asm.Rel)
			if i.Op != x86asm.JMP || !direct {
				continue
			}
			to := i.at + virt.Addr(i.length) + virt.Addr(int64(rel))
			if o := owners.CodeAt(to); to < start || to > code[len(code)-1].at {
				if o.Symbol != "" && o.Offset == 0 && !strings.Contains(o.Symbol, "thunk") {
					names = append(names, o.Symbol)
				}
			}
		}
	}
	return sites
}

// maxLeaves bounds the functions that one may end in.
const maxLeaves = 8

// exitSites are the instructions with which the functions return that the entry code calls: nothing of the kernel's but that
// code runs between them and the program, so that also what runs at a call's very end (tracepoints, and BPF programs on
// them) has done what it does to the program's memory.
func exitSites(s *linux.System, owners *linux.Owners) (sites []virt.Addr) {
	for _, name := range entryFunctions {
		if name == "do_syscall_32_irqs_on" {
			continue // it is called by others of them
		}
		for _, site := range leavesOf(s, owners, name) {
			if !slices.Contains(sites, site) { // several end in the same
				sites = append(sites, site)
			}
		}
	}
	return sites
}
