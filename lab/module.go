package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// BuildModules builds kernel modules against the headers of a kernel of the lab, which are
// fetched at the first time: sources are C files by name, and headers that they include. It
// gives the folder of the NAME.ko. It takes make and gcc, and headers whose own tools run on
// this machine: those of a later Debian need a later C library.
func BuildModules(ctx context.Context, kernel, dir string, sources map[string]string, progress io.Writer) error {
	if progress == nil {
		progress = io.Discard
	}
	k, err := FindKernel(ctx, kernel, progress)
	if err != nil {
		return err
	}
	headers, err := fetchHeaders(ctx, k, progress)
	if err != nil {
		return err
	}
	var objects []string
	for name, text := range sources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if module, ok := strings.CutSuffix(name, ".c"); ok {
			objects = append(objects, module+".o")
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte("obj-m := "+strings.Join(objects, " ")+"\n"), 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	// CC: the headers name the very compiler that their kernel was built with.
	if _, err := run(ctx, dir, []string{"LC_ALL=C"}, "nice", "make", "-s", "-C", headers, "M="+dir, "CC=gcc", "modules"); err != nil {
		return fmt.Errorf("lab: build modules for kernel %s: %w", k.Release, err)
	}
	return nil
}

// fetchHeaders unpacks the headers of a kernel into the cache, and gives their folder.
func fetchHeaders(ctx context.Context, k Kernel, progress io.Writer) (string, error) {
	root, err := cacheDir("headers")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, k.Release)
	build := filepath.Join(dir, "usr/src/linux-headers-"+k.Release)
	if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
		return build, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	a, err := openArchive(ctx, k.Suite)
	if err != nil {
		return "", err
	}
	defer a.close()
	for next := []string{"linux-headers-" + k.Release}; len(next) > 0; next = next[1:] {
		p, err := a.fetchPackage(ctx, dir, next[0], progress)
		if errors.Is(err, errNoKernel) {
			return "", fmt.Errorf("lab: Debian %s has no package %s", k.Suite, next[0])
		} else if err != nil {
			return "", err
		}
		for _, dep := range p.depends {
			if strings.HasPrefix(dep, "linux-headers-") || strings.HasPrefix(dep, "linux-kbuild-") {
				next = append(next, dep)
			}
		}
	}
	if err := relocateHeaders(dir); err != nil {
		return "", err
	}
	return build, os.WriteFile(filepath.Join(dir, "complete"), nil, 0o644)
}

// relocateHeaders makes the makefiles of headers name each other where they are, not where
// they would be installed.
func relocateHeaders(dir string) error {
	makefiles, err := filepath.Glob(filepath.Join(dir, "usr/src/*/Makefile"))
	if err != nil {
		return err
	}
	moved := strings.NewReplacer("/usr/src/linux-", dir+"/usr/src/linux-", "/usr/lib/linux-", dir+"/usr/lib/linux-")
	for _, name := range makefiles {
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		if st, err := os.Lstat(name); err != nil || st.Mode()&fs.ModeSymlink != 0 || len(text) > 1<<12 {
			continue // the kernel's own, which names nothing
		}
		if err := os.WriteFile(name, []byte(moved.Replace(string(text))), 0o644); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}
