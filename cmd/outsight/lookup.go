package main

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/virt"
)

var stepColumns = []table.Column{
	{Name: "level", Type: table.Int, Doc: "Level of the page table: 5 or 4 is the topmost, 1 the last."},
	{Name: "entry_at", Type: table.Addr, Doc: "Guest-physical address of the entry."},
	{Name: "entry", Type: table.Addr, Doc: "The entry."},
	{Name: "flags", Type: table.List, Doc: "Its flags; missing where nothing is mapped."},
	{Name: "physical", Type: table.Addr, Doc: "Of the entry that maps the page: where the address leads."},
	{Name: "page", Type: table.Size, Doc: "Of that entry: size of the page."},
}

func newTranslateCommand() *cobra.Command {
	var f peekFlags
	c := &cobra.Command{
		Use:   "translate TARGET ADDRESS",
		Short: "Show how the page tables translate an address",
		Long: `Show the page-table entries through which an address is translated, and where it leads.

` + placeHelp + `

An address that leads nowhere ends in exit status 3, with the reason.`,
		Example: `  outsight translate lab:demo init_task
  outsight translate lab:demo --pid 1 0x7ffd0000`,
		Args:    arguments(2, 2, "a TARGET and an ADDRESS"),
		GroupID: groupMemory,
	}
	f.add(c)
	_ = c.Flags().MarkHidden("physical") // a physical address is translated already
	f.out.add(c, stepColumns)
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if f.physical {
			return usagef("a physical address is not translated")
		}
		m, a, done, err := f.openAt(c.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		steps, page, fault := m.Steps(a)
		if err := f.show(c, stepColumns, stepRows(steps, page, fault)); err != nil {
			return err
		}
		return fault
	}
	return c
}

func stepRows(steps []virt.Step, page virt.Page, fault error) iter.Seq2[table.Row, error] {
	return func(yield func(table.Row, error) bool) {
		for i, s := range steps {
			flags := table.Missing(table.None)
			if names := s.FlagNames(); names != nil {
				flags = table.ListValue(names)
			}
			row := table.Row{table.IntValue(int64(s.Level)), table.AddrValue(uint64(s.At)), table.AddrValue(s.Entry), flags, table.Missing(table.None), table.Missing(table.None)}
			if i == len(steps)-1 && fault == nil {
				row[4], row[5] = table.AddrValue(uint64(page.PA)), table.SizeValue(page.Size)
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

var codeColumns = []table.Column{
	{Name: "address", Type: table.Addr, Doc: "Where the instruction lies."},
	{Name: "symbol", Type: table.Text, Doc: "Symbol of the kernel's at or before it, with the distance."},
	{Name: "bytes", Type: table.Bytes, Doc: "The instruction."},
	{Name: "instruction", Type: table.Text, Doc: "As GNU's tools write it; .byte is what could not be decoded."},
}

func newDisassembleCommand() *cobra.Command {
	var f peekFlags
	var bits int
	c := &cobra.Command{
		Use:   "disassemble TARGET ADDRESS [LENGTH]",
		Short: "Show the machine code at an address",
		Long: `Show the machine code at an address as instructions. Without a LENGTH (in bytes) it is the
function that begins there, up to the next symbol, or 64 bytes.

` + placeHelp + `

What is shown is what lies in memory: with probes, alternatives and static keys applied. Code of
a process is decoded as its kernel runs it, 32-bit programs as 32-bit code; --bits is for what is
not: 32-bit code of a 64-bit program such as Wine, or of the firmware.`,
		Example: `  outsight disassemble lab:demo vfs_read
  outsight disassemble lab:demo --pid 1 0x401000 32
  outsight disassemble lab:demo --physical --bits 16 0xffff0 16`,
		Args:    arguments(2, 3, "a TARGET, an ADDRESS and perhaps a LENGTH"),
		GroupID: groupMemory,
	}
	f.add(c)
	f.out.add(c, codeColumns)
	c.Flags().IntVar(&bits, "bits", 0, "decode code of 16, 32 or 64 `bits`; without it, of as many as the process has")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if c.Flags().Changed("bits") && bits != 16 && bits != 32 && bits != 64 {
			return usagef("--bits: code has 16, 32 or 64, not %d", bits)
		}
		m, a, done, err := f.openAt(c.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		if bits == 0 {
			bits = m.CodeBits()
		}
		n := uint64(64)
		if len(args) == 3 {
			if n, err = strconv.ParseUint(args[2], 0, 64); err != nil {
				return usagef("invalid LENGTH %q: give a number of bytes", args[2])
			}
		} else if size := m.Function(a); size > 0 {
			n = size
		}
		return f.show(c, codeColumns, func(yield func(table.Row, error) bool) {
			for i, err := range m.Code(a, n, bits) {
				if err != nil {
					yield(nil, err)
					return
				}
				symbol := table.Missing(table.None)
				if i.Symbol != "" {
					symbol = table.TextValue(i.Symbol)
				}
				if !yield(table.Row{table.AddrValue(i.Addr), symbol, table.BytesValue(string(i.Bytes)), table.TextValue(i.Text)}, nil) {
					return
				}
			}
		})
	}
	return c
}

var matchColumns = []table.Column{
	{Name: "address", Type: table.Addr, Doc: "Where it was found, in the address space that was searched."},
	{Name: "physical", Type: table.Addr, Doc: "Where that is in guest-physical memory."},
	{Name: "symbol", Type: table.Text, Doc: "Symbol of the kernel's at or before it, with the distance; missing elsewhere."},
	{Name: "content", Type: table.Text, Doc: "What is there, up to 64 bytes."},
	{Name: "bytes", Type: table.Bytes, Extra: true, Doc: "The same as bytes."},
}

func newSearchCommand() *cobra.Command {
	var f peekFlags
	var text, hexBytes, pointer string
	c := &cobra.Command{
		Use:   "search [TARGET]",
		Short: "Find bytes, text or pointers in memory",
		Long: `Find bytes, text or pointers in memory: of the kernel (all that its page tables map but the
direct map of all memory), of a process, or in all of guest-physical memory.

What is swapped out is not found.`,
		Example: `  outsight search lab:demo --pid 1 --text PASSWORD=
  outsight search lab:demo --physical --hex 7f454c46
  outsight search lab:demo --pointer init_task`,
		Args:    oneTarget,
		GroupID: groupMemory,
	}
	f.add(c)
	f.out.add(c, matchColumns)
	c.Flags().StringVar(&text, "text", "", "find this `text`")
	c.Flags().StringVar(&hexBytes, "hex", "", "find these `bytes`, in hex")
	c.Flags().StringVar(&pointer, "pointer", "", "find words that hold this `address`, or the address of this symbol")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		given := slices.DeleteFunc([]string{text, hexBytes, pointer}, func(s string) bool { return s == "" })
		if len(given) != 1 {
			return usagef("search takes one of --text, --hex and --pointer, not %d of them", len(given))
		}
		pattern, align := []byte(text), uint64(1)
		if hexBytes != "" {
			if pattern, err = hex.DecodeString(strings.Join(strings.Fields(hexBytes), "")); err != nil {
				return usagef("--hex: %w", err)
			}
		}
		target := ""
		if len(args) == 1 {
			target = args[0]
		}
		g, m, done, err := f.open(c.Context(), target)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		if pointer != "" {
			a, err := place(peek.Kernel(g.Linux), pointer)
			if err != nil {
				return err
			}
			pattern = binary.LittleEndian.AppendUint64(nil, a)
			if align = m.WordSize(); align == 4 {
				if a > math.MaxUint32 {
					return usagef("--pointer: %#x is not an address of a 32-bit process", a)
				}
				pattern = pattern[:align]
			}
		}
		if len(pattern) == 0 {
			return usagef("%w", peek.ErrPattern)
		}
		return f.show(c, matchColumns, func(yield func(table.Row, error) bool) {
			for match, err := range m.Search(c.Context(), pattern, align) {
				if err != nil {
					yield(nil, fmt.Errorf("search: %w", err))
					return
				}
				symbol := table.Missing(table.None)
				if s := m.SymbolAt(match.Addr); s != "" && !f.physical {
					symbol = table.TextValue(s)
				}
				if !yield(table.Row{table.AddrValue(match.Addr), table.AddrValue(uint64(match.PA)), symbol, table.TextValue(string(match.Context)), table.BytesValue(string(match.Context))}, nil) {
					return
				}
			}
		})
	}
	return c
}
