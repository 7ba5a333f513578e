package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Unpacked fetches packages of Debian, of the release of a Debian guest's userland and of
// an architecture by Debian's name ("amd64", "i386"), and unpacks them into a folder of the
// cache, which it returns. What they depend on is not fetched.
func Unpacked(ctx context.Context, arch string, packages ...string) (root string, err error) {
	for _, p := range packages {
		if !packageRE().MatchString(p) {
			return "", fmt.Errorf("lab: %q is not the name of a Debian package", p)
		}
	}
	dir, err := cacheDir("packages")
	if err != nil {
		return "", err
	}
	recipe := fileHash(append([]string{debianRelease, arch}, slices.Sorted(slices.Values(packages))...)...)
	final := filepath.Join(dir, debianRelease+"-"+arch+"-"+recipe)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	a, err := openArchiveFor(ctx, debianRelease, arch)
	if err != nil {
		return "", err
	}
	defer a.close()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	if err := a.update(ctx); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := a.unpack(ctx, tmp, packages...); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	return final, publish(tmp, final)
}
