package lab

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A Debian guest boots from a disk: one image for each set of packages, made once and kept in the cache, under an
// overlay of the guest's own. The kernel and the drivers of the disk come with the
// initramfs, so the same image serves every kernel; so do the agent and the caller's files.

// debianRelease is the release of the userland. systemd 257 of trixie runs from Linux 5.4.
const debianRelease = "trixie"

// debianPackages make a small server: something to look at.
var debianPackages = []string{
	"systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "openssh-server", "cron", "iproute2",
	"iputils-ping", "procps", "psmisc", "login", "bash", "python3-minimal", "busybox-static", "ca-certificates",
	"openssh-client", "libpam-systemd", "systemd-container", "nftables", "bpftool",
}

// diskModules are needed to mount the disk and reach the network; what a kernel has
// built in is left out. crc32c_generic was a separate module up to 6.12.
var diskModules = []string{"virtio_pci", "virtio_blk", "crc32c_generic", "crc32c_cryptoapi", "ext4", "virtio_net", "af_packet"}

// packageRE matches the names of packages (Debian Policy 5.6.7).
var packageRE = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`) })

const debianDiskSize = "4G" // sparse: what is not written takes no room

var (
	//go:embed rootfs/init-debian
	initDebian string
	//go:embed rootfs/agent.service
	agentService string
	//go:embed rootfs/wired.network
	wiredNetwork string
)

// writeDebianInitramfs makes the initramfs of a Debian guest.
func writeDebianInitramfs(ctx context.Context, path string, o Options, k Kernel) error {
	busybox, err := findBusybox(ctx)
	if err != nil {
		return err
	}
	return writeArchive(path, func(c *cpioWriter) error {
		for _, dir := range []string{"/dev", "/proc", "/sys", "/root", "/usr/bin", "/usr/sbin", "/sbin"} {
			c.dir(dir)
		}
		c.char("/dev/console", 0o600, 5, 1)
		c.char("/dev/null", 0o666, 1, 3)
		c.hostFile("/bin/busybox", busybox)
		c.file("/init", 0o755, initDebian)
		if err := addModules(c, k, append(slices.Clone(diskModules), o.Modules...)); err != nil {
			return err
		}
		const units, wants = "/overlay/etc/systemd/system/", "/overlay/etc/systemd/system/multi-user.target.wants/"
		c.file("/overlay/usr/sbin/outsight-agent", 0o755, agentScript)
		c.file(units+"outsight-agent.service", 0o644, agentService)
		c.link(wants+"outsight-agent.service", "../outsight-agent.service")
		c.file("/overlay/etc/systemd/network/80-wired.network", 0o644, wiredNetwork)
		c.link(wants+"systemd-networkd.service", "/usr/lib/systemd/system/systemd-networkd.service")
		// What modprobe is asked for is loaded, and not what udev finds devices for: a guest has the modules that its user wanted.
		c.link("/overlay/etc/udev/rules.d/80-drivers.rules", "/dev/null")
		for _, timer := range []string{"apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "man-db.timer"} {
			c.link(units+timer, "/dev/null")
		}
		return addFiles(c, underOverlay(o.Files))
	})
}

// underOverlay moves the caller's files to where init copies to the disk from. In Debian,
// /bin, /sbin and /lib are links, which a copied directory must not replace.
func underOverlay(files map[string]string) map[string]string {
	moved := map[string]string{}
	for _, guest := range slices.Sorted(maps.Keys(files)) {
		path := guest
		if filepath.IsAbs(path) {
			path = filepath.Clean(path)
			for _, merged := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
				if strings.HasPrefix(path, merged) {
					path = "/usr" + path
				}
			}
			path = "/overlay" + path
		}
		moved[path] = files[guest]
	}
	return moved
}

// makeDisk makes the guest's disk: an overlay on the cached image.
func makeDisk(ctx context.Context, o Options, path string) error {
	base, err := debianImage(ctx, o)
	if err != nil {
		return err
	}
	if _, err := run(ctx, "", nil, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, path); err != nil {
		return fmt.Errorf("lab: disk: %w", err)
	}
	return nil
}

// debianImage gives the cached image with o.Packages, making it first if need be.
func debianImage(ctx context.Context, o Options) (string, error) {
	dir, err := cacheDir("debian")
	if err != nil {
		return "", err
	}
	packages := slices.Concat(debianPackages, slices.Sorted(slices.Values(o.Packages)))
	recipe := fileHash(append([]string{debianRelease, debianDiskSize}, packages...)...)
	final := filepath.Join(dir, debianRelease+"-"+recipe+".qcow2")
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
	fmt.Fprintf(o.Progress, "making a Debian %s userland (once; takes a minute or two)\n", debianRelease)
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		return "", fmt.Errorf("lab: %w", err)
	}
	defer os.RemoveAll(tmp)
	m, err := machineMirror()
	if err != nil {
		return "", err
	}
	u := userland{release: debianRelease, sources: m.main.deb822(debianRelease), packages: packages, options: []string{
		// A guest gets its own identity at its first boot, and root needs no password.
		"--customize-hook=: >\"$1/etc/machine-id\"", "--customize-hook=chroot \"$1\" passwd -d root",
	}}
	if err := u.bootstrap(ctx, tmp, o.Progress); err != nil {
		return "", err
	}
	fmt.Fprintln(o.Progress, "making a disk of it")
	image, err := diskImage(ctx, tmp)
	if err != nil {
		return "", err
	}
	return final, publish(image, final)
}

// A userland is what mmdebstrap makes.
type userland struct {
	release  string
	sources  string // of apt, in its .sources format
	packages []string
	options  []string // for mmdebstrap
}

// bootstrap makes root.tar in dir, and reports its steps. mmdebstrap needs no root where there are user namespaces.
func (u userland) bootstrap(ctx context.Context, dir string, progress io.Writer) error {
	sources := filepath.Join(dir, "debian.sources")
	if err := writeAtomic(sources, []byte(u.sources)); err != nil {
		return err
	}
	args := append([]string{
		"--verbose", "--variant=minbase", "--architectures=amd64", "--include=" + strings.Join(u.packages, ","),
		"--aptopt=Acquire::Check-Valid-Until \"false\"",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
		// Java's packages make links there, whether manuals are wanted or not.
		"--essential-hook=mkdir -p \"$1/usr/share/man/man1\"",
	}, u.options...)
	if _, err := runTelling(ctx, &bootstrapProgress{to: progress}, dir, []string{"LC_ALL=C"}, "mmdebstrap", append(args, u.release, filepath.Join(dir, "root.tar"), sources)...); err != nil {
		return fmt.Errorf("lab: make a Debian %s userland: %w", u.release, err)
	}
	return nil
}

// asRoot is a command that runs as root, in a user namespace where the user is not.
func asRoot(command ...string) []string {
	if os.Getuid() == 0 {
		return command
	}
	return append([]string{"unshare", "--map-root-user", "--map-auto"}, command...)
}

// diskImage makes a file system of root.tar. The files keep their owners: a user who is not
// root unpacks in a user namespace that has their ids (newuidmap, of package uidmap).
func diskImage(ctx context.Context, dir string) (string, error) {
	script := `set -e
mkdir root
tar --extract --file root.tar --directory root --numeric-owner --exclude './dev/*'
truncate --size ` + debianDiskSize + ` raw
mke2fs -q -t ext4 -L root -d root raw
rm -rf root root.tar`
	command := asRoot("sh", "-c", script)
	path := "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin" // mke2fs is not on a user's path
	if _, err := run(ctx, dir, []string{path}, command[0], command[1:]...); err != nil {
		return "", fmt.Errorf("lab: make a disk of the Debian userland: %w", err)
	}
	image := filepath.Join(dir, "disk.qcow2")
	if _, err := run(ctx, dir, nil, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", filepath.Join(dir, "raw"), image); err != nil {
		return "", fmt.Errorf("lab: disk image: %w", err)
	}
	return image, nil
}
