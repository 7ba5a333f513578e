package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/table/collection"
)

const collectLong = `Take every view of a guest at once, into a folder.

The folder gets one file for each view (one JSON object a line, or CSV) and manifest.json, which
says what was taken, of which kernel, when, what could not be read, and the SHA-256 of every
file. It is made if need be, and must be empty. A view that fails does not stop the others.

Views that read all of the guest's memory (strings) or are very long (symbols, pages) are taken only
where --views names them.
A guest that runs changes while it is read; --pause makes all files show one moment.`

type collectFlags struct {
	guest  guestFlags
	folder string
	views  []string
	format string
}

func newCollectCommand() *cobra.Command {
	var f collectFlags
	c := &cobra.Command{
		Use:   "collect [TARGET] -o FOLDER",
		Short: "Take every view of a guest at once, into a folder",
		Long:  collectLong,
		Example: `  outsight collect lab:demo -o evidence --pause
  outsight collect memory.raw -o evidence --views ps,files,sockets,strings --format csv`,
		GroupID:           groupAsk,
		ValidArgsFunction: completeTarget,
		Args:              oneTarget,
		RunE:              func(c *cobra.Command, args []string) error { return f.run(c, optionalTarget(args)) },
	}
	f.guest.add(c)
	c.Flags().StringSliceVar(&f.views, "views", nil, "take only these `views`, with commas between them")
	c.Flags().StringVarP(&f.folder, "output", "o", "", "write into this `folder`")
	c.Flags().StringVar(&f.format, "format", string(table.JSON), "`format` of the files: json, csv")
	return c
}

func (f *collectFlags) run(c *cobra.Command, target string) (err error) {
	o := collection.Options{Views: collection.Default(), Format: table.Format(f.format), Tool: "outsight " + version()}
	if o.Format != table.JSON && o.Format != table.CSV {
		return usagef("--format: unknown format %q for files; use json or csv", f.format)
	}
	if len(f.views) > 0 {
		if o.Views, err = collection.Find(f.views); err != nil {
			return usagef("--views: %w", err)
		}
	}
	if f.folder == "" {
		return usagef("collect needs -o FOLDER")
	}
	g, done, err := f.guest.open(c.Context(), target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	taken := 0
	bar := newProgress(c.ErrOrStderr())
	o.Done = func(collection.Entry) {
		taken++
		bar.count(taken, len(o.Views), "views")
	}
	m, err := collection.Write(c.Context(), g, f.folder, o)
	bar.clear()
	if err != nil {
		return fmt.Errorf("collect %s: %w", target, err)
	}
	return tellCollection(c, m, f.folder)
}

func tellCollection(c *cobra.Command, m *collection.Manifest, dir string) error {
	rows, size := 0, int64(0)
	for _, e := range m.Views {
		rows += e.Rows
		size += e.Bytes
		if e.Error != "" {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: %s: %s\n", e.View, e.Error)
		}
		for _, note := range e.Notes {
			fmt.Fprintf(c.ErrOrStderr(), "outsight: %s\n", note)
		}
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%d views, %d rows, %s in %s (%v)\n",
		len(m.Views), rows, mebibytes(uint64(size)), dir, m.Ended.Sub(m.Begun).Round(1e6))
	return err
}
