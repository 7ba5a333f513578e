package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// BuildModules builds kernel modules for a kernel of the lab, as dir/NAME.ko: sources are C
// files by name, and headers that they include. They are built in a Debian of the kernel's own
// release, with the compiler that its headers ask for, so any machine that can make a Debian
// userland can build for every kernel. The first time for a kernel takes minutes.
func BuildModules(ctx context.Context, kernel, dir string, sources map[string]string, progress io.Writer) error {
	if progress == nil {
		progress = io.Discard
	}
	k, err := FindKernel(ctx, kernel, progress)
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx, k, progress)
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
	// Mounts are made in a mount namespace, which ends with the shell. objtool of 7.2 reads the
	// limit of its stack in /proc.
	const script = `mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && mount --bind "$1" "$0/mnt" && exec nice chroot "$0" make -s -C "/lib/modules/$2/build" M=/mnt modules`
	command := []string{"--mount", "sh", "-c", script, root, dir, k.Release}
	if os.Getuid() != 0 {
		command = append([]string{"--map-root-user"}, command...)
	}
	env := []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if _, err := run(ctx, dir, env, "unshare", command...); err != nil {
		return fmt.Errorf("lab: build modules for kernel %s: %w", k.Release, err)
	}
	return nil
}

// moduleRoot gives the folder of the Debian in which modules for a kernel are built, and
// makes it the first time.
func moduleRoot(ctx context.Context, k Kernel, progress io.Writer) (string, error) {
	if k.Suite == "" {
		return "", fmt.Errorf("lab: kernel %s is not Debian's, so there are no headers for its modules: name a series such as %q", k.Name, DefaultKernel)
	}
	dir, err := cacheDir("toolchains")
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, k.Release)
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, ".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(final); err == nil {
		return final, nil
	}
	fmt.Fprintf(progress, "making a Debian %s to build modules for %s in (once; takes a minute or two)\n", k.Suite, k.Release)
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(tmp)
	m, err := machineMirror()
	if err != nil {
		return "", err
	}
	release, _, _ := strings.Cut(k.Suite, "-") // "bookworm" of "bookworm-backports"
	u := userland{release: release, sources: m.allOf(release), packages: []string{"make", "linux-headers-" + k.Release}}
	if release != k.Suite {
		u.sources += "\n" + m.main.deb822(k.Suite)
	}
	if err := u.bootstrap(ctx, tmp, progress); err != nil {
		if u.sources == m.main.deb822(release) {
			return "", err
		}
		// An old release's security suite may be gone from this mirror.
		u.sources = m.main.deb822(release)
		if again := u.bootstrap(ctx, tmp, progress); again != nil {
			return "", errors.Join(err, again)
		}
	}
	root := filepath.Join(tmp, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	// The user's own files, whoever that is: so nothing but the user is needed to remove them.
	if _, err := run(ctx, tmp, nil, "tar", "--extract", "--file", "root.tar", "--directory", root, "--no-same-owner", "--exclude", "./dev/*"); err != nil {
		return "", fmt.Errorf("lab: unpack a Debian userland: %w", err)
	}
	return final, publish(root, final)
}
