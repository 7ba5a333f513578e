package acquire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outsight-vmi/outsight/phys"
)

// ErrExists says that there is a file already.
var ErrExists = errors.New("the file exists already")

// File is [Write] to a file of that name, which appears there only when it is
// whole; until then it has another name beside it, and is removed after an error.
// What exists is replaced only if force says so, and only if it is a regular file.
func File(ctx context.Context, mem phys.Memory, path string, force bool, o Options) (r Result, err error) {
	if err := MayWrite(path, force); err != nil {
		return r, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if r, err = Write(ctx, mem, f, o); err != nil {
		return r, fmt.Errorf("write %s: %w", path, err)
	}
	if force {
		if err := os.Rename(f.Name(), path); err != nil {
			return r, err
		}
		return r, f.Close()
	}
	// Somebody may have made one meanwhile: a link, other than a renaming, replaces
	// nothing.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return r, fmt.Errorf("%s: %w", path, ErrExists)
	} else if err != nil { // no hard links on this file system
		if err := os.Rename(f.Name(), path); err != nil {
			return r, err
		}
		return r, f.Close()
	}
	return r, errors.Join(os.Remove(f.Name()), f.Close())
}

// MayWrite reports early what [File] would refuse.
func MayWrite(path string, force bool) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is there and is not a regular file", path)
	case !force:
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	return nil
}
