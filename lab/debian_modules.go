package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Debian guest has the modules of its kernel on a second disk, where modprobe looks for them: one image for each kernel, made once and kept in the
// cache, which all guests read and none writes. The image of the userland knows no kernel.

// modulesDisk is the name of that disk in the guest's directory, and its serial number, by which init finds it.
const modulesDisk = "modules"

// linkModulesDisk puts the image of a kernel's modules into the guest's directory. Without depmod on this machine there is none.
func linkModulesDisk(ctx context.Context, o Options, k Kernel, guest string) error {
	depmod, err := exec.LookPath("depmod")
	if err != nil {
		depmod = "/usr/sbin/depmod" // not on a user's path
	}
	if _, err := os.Stat(depmod); err != nil || k.Modules == "" {
		if k.Modules != "" {
			fmt.Fprintln(o.Progress, "modprobe finds no modules in the guest: they need depmod on this machine (apt-get install kmod)")
		}
		return nil
	}
	image, err := modulesImage(ctx, k, depmod)
	if err != nil {
		return fmt.Errorf("lab: disk of the modules of %s: %w", k.Release, err)
	}
	if err := os.Symlink(image, filepath.Join(guest, modulesDisk)); err != nil {
		return fmt.Errorf("lab: disk of the modules of %s: %w", k.Release, err)
	}
	return nil
}

// modulesImage gives the cached image of a kernel's modules, making it first if need be.
func modulesImage(ctx context.Context, k Kernel, depmod string) (string, error) {
	dir, err := cacheDir("modules")
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, k.Release+"-"+fileHash(k.Release, k.Version, k.Modules)+".raw")
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
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	// Nobody writes to it, so it needs no journal and no room.
	const script = `set -e
mkdir -p root/lib/modules
cp -a "$MODULES" root/lib/modules/
rm -f root/lib/modules/"$RELEASE"/build root/lib/modules/"$RELEASE"/source
"$DEPMOD" -b root "$RELEASE"
size=$(du -sk root | cut -f1)
truncate --size $((size + size / 5 + 4096))K raw
mke2fs -q -t ext4 -O ^has_journal -m 0 -L modules -d root/lib/modules/"$RELEASE" raw`
	env := []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "MODULES=" + strings.TrimSuffix(k.Modules, "/"), "RELEASE=" + k.Release, "DEPMOD=" + depmod}
	command := asRoot("sh", "-c", script)
	if _, err := run(ctx, tmp, env, command[0], command[1:]...); err != nil {
		return "", err
	}
	return final, publish(filepath.Join(tmp, "raw"), final)
}
