package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys/acquire"
)

// mayPrint is mayWrite for what can go to standard output ("-" or ""), or to a device or a
// pipe.
func mayPrint(path string, force bool) error {
	if st, err := os.Stat(path); path == "-" || path == "" || err == nil && !st.Mode().IsRegular() && !st.IsDir() {
		return nil
	}
	return mayWrite(path, force)
}

// mayWrite reports why a file cannot be made at path: it is there, and force does not say
// that it may be replaced, or there is no folder for it.
func mayWrite(path string, force bool) error {
	if path == "" {
		return usagef("a file needs a name")
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
