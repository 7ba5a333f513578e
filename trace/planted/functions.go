package planted

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/kernel/btf"
	"github.com/outsight-vmi/outsight/linux/hooks"
	"github.com/outsight-vmi/outsight/plant"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/virt"
)

// maxFunctions bounds the functions of system calls that programs are attached to, each when it begins and when it returns. What is more is seen
// where all calls begin and return: to attach and to detach so many takes a kernel many seconds.
const maxFunctions = 80

// function is a function of the kernel's that does system calls that are asked for.
type function struct {
	name    string
	at      virt.Addr
	proto   btf.TypeID
	returns bool
	numbers [2][]uint32
}

// functions finds what does the system calls that are asked for, as the kernel's own tables say. The error says why they cannot be
// seen there.
func functions(ctx context.Context, l *guest.Look, calls *tcg.Calls) ([]*function, error) {
	owners, err := l.Linux.Owners()
	if err != nil {
		return nil, err
	}
	var all []*function
	of := map[virt.Addr]*function{}
	for c, err := range hooks.Syscalls(ctx, l.Linux, owners) {
		if err != nil {
			return nil, err
		}
		abi := slices.Index([]string{"64", "ia32"}, c.ABI)
		if !c.Used || abi < 0 || !slices.Contains(calls.Numbers(syscall.ABI(abi)), uint32(c.Number)) {
			continue
		}
		symbol := owners.CodeAt(c.Handler).Symbol
		if strings.HasSuffix(symbol, "sys_ni_syscall") {
			continue // the kernel was built without it
		}
		if !c.Expected {
			return nil, fmt.Errorf("system call %d (%s) is done by %q at %#x, which is not the kernel's function for it", c.Number, c.ABI, symbol, uint64(c.Handler))
		}
		f := of[c.Handler]
		if f == nil {
			f = &function{name: symbol, at: c.Handler}
			of[c.Handler] = f
			all = append(all, f)
		}
		f.returns = f.returns || calls.Returns(syscall.ABI(abi), uint32(c.Number))
		f.numbers[abi] = append(f.numbers[abi], uint32(c.Number))
	}
	if len(all) > maxFunctions {
		return nil, fmt.Errorf("%d functions do them, more than %d", len(all), maxFunctions)
	}
	return all, typed(l, all)
}

// typed finds the functions' types, by all names that they have: one without arguments has the same code for all ABIs.
func typed(l *guest.Look, all []*function) error {
	spec, err := l.Linux.Types()
	if err != nil {
		return err
	}
	ids := map[string]btf.TypeID{}
	names := func(f *function) (names []string) {
		_, call, _ := strings.Cut(f.name, "_sys_")
		for _, n := range []string{f.name, "__x64_sys_" + call, "__ia32_sys_" + call, "__ia32_compat_sys_" + call, "__x64_compat_sys_" + call} {
			if a, ok := l.Linux.Address(n); ok && a == f.at {
				names = append(names, n)
			}
		}
		return names
	}
	for _, f := range all {
		for _, n := range names(f) {
			ids[n] = 0
		}
	}
	spec.Functions(ids)
	var final []string
	for _, f := range all {
		i := slices.IndexFunc(names(f), func(n string) bool { return ids[n] != 0 })
		if i < 0 {
			return fmt.Errorf("the kernel's types do not have %s", f.name)
		}
		f.name = names(f)[i]
		t, ok := spec.Type(ids[f.name])
		if !ok {
			return fmt.Errorf("the kernel's types do not have %s", f.name)
		}
		f.proto = t.Ref()
		if args := spec.Params(f.proto); len(args) != 1 || !strings.Contains(spec.TypeName(args[0].Type), "pt_regs") {
			return fmt.Errorf("%s does not take its arguments by struct pt_regs", f.name)
		}
		final = append(final, f.name)
	}
	return plant.Traceable(l, final)
}

// atFunctions adds programs for system calls that run where the calls' own functions begin and return, so that other calls cost nothing. What they
// do is in two programs for all functions of a type, to which they jump: the kernel allows that among those alone.
func (c *callCompiler) atFunctions(load *plant.Load, all []*function) error {
	var bodies, stubs []plant.Program
	var protos []btf.TypeID
	for _, f := range all {
		if !slices.Contains(protos, f.proto) {
			protos = append(protos, f.proto)
		}
	}
	add := func(to *[]plant.Program, w *writer, p plant.Program) error {
		w.without()
		b, err := w.binary()
		if err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
		p.Code = b
		*to = append(*to, p)
		return nil
	}
	n := 0
	for group, proto := range protos {
		suffix := ""
		if group > 0 {
			suffix = fmt.Sprint(group)
		}
		of := slices.Clone(all)
		of = slices.DeleteFunc(of, func(f *function) bool { return f.proto != proto })
		each := *c
		each.only = &[2][]uint32{}
		for _, f := range of {
			for abi, numbers := range f.numbers {
				each.only[abi] = append(each.only[abi], numbers...)
			}
		}
		for _, entry := range []bool{true, false} {
			if !entry && !slices.ContainsFunc(of, func(f *function) bool { return f.returns }) {
				continue
			}
			w, err := each.program(entry)
			if err != nil {
				return err
			}
			name := enterName
			if !entry {
				name = leaveName
			}
			table := len(bodies)
			if err := add(&bodies, w, plant.Program{Name: name + suffix, Function: of[0].name, Return: !entry}); err != nil {
				return err
			}
			for _, f := range of {
				if !entry && !f.returns {
					continue
				}
				if err := add(&stubs, jump(table), plant.Program{Name: fmt.Sprintf("outsight_f%d", n), Function: f.name, Return: !entry}); err != nil {
					return err
				}
				n++
			}
		}
	}
	load.Tables = len(bodies)
	load.Programs = append(append(bodies, load.Programs...), stubs...)
	load.Note = fmt.Sprintf("system calls are seen where the %d functions that do them begin and return: others cost nothing", len(all))
	return nil
}

// jump is a program that goes on as another: the one that a table leads to. R1 has its argument.
func jump(table int) *writer {
	w := newWriter(minArea, 0)
	w.mapAt(r2, int32(1+table))
	w.imm(r3, 0)
	w.call(callTail)
	w.exit() // it never comes here, unless the table is empty: then it is being removed
	return w
}
