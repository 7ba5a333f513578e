package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/vm"
)

const placeHelp = `ADDRESS is a number (hexadecimal after 0x, or with 16 digits), or a symbol of the kernel's (init_task), of a module
(nf_tables:nft_do_chain) or of one processor (runqueues@1), with or without a distance in
bytes behind it (init_task+0x10).`

// peekFlags are the flags of the verbs that look at memory by address.
type peekFlags struct {
	guest    guestFlags
	out      outputFlags
	pid      int32
	physical bool
}

func (f *peekFlags) add(c *cobra.Command) {
	f.guest.add(c)
	c.ValidArgsFunction = completeTarget
	c.Flags().Int32Var(&f.pid, "pid", 0, "look at the memory of this process; without it, at the kernel's")
	c.Flags().BoolVar(&f.physical, "physical", false, "the address is guest-physical")
}

// open opens a guest and the address space that the flags choose.
func (f *peekFlags) open(ctx context.Context, target string) (*guest.Look, *peek.Memory, func() error, error) {
	if f.physical && f.pid != 0 {
		return nil, nil, nil, usagef("--physical and --pid exclude each other: physical memory belongs to no process")
	}
	g, done, err := f.guest.open(ctx, target)
	if err != nil {
		return nil, nil, nil, err
	}
	switch {
	case f.physical:
		return g, peek.Physical(g.Linux), done, nil
	case f.pid != 0:
		m, err := peek.Process(ctx, g.Linux, f.pid)
		if errors.Is(err, peek.ErrNoProcess) {
			err = &vm.Error{Kind: vm.ErrNotFound, What: fmt.Sprintf("memory of process %d", f.pid), Why: peek.ErrNoProcess.Error(), Do: `see "outsight ps"`}
		}
		if err != nil {
			return nil, nil, nil, errors.Join(err, done())
		}
		return g, m, done, nil
	}
	return g, peek.Kernel(g.Linux), done, nil
}

// place is the address that an argument names; that there is none is the command line's fault.
func place(m *peek.Memory, text string) (uint64, error) {
	a, err := m.Resolve(text)
	if err != nil {
		return 0, usagef("%w", err)
	}
	return a, nil
}

// openAt opens a guest, and finds the address that at names.
func (f *peekFlags) openAt(ctx context.Context, target, at string) (m *peek.Memory, a uint64, done func() error, err error) {
	_, m, done, err = f.open(ctx, target)
	if err != nil {
		return nil, 0, nil, err
	}
	if a, err = place(m, at); err != nil {
		return nil, 0, nil, errors.Join(err, done())
	}
	return m, a, done, nil
}

// show writes rows that are not a view's.
func (f *peekFlags) show(c *cobra.Command, columns []table.Column, rows iter.Seq2[table.Row, error]) error {
	o, err := f.out.parse(c.OutOrStdout(), columns)
	if err != nil {
		return err
	}
	var failed error
	err = o.write(c.OutOrStdout(), columns, func(yield func(table.Row) bool) {
		for row, err := range rows {
			if err != nil {
				failed = err
				return
			}
			if !yield(row) {
				return
			}
		}
	})
	return errors.Join(err, failed)
}

var structColumns = []table.Column{
	{Name: "offset", Type: table.Addr, Doc: "Where the member lies, in bytes from the start."},
	{Name: "size", Type: table.Size, Doc: "How many bytes it has."},
	{Name: "bit", Type: table.Uint, Extra: true, Doc: "Of a bit field: its first bit in the byte at offset."},
	{Name: "bits", Type: table.Uint, Extra: true, Doc: "Of a bit field: its width."},
	{Name: "member", Type: table.Text, Doc: "Name, with the names of what holds it."},
	{Name: "declaration", Type: table.Text, Doc: "As C declares it."},
	{Name: "value", Type: table.Text, Doc: "What it holds; missing without an ADDRESS."},
}

func newStructCommand() *cobra.Command {
	var f peekFlags
	var depth int
	c := &cobra.Command{
		Use:   "struct TARGET TYPE [ADDRESS]",
		Short: "Show the members of a type, or what an object of it holds",
		Long: `Show the members of a type of the guest's kernel, or what an object of it holds.

TYPE is a structure, union, enumeration or typedef ("task_struct", "enum pid_type"), one
member of it ("task_struct.comm", "task_struct.se.vruntime"), or a function or per-CPU
variable; its declaration is printed too. Types come from the guest's own BTF.

` + placeHelp,
		Example: `  outsight struct lab:demo task_struct
  outsight struct lab:demo task_struct.comm init_task
  outsight struct memory.raw net.ns init_net --depth 2 -o json`,
		Args:    arguments(2, 3, "a TARGET, a TYPE and perhaps an ADDRESS"),
		GroupID: groupMemory,
	}
	f.add(c)
	f.out.add(c, structColumns)
	c.Flags().IntVar(&depth, "depth", 0, "show the members of members too, so many levels of them")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		_, m, done, err := f.open(c.Context(), args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		t, err := m.Type(args[1])
		if err != nil {
			return usagef("%w", err)
		}
		var at *uint64
		if len(args) == 3 {
			a, err := place(m, args[2])
			if err != nil {
				return err
			}
			at = &a
		}
		unread := 0
		err = f.show(c, structColumns, func(yield func(table.Row, error) bool) {
			for l := range t.Lines(max(depth, 0), at) {
				if l.Err != nil {
					unread++
				}
				if !yield(structRow(l, at != nil), nil) {
					return
				}
			}
		})
		if err == nil && unread > 0 {
			return fmt.Errorf("%d members could not be read: %#x is not all in memory", unread, *at)
		}
		return err
	}
	return c
}

func structRow(l peek.Line, decoded bool) table.Row {
	none := table.Missing(table.None)
	value := none
	switch {
	case l.Err != nil && virt.IsFault(l.Err, virt.Swapped):
		value = table.Missing(table.SwappedOut)
	case l.Err != nil:
		value = table.Missing(table.Unreadable)
	case decoded || l.Value != "":
		value = table.TextValue(l.Value)
	}
	if l.Decl == "" { // a constant
		return table.Row{none, none, none, none, table.TextValue(l.Name), none, value}
	}
	bit, bits := none, none
	if l.BitSize != 0 {
		bit, bits = table.UintValue(uint64(l.BitOff)), table.UintValue(uint64(l.BitSize))
	}
	name := none
	if l.Name != "" {
		name = table.TextValue(l.Name)
	}
	if l.Size == 0 && l.Name != "" && l.Offset == 0 && !decoded && strings.HasSuffix(l.Decl, ")") { // a function
		return table.Row{none, none, none, none, table.TextValue(l.Name), table.TextValue(l.Decl), none}
	}
	return table.Row{table.AddrValue(l.Offset), table.SizeValue(l.Size), bit, bits, name, table.TextValue(strings.TrimSpace(l.Decl)), value}
}
