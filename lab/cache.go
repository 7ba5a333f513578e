package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// cacheDir gives (and makes) a directory of the cache.
func cacheDir(elem ...string) (string, error) {
	root := os.Getenv("OUTSIGHT_LAB_CACHE")
	if root == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("lab: no cache directory (%w): set OUTSIGHT_LAB_CACHE", err)
		}
		root = filepath.Join(user, "outsight", "lab")
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("lab: cache directory: %w", err)
	}
	dir := filepath.Join(append([]string{root}, elem...)...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("lab: cannot make the cache (%w): set OUTSIGHT_LAB_CACHE to a directory of yours", err)
	}
	return dir, nil
}

// lockFile takes an exclusive lock, waiting for it as long as ctx allows. Processes and
// goroutines are kept apart alike, because each has its own open file description.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: lock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lab: lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lab: %s is in use by another process: %w", path, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// publish moves a finished temporary file or directory to its place in one step, so that
// readers never see half of it. The first writer wins: the content is the same.
func publish(tmp, final string) error {
	err := os.Rename(tmp, final)
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return os.RemoveAll(tmp)
	}
	return fmt.Errorf("lab: cache: %w", err)
}

// writeAtomic replaces a file in one step.
func writeAtomic(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("lab: write %s: %w", path, err)
	}
	return nil
}
