package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// MinimalConfig is the configuration, for [BuildKernel], of a kernel with as little in it as
// outsight can read: functions have names and variables none, and what
// distributions switch on (modules, namespaces, control groups, IPv6, NUMA …) is left out.
//
//go:embed minimal.config
var MinimalConfig string

// ErrNoBuildTools says that this machine cannot build a kernel.
var ErrNoBuildTools = errors.New("tools to build a kernel are not installed")

// buildTools are the programs and headers that building a kernel with BTF needs, each with
// Debian's package.
var buildTools = []struct{ program, header, pkg string }{
	{program: "make", pkg: "make"},
	{program: "gcc", pkg: "gcc"},
	{program: "flex", pkg: "flex"},
	{program: "bison", pkg: "bison"},
	{program: "bc", pkg: "bc"},
	{program: "pahole", pkg: "dwarves"},
	{program: "xz", pkg: "xz-utils"},
	{program: "perl", pkg: "perl"},
	{header: "/usr/include/libelf.h", pkg: "libelf-dev"},
	{header: "/usr/include/stdio.h", pkg: "libc6-dev"},
}

// CheckBuildTools reports what [BuildKernel] lacks on this machine, as an [ErrNoBuildTools].
func CheckBuildTools() error {
	var missing []string
	for _, t := range buildTools {
		_, err := os.Stat(t.header)
		if t.program != "" {
			_, err = exec.LookPath(t.program)
		}
		if err != nil {
			missing = append(missing, t.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("lab: %w: apt-get install %s", ErrNoBuildTools, strings.Join(missing, " "))
	}
	return nil
}

// BuildKernel gives a kernel that was built from Debian's linux-source of a series, which is
// the kernel's own tinyconfig with the lines of config on top. It comes from the cache where
// that configuration was built before; to build one takes minutes and 3 GiB there.
// A line of config that the kernel does not accept is an error.
func BuildKernel(ctx context.Context, series, config string, progress io.Writer) (Kernel, error) {
	if progress == nil {
		progress = io.Discard
	}
	of, flavour, ok := splitName(series)
	if !ok || flavour != "" {
		return Kernel{}, fmt.Errorf("lab: build: unknown series %q: give one such as %s", series, DefaultKernel)
	}
	dir, err := cacheDir("built")
	if err != nil {
		return Kernel{}, err
	}
	name := of + "-" + fileHash(config)
	if k, err := cachedKernel(dir, name); err == nil {
		return k, nil
	}
	if err := CheckBuildTools(); err != nil {
		return Kernel{}, err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, "."+name+".lock"))
	if err != nil {
		return Kernel{}, err
	}
	defer unlock()
	if k, err := cachedKernel(dir, name); err == nil {
		return k, nil // another process was quicker
	}
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		return Kernel{}, fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(tmp)
	k, tree, err := fetchSource(ctx, of, tmp, progress)
	if err != nil {
		return Kernel{}, err
	}
	k.Name = name
	if err := buildKernel(ctx, tree, config, progress); err != nil {
		return Kernel{}, fmt.Errorf("lab: build kernel %s: %w", k.Version, err)
	}
	release, err := os.ReadFile(filepath.Join(tree, "include/config/kernel.release"))
	if err != nil {
		return Kernel{}, fmt.Errorf("lab: build kernel %s: %w", k.Version, err)
	}
	k.Release = strings.TrimSpace(string(release))
	return keepBuilt(dir, tmp, tree, k)
}

// fetchSource unpacks the newest source of a series below tmp.
func fetchSource(ctx context.Context, of, tmp string, progress io.Writer) (k Kernel, tree string, err error) {
	releases := elsewhere
	for _, s := range series {
		if s.name == of {
			releases = append(slices.Clone(s.releases), elsewhere...)
		}
	}
	name := "linux-source-" + of
	var failed []error
	for _, release := range releases {
		a, err := openArchive(ctx, release)
		if err != nil {
			return k, "", err
		}
		source, err := a.fetchPackage(ctx, tmp, name, progress)
		a.close()
		if errors.Is(err, errNoKernel) {
			continue
		}
		if err != nil {
			failed = append(failed, err)
			continue
		}
		archive := filepath.Join(tmp, "usr/src", name+".tar.xz")
		if _, err := run(ctx, tmp, nil, "tar", "-xf", archive); err != nil {
			return k, "", fmt.Errorf("lab: unpack %s: %w", name, err)
		}
		return Kernel{Version: source.version, Suite: release}, filepath.Join(tmp, name), nil
	}
	return k, "", errors.Join(append(failed, fmt.Errorf("lab: Debian has no package %s", name))...)
}

// fetchPackage unpacks a package of the archive into root.
func (a *archive) fetchPackage(ctx context.Context, root, name string, progress io.Writer) (pkg, error) {
	if err := a.update(ctx); err != nil {
		return pkg{}, err
	}
	found, err := a.find(ctx, name, func(n string) bool { return n == name })
	if err != nil {
		return pkg{}, err
	}
	if len(found) == 0 {
		return pkg{}, errNoKernel
	}
	fmt.Fprintf(progress, "fetching %s %s\n", name, found[0].version)
	return found[0], a.unpack(ctx, root, name)
}

// buildKernel builds tree's bzImage.
func buildKernel(ctx context.Context, tree, config string, progress io.Writer) error {
	fragment := ""
	for _, part := range []string{"kernel/configs/tiny-base.config", "kernel/configs/tiny.config"} {
		text, err := os.ReadFile(filepath.Join(tree, part))
		if err != nil {
			return err
		}
		fragment += string(text)
	}
	if err := os.WriteFile(filepath.Join(tree, "outsight.config"), []byte(fragment+config), 0o644); err != nil {
		return err
	}
	env := []string{"LC_ALL=C", "KCONFIG_ALLCONFIG=outsight.config", "KBUILD_BUILD_USER=outsight", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=1970-01-01"}
	if _, err := run(ctx, tree, env, "make", "-s", "allnoconfig"); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	if lost := unaccepted(config, string(got)); len(lost) > 0 {
		return fmt.Errorf("its configuration does not accept %s", strings.Join(lost, ", "))
	}
	fmt.Fprintln(progress, "building it")
	_, err = run(ctx, tree, env, "nice", "make", "-s", "-j"+strconv.Itoa(runtime.NumCPU()), "bzImage")
	return err
}

// unaccepted are the lines of config that are not so in got, the whole configuration.
func unaccepted(config, got string) (lost []string) {
	set := map[string]string{}
	for line := range strings.Lines(got) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && strings.HasPrefix(name, "CONFIG_") {
			set[name] = value
		}
	}
	for line := range strings.Lines(config) {
		line = strings.TrimSpace(line)
		if off, ok := strings.CutSuffix(line, " is not set"); ok {
			if name := strings.TrimPrefix(off, "# "); set[name] != "" {
				lost = append(lost, line)
			}
			continue
		}
		if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, "CONFIG_") && set[name] != value {
			lost = append(lost, line)
		}
	}
	return lost
}

// keepBuilt keeps what was built in the cache, as dir/NAME.
func keepBuilt(dir, tmp, tree string, k Kernel) (Kernel, error) {
	made := filepath.Join(tmp, "made")
	if err := os.Mkdir(made, 0o755); err != nil {
		return Kernel{}, fmt.Errorf("lab: %w", err)
	}
	for from, to := range map[string]string{"arch/x86/boot/bzImage": "vmlinuz", ".config": "config", "System.map": "System.map"} {
		if err := os.Rename(filepath.Join(tree, from), filepath.Join(made, to)); err != nil {
			return Kernel{}, fmt.Errorf("lab: %w", err)
		}
	}
	if err := writeKernelFile(made, k); err != nil {
		return Kernel{}, err
	}
	if err := publish(made, filepath.Join(dir, k.Name)); err != nil {
		return Kernel{}, err
	}
	return cachedKernel(dir, k.Name)
}
