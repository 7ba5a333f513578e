package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/table/text"
)

// maxRead bounds what one "read" writes, in bytes: a slip of a digit should not fill a disk.
const maxRead = 1 << 40

func newReadCommand() *cobra.Command {
	var f peekFlags
	var file fileFlags
	var words bool
	c := &cobra.Command{
		Use:   "read TARGET ADDRESS [LENGTH]",
		Short: "Show memory at an address, or write it to a file",
		Long: `Show the bytes at an address, or with -o write them to a file as they are.

` + placeHelp + ` Without
a LENGTH (in bytes) 256 are read. With --words they are shown as pointers (of four bytes in a 32-bit
process, else of eight), with what these point to: a symbol of the kernel or of a module, or in braces the slab cache whose object lies there. What cannot be read is shown as ??, written as zeros,
told on standard error, and ends in exit status 3.`,
		Example: `  outsight read lab:demo linux_banner 128
  outsight read lab:demo --pid 1 0x7ffd0000 4096 -o stack.bin
  outsight read lab:demo --words init_task+0x20 64
  outsight read memory.raw --physical 0x1000`,
		Args:    arguments(2, 3, "a TARGET, an ADDRESS and perhaps a LENGTH"),
		GroupID: groupMemory,
	}
	f.add(c)
	file.add(c, "write the bytes to this `file`; - is standard output", "")
	c.Flags().BoolVar(&words, "words", false, "show words and what they point to")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if words && file.path != "" {
			return usagef("--words is for reading, -o for bytes as they are: give one of them")
		}
		if err := file.check(c, ""); err != nil {
			return err
		}
		n := uint64(256)
		if len(args) == 3 {
			if n, err = strconv.ParseUint(args[2], 0, 64); err != nil || n > maxRead {
				return usagef("invalid LENGTH %q: give a number of bytes", args[2])
			}
		}
		m, a, done, err := f.openAt(c.Context(), args[0], args[1])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done()) }()
		if size := m.WordSize(); words && n%size != 0 {
			return usagef("with --words the LENGTH is a multiple of %d bytes, not %d", size, n)
		}
		if a+n < a {
			n = -a // up to the end of the address space
		}
		return f.write(c, file.path, func(w io.Writer) ([]peek.Gap, error) {
			switch {
			case words:
				return writeWords(w, m.Words(a, n/m.WordSize()), m.WordSize())
			case file.path == "":
				return m.Hex(w, a, n)
			}
			return m.Copy(w, a, n)
		})
	}
	return c
}

// write has bytes written to a file or to standard output, and reports what was missing.
func (f *peekFlags) write(c *cobra.Command, path string, copyTo func(io.Writer) ([]peek.Gap, error)) (err error) {
	out := c.OutOrStdout()
	if path != "" && path != stdoutPath {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return usagef("%w", err)
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		out = file
	}
	w := bufio.NewWriter(out)
	gaps, err := copyTo(w)
	if err := errors.Join(err, w.Flush()); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	for i, g := range gaps {
		if i == 10 {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: and %d more\n", len(gaps)-i)
			break
		}
		fmt.Fprintf(c.ErrOrStderr(), "outsight: missing: %#x, %d bytes: %s\n", g.Addr, g.Size, sentence(g.Err.Error()))
	}
	if len(gaps) > 0 {
		return errIncomplete{}
	}
	return nil
}

// writeWords writes words, a line each, with what they point to.
func writeWords(w io.Writer, words iter.Seq2[peek.Word, error], size uint64) (gaps []peek.Gap, err error) {
	for word, err := range words {
		if err != nil {
			return gaps, err
		}
		digits := int(2 * size)
		value := fmt.Sprintf("%0*x", digits, word.Value)
		if word.Err != nil {
			value = strings.Repeat("?", digits)
			gaps = peek.AddGap(gaps, word.Addr, size, word.Err)
		}
		if word.Name != "" {
			value += "  " + text.Visible(word.Name)
		}
		if _, err := fmt.Fprintf(w, "%016x  %s\n", word.Addr, value); err != nil {
			return gaps, err
		}
	}
	return gaps, nil
}
