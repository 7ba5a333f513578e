package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys/acquire"
)

// mayWrite reports why a file cannot be made at path: it is there, and force does not say
// that it may be replaced, or there is no folder for it. "-" and "" are standard output.
func mayWrite(path string, force bool) error {
	if path == "-" || path == "" {
		return nil
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
