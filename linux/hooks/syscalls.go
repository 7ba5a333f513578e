package hooks

import (
	"context"
	"fmt"
	"iter"
	"strings"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// Syscall is one way in which the kernel gets from the number of a system call to
// the function that does it.
type Syscall struct {
	ABI    string // "64", "ia32", "x32"
	Number int
	// Via is "table", an array of pointers, or "dispatcher", a function that
	// selects by the number in its code.
	Via string
	// Used says that system calls take this way. Where there is a dispatcher, the
	// table only shows tracing what is what.
	Used bool
	// Name is the call's name without "sys_", as the kernel noted it for tracing
	// when it booted, or else as the symbol of the function says; empty for a
	// number without a call.
	Name string
	// Handler is the function, and Site what leads there: the entry of the table,
	// or the instruction of the dispatcher.
	Handler, Site virt.Addr
	// Expected says that the function is the one that belongs to the number: its
	// symbol is that of the name, and starts there; and table and dispatcher
	// agree, where there are both.
	Expected bool
}

// abiWay is where the ways of one ABI start.
type abiWay struct{ abi, table, dispatcher string }

var abiWays = []abiWay{
	{"64", "sys_call_table", "x64_sys_call"},
	{"ia32", "ia32_sys_call_table", "ia32_sys_call"},
	{"x32", "x32_sys_call_table", "x32_sys_call"},
}

// maxSyscalls bounds the numbers that are looked at. x32 ends at 547.
const maxSyscalls = 1024

// Syscalls yields all ways from numbers to functions, by ABI and way, in order of
// number. Dispatchers (since 6.9, and the stable kernels of April 2024) are read
// from their code. owners knows what a function is.
func Syscalls(ctx context.Context, s *linux.System, owners *linux.Owners) iter.Seq2[*Syscall, error] {
	return func(yield func(*Syscall, error) bool) {
		names := []string{"syscalls_metadata"}
		for _, w := range abiWays {
			names = append(names, w.table, w.dispatcher)
		}
		if err := s.Prefetch(names...); err != nil {
			yield(nil, err)
			return
		}
		any := false
		for _, w := range abiWays {
			calls, errs := syscallsOf(ctx, s, owners, w)
			for _, err := range errs {
				if !yield(nil, err) {
					return
				}
			}
			for _, c := range calls {
				any = true
				if !yield(c, nil) {
					return
				}
			}
		}
		if !any {
			yield(nil, fmt.Errorf("system calls: %w: %w", kobj.ErrUnsupported, s.NoSymbol("sys_call_table, x64_sys_call")))
		}
	}
}

func syscallsOf(ctx context.Context, s *linux.System, owners *linux.Owners, w abiWay) (calls []*Syscall, errs []error) {
	var table []virt.Addr
	slot, size, hasTable := s.TableAt(w.table)
	if hasTable {
		var err error
		if table, err = s.Pointers(slot, int(min(size/8, maxSyscalls))); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.table, err))
		}
		for len(table) > 0 && table[len(table)-1] == 0 { // what aligns the next symbol
			table = table[:len(table)-1]
		}
	}
	targets, err := dispatched(ctx, s, owners, w, len(table))
	if err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", w.dispatcher, err))
	}
	var noted []string
	if w.abi == "64" {
		metadata, err := signatures(s, len(table), false)
		if err != nil {
			errs = append(errs, err)
		}
		noted = make([]string, len(metadata))
		for nr, m := range metadata {
			if m != nil {
				noted[nr] = m.Name
			}
		}
	}
	for i := range targets {
		targets[i].Addr = behindPadding(owners, targets[i].Addr)
	}
	_, dispatches := s.Address(w.dispatcher)
	for nr, a := range table {
		c := &Syscall{ABI: w.abi, Number: nr, Via: "table", Used: !dispatches, Handler: a, Site: slot + virt.Addr(8*nr)}
		c.judge(owners, noted)
		c.Expected = c.Expected && (nr >= len(targets) || targets[nr].Addr == a)
		calls = append(calls, c)
	}
	for nr, t := range targets {
		c := &Syscall{ABI: w.abi, Number: nr, Via: "dispatcher", Used: true, Handler: t.Addr, Site: t.Site}
		c.judge(owners, noted)
		// A table that nobody uses may have been forgotten, the dispatcher not.
		calls = append(calls, c)
	}
	return calls, errs
}

// behindPadding is the function that begins behind the padding in which a is: where calls
// are counted (retbleed=stuff, since 6.2) they go to code in front of it.
func behindPadding(owners *linux.Owners, a virt.Addr) virt.Addr {
	const most = 64 // CONFIG_FUNCTION_PADDING_BYTES is 16 so far
	function, ok := strings.CutPrefix(owners.CodeAt(a).Symbol, "__pfx_")
	for n := virt.Addr(1); ok && n <= most; n++ {
		if o := owners.CodeAt(a + n); o.Symbol == function && o.Offset == 0 {
			return a + n
		}
	}
	return a
}

// judge fills the name in, and whether the function is the expected one.
func (c *Syscall) judge(owners *linux.Owners, noted []string) {
	owner := owners.CodeAt(c.Handler)
	if c.Number < len(noted) && noted[c.Number] != "" {
		c.Name = noted[c.Number]
		// A call without arguments has several symbols at its one address.
		name, _ := syscallName(owner.Symbol)
		c.Expected = owner.Kind == linux.OwnerKernel && owner.Offset == 0 && name == c.Name
		return
	}
	name, ok := syscallName(owner.Symbol)
	if ok && name != "ni_syscall" {
		c.Name = name
	}
	c.Expected = ok && owner.Kind == linux.OwnerKernel && owner.Offset == 0
}

// syscallName is the name of the call that a function does, by its symbol.
func syscallName(symbol string) (string, bool) {
	for _, p := range []string{"__x64_sys_", "__ia32_sys_", "__ia32_compat_sys_", "__x64_compat_sys_", "__do_sys_", "__do_compat_sys_", "__x32_compat_sys_", "sys_"} {
		if n, ok := strings.CutPrefix(symbol, p); ok {
			return n, true
		}
	}
	return "", false
}
