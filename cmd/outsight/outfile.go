package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/phys/acquire"
)

// stdoutPath is the path that means standard output.
const stdoutPath = "-"

// fileFlags say which file a command writes: every verb that writes one has them.
type fileFlags struct {
	path  string
	force bool
}

// add adds -o, which is required where there is no fallback, and --force. what is the
// help of -o.
func (f *fileFlags) add(c *cobra.Command, what, fallback string) {
	c.Flags().StringVarP(&f.path, "output", "o", fallback, what)
	c.Flags().BoolVar(&f.force, "force", false, "replace the file if it exists")
}

// check reports what is wrong with the file, before a guest is opened. without is what to
// write where -o is missing; empty where it may be.
func (f *fileFlags) check(c *cobra.Command, without string) error {
	if f.path == "" && !c.Flags().Changed("output") {
		if without == "" {
			return nil
		}
		return usagef("%s needs -o %s", c.Name(), without)
	}
	// "-", a device and a pipe are written as they are.
	if st, err := os.Stat(f.path); f.path == stdoutPath || err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return nil
	}
	return mayWrite(f.path, f.force)
}

// mayWrite reports why a file cannot be made at path: it is there, and force does not say
// that it may be replaced, or there is no folder for it.
func mayWrite(path string, force bool) error {
	if path == "" {
		return usagef("-o needs the name of a file")
	}
	if err := acquire.MayWrite(path, force); errors.Is(err, acquire.ErrExists) {
		return usagef("%w; add --force to replace it", err)
	} else if err != nil {
		return usagef("%w", err)
	}
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return usagef("write %s: %w", path, err)
	}
	return nil
}

// optionalTarget is the TARGET of commands that take no other argument; "" is the one
// guest of this host.
func optionalTarget(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
