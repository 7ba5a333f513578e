package main

import (
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/ulikunitz/xz"

	"github.com/outsight-vmi/outsight/linux/isf"
)

// newExportISFCommand is "outsight export-isf".
func newExportISFCommand() *cobra.Command {
	var guest guestFlags
	var file fileFlags
	c := &cobra.Command{
		Use:   "export-isf [TARGET]",
		Short: "Make a symbol file for Volatility 3 from a guest's memory",
		Long: `Make a symbol file for Volatility 3 from a guest's memory: types from the kernel's BTF and
symbols from its own table. No debug package is needed. The file belongs into Volatility's
symbols/linux folder; with -o one whose name ends in .gz or .xz is compressed.

BTF names the types of few variables: of those that Volatility's plugins look at the type
is known here, all others have an address and no type.`,
		Example:           "  outsight export-isf lab:demo -o symbols/linux/demo.json.gz",
		GroupID:           groupAsk,
		ValidArgsFunction: completeTarget,
		Args:              oneTarget,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if err := file.check(c, ""); err != nil {
				return err
			}
			g, done, err := guest.open(c.Context(), optionalTarget(args))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, done()) }()
			write := func(w io.Writer) error {
				return isf.Write(w, isf.Of(g.Linux.Kernel), version(), time.Now())
			}
			if file.path == stdoutPath {
				return write(c.OutOrStdout())
			}
			return writeWhole(file.path, write)
		},
	}
	guest.add(c)
	file.add(c, "write to this `file`; - is standard output", stdoutPath)
	return c
}

// writeWhole writes a file that appears under its name when it is whole.
func writeWhole(path string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	var z io.WriteCloser
	switch {
	case strings.HasSuffix(path, ".gz"):
		z = gzip.NewWriter(f)
	case strings.HasSuffix(path, ".xz"):
		if z, err = xz.NewWriter(f); err != nil {
			return err
		}
	}
	if z != nil {
		err = errors.Join(write(z), z.Close())
	} else {
		err = write(f)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return f.Close()
}
