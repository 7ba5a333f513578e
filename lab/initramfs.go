package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

var (
	//go:embed rootfs/init
	initScript string
	//go:embed rootfs/inittab
	inittab string
	//go:embed rootfs/agent
	agentScript string
)

const (
	passwdFile = "root::0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
	groupFile  = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnogroup:x:65534:\n"
)

// writeInitramfs makes the initramfs of a busybox guest. It is not compressed: QEMU loads
// it from a file in no time, and a guest under TCG would need long to unpack it.
func writeInitramfs(ctx context.Context, path string, o Options, k Kernel) error {
	busybox, err := findBusybox(ctx)
	if err != nil {
		return err
	}
	return writeArchive(path, func(c *cpioWriter) error {
		for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/root", "/mnt", "/etc", "/var", "/usr/bin", "/usr/sbin", "/sbin", "/lib"} {
			c.dir(dir)
		}
		// The kernel opens these for the first process, before anything is mounted.
		c.char("/dev/console", 0o600, 5, 1)
		c.char("/dev/null", 0o666, 1, 3)
		c.hostFile("/bin/busybox", busybox)
		c.file("/init", 0o755, initScript)
		c.file("/sbin/outsight-agent", 0o755, agentScript)
		c.file("/etc/inittab", 0o644, inittab)
		c.file("/etc/passwd", 0o644, passwdFile)
		c.file("/etc/group", 0o644, groupFile)
		modules := o.Modules
		if o.KVMHost {
			modules = append(slices.Clone(kvmModules), modules...)
		}
		if err := addModules(c, k, modules); err != nil {
			return err
		}
		if o.KVMHost {
			if err := addQEMU(ctx, c); err != nil {
				return err
			}
		}
		return addFiles(c, o.Files)
	})
}

// addFiles puts the caller's files in, in a stable order.
func addFiles(c *cpioWriter, files map[string]string) error {
	for _, guest := range slices.Sorted(maps.Keys(files)) {
		if !filepath.IsAbs(guest) {
			return fmt.Errorf("lab: files: %q is not an absolute path in the guest", guest)
		}
		c.hostFile(guest, files[guest])
	}
	if c.err != nil {
		return fmt.Errorf("lab: files: %w", c.err)
	}
	return nil
}

func writeArchive(path string, fill func(*cpioWriter) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("lab: initramfs: %w", err)
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	c := newCPIOWriter(buf)
	if err := fill(c); err != nil {
		return err
	}
	err = c.close()
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("lab: initramfs: %w", err)
	}
	return nil
}

// findBusybox gives a busybox that needs no libraries: the installed one, or Debian's
// busybox-static from the cache or the network.
func findBusybox(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("busybox"); err == nil && isStatic(path) {
		return path, nil
	}
	dir, err := cacheDir("busybox")
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, "busybox")
	if isStatic(final) {
		return final, nil
	}
	a, err := openArchive(ctx, "bookworm")
	if err != nil {
		return "", err
	}
	defer a.close()
	if isStatic(final) {
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
	if err := a.unpack(ctx, tmp, "busybox-static"); err != nil {
		return "", err
	}
	for _, name := range []string{"bin/busybox", "usr/bin/busybox"} {
		if path := filepath.Join(tmp, name); isStatic(path) {
			return final, publish(path, final)
		}
	}
	return "", fmt.Errorf("lab: the package busybox-static has no static busybox")
}

// isStatic reports whether a program runs without a dynamic linker.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// fileHash names cached things after what they are made of.
func fileHash(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return fmt.Sprintf("%x", h.Sum(nil))[:16]
}
