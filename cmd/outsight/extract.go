package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/vm"
)

const extractLong = `Take a process's memory, one mapping, an ELF image or a module out into a file.

With --pid alone the file becomes an ELF core file of all mappings of the process, with what
of them is in memory; with --address it holds the bytes of the mapping at that address,
and with --elf too the ELF image that begins there, in the layout of its file. With
--module it is an ELF core file of a module's code and data, at the addresses that they
have. gdb and objdump read these.

What is swapped out, or never was in memory, is a hole in the file. "outsight maps",
"outsight elfs" and "outsight modules" show what there is; "outsight recover" takes files
out of the page cache.`

type extractFlags struct {
	peekFlags
	file            fileFlags
	address, module string
	elf             bool
}

func newExtractCommand() *cobra.Command {
	var f extractFlags
	c := &cobra.Command{
		Use:   "extract [TARGET] -o FILE",
		Short: "Take a process's memory, an ELF image or a module out into a file",
		Long:  extractLong,
		Example: `  outsight extract lab:demo --pid 312 -o core.312
  outsight extract lab:demo --pid 312 --address 0x7f1200000000 --elf -o dropper.so
  outsight extract memory.raw --module nf_tables -o nf_tables.elf`,
		Args:    oneTarget,
		GroupID: groupMemory,
	}
	f.guest.add(c)
	c.ValidArgsFunction = completeTarget
	c.Flags().Int32Var(&f.pid, "pid", 0, "take memory of this process")
	c.Flags().StringVar(&f.address, "address", "", "take only the mapping at this `address`")
	c.Flags().BoolVar(&f.elf, "elf", false, "take the ELF image whose header is at --address")
	c.Flags().StringVar(&f.module, "module", "", "take this `module` of the kernel")
	f.file.add(c, "write to this `file`, which must be one that can have holes", "")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if err := f.check(c); err != nil {
			return err
		}
		g, m, done, err := f.open(c.Context(), optionalTarget(args))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		file, err := os.OpenFile(f.file.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return usagef("%w", err)
		}
		defer func() {
			if err = errors.Join(err, file.Close()); err != nil && !errors.As(err, &errIncomplete{}) {
				_ = os.Remove(f.file.path) // a part of it would look like the whole
			}
		}()
		return f.extract(c, g, m, file)
	}
	return c
}

// check reports which flags do not go together.
func (f *extractFlags) check(c *cobra.Command) error {
	pid, module := c.Flags().Changed("pid"), f.module != ""
	switch {
	case !pid && !module:
		return usagef("extract needs --pid PROCESS or --module NAME")
	case pid && module:
		return usagef("--pid and --module exclude each other: a module belongs to the kernel")
	case pid && f.pid <= 0:
		return usagef("--pid: invalid pid %d", f.pid)
	case module && f.address != "":
		return usagef("--address is an address of a process: it goes with --pid, not with --module")
	case f.elf && f.address == "":
		return usagef("--elf needs an --address, where the image begins")
	case f.file.path == stdoutPath:
		return usagef("extract writes at random offsets: -o needs the name of a regular file")
	}
	return f.file.check(c, "FILE")
}

func (f *extractFlags) extract(c *cobra.Command, g *guest.Look, m *peek.Memory, file *os.File) error {
	if f.module != "" {
		for module, err := range g.Linux.Modules(c.Context()) {
			if err == nil && module.Name == f.module {
				return f.segments(c, m, file, peek.ModuleSegments(module))
			}
		}
		return &vm.Error{Kind: vm.ErrNotFound, What: "module " + f.module, Why: "no such module in the kernel's list", Do: `see "outsight modules"`}
	}
	task, err := peek.Task(c.Context(), g.Linux, f.pid)
	if err != nil {
		return err
	}
	if f.address == "" {
		segments, err := peek.Segments(c.Context(), g.Linux, task)
		if err != nil {
			return fmt.Errorf("mappings of process %d: %w", f.pid, err)
		}
		return f.segments(c, m, file, segments)
	}
	a, err := place(m, f.address)
	if err != nil {
		return err
	}
	if f.elf {
		return f.write(c, "", func(io.Writer) ([]peek.Gap, error) { return m.WriteImage(file, a) })
	}
	return f.mapping(c, g.Linux, task, m, file, a)
}

// segments writes an ELF file, and says how much of it was in memory.
func (f *extractFlags) segments(c *cobra.Command, m *peek.Memory, file *os.File, segments []peek.Segment) error {
	written, err := m.WriteELF(c.Context(), file, segments)
	if err != nil {
		return err
	}
	size := uint64(0)
	for _, s := range segments {
		size += s.Size
	}
	rest := ""
	if written < size {
		rest = "; the others are not in memory"
	}
	fmt.Fprintf(c.ErrOrStderr(), "outsight: wrote %d of %d bytes in %d segments%s\n", written, size, len(segments), rest)
	return nil
}

// mapping writes the bytes of the mapping that a is in.
func (f *extractFlags) mapping(c *cobra.Command, s *linux.System, task linux.Task, m *peek.Memory, file *os.File, a uint64) error {
	segments, err := peek.Segments(c.Context(), s, task)
	for _, g := range segments {
		if a >= g.Addr && a-g.Addr < g.Size {
			const most = 1 << 34 // more is a sparse mapping: take all of the process
			if g.Size > most {
				return usagef("the mapping has %d bytes; leave --address out for a file with holes", g.Size)
			}
			return f.write(c, "", func(io.Writer) ([]peek.Gap, error) { return m.Copy(file, g.Addr, g.Size) })
		}
	}
	if err != nil {
		return fmt.Errorf("mappings of process %d: %w", f.pid, err)
	}
	return &vm.Error{Kind: vm.ErrNotFound, What: fmt.Sprintf("mapping of process %d", f.pid), Why: fmt.Sprintf("no mapping at %#x", a), Do: `see "outsight maps"`}
}
