package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab/state"
)

// Up boots a guest and returns when its agent answers (at once for a guest that stays in
// its firmware). The guest keeps running after the calling process has ended; Down stops it. If
// ctx ends before the guest is up, the guest is taken down.
func Up(ctx context.Context, o Options) (*Guest, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	qemu, err := exec.LookPath(qemuProgram)
	if err != nil {
		return nil, fmt.Errorf("lab: %w: apt-get install %s", ErrNoQEMU, packageOf(qemuProgram))
	}
	dir, lock, err := claim(&o)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // QEMU keeps its own copy
	g := &Guest{
		Name: o.Name, Dir: dir, Userland: o.Userland, Memory: o.Memory, SMP: o.SMP,
		Accel: o.Accel, Private: o.Private, Firmware: o.Firmware,
	}
	if err := g.prepare(ctx, o); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	g.Started = time.Now() // a kernel or an image may have had to be made first
	if err := g.boot(ctx, o, qemu, lock); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := g.save(); err != nil {
		_ = g.kill() // err matters more
		return nil, err
	}
	return g, nil
}

// ErrNoQEMU says that QEMU is not installed on this machine.
var ErrNoQEMU = errors.New("QEMU is not installed")

// claim takes a name and makes its directory, with a lock held.
func claim(o *Options) (dir string, lock *os.File, err error) {
	root, err := state.Dir()
	if err != nil {
		return "", nil, err
	}
	base := o.baseName()
	for n := 1; ; n++ {
		name := o.Name
		if name == "" {
			name = base
			if n > 1 {
				name = fmt.Sprintf("%s-%d", base, n)
			}
		}
		dir := filepath.Join(root, name)
		if sock := filepath.Join(dir, "agent"); len(sock) > 107 {
			return "", nil, fmt.Errorf("lab: %s is too long for a unix socket (107 bytes): set OUTSIGHT_LAB_STATE to a shorter directory", sock)
		}
		lock, err := take(dir)
		if err == nil {
			o.Name = name
			return dir, lock, nil
		}
		if !errors.Is(err, errTaken) {
			return "", nil, err
		}
		if o.Name != "" {
			return "", nil, fmt.Errorf("lab: a guest %s is running already: end it (lab down %s) or take another name", name, name)
		}
	}
}

var errTaken = errors.New("taken")

// take makes and locks a guest's directory. What a former guest of that name left is
// removed.
func take(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	f, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
	return f, nil
}

// lockDir takes the lock that a guest's QEMU holds while it lives.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errTaken // the directory has just been removed
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	// Whoever only looks whether the guest lives holds the lock for a moment.
	for try := 0; ; try++ {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || try == 5 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		return nil, errTaken
	}
	// The directory may have been removed, and created again, since we opened the file.
	ours, err1 := f.Stat()
	now, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(ours, now) {
		f.Close()
		return nil, errTaken
	}
	return f, nil
}

// prepare finds or makes the kernel, the initramfs and the disk.
func (g *Guest) prepare(ctx context.Context, o Options) (err error) {
	if o.Firmware {
		return nil
	}
	if g.Kernel, err = FindKernel(ctx, o.Kernel, o.Progress); err != nil {
		return err
	}
	if absent := absentModules(g.Kernel, o.Modules); len(absent) > 0 {
		fmt.Fprintf(o.Progress, "kernel %s has no module %s\n", g.Kernel.Release, strings.Join(absent, ", "))
	}
	if o.Userland == Debian {
		if err := makeDisk(ctx, o, filepath.Join(g.Dir, "disk.qcow2")); err != nil {
			return err
		}
		if err := linkModulesDisk(ctx, o, g.Kernel, g.Dir); err != nil {
			return err
		}
	}
	initrd := filepath.Join(g.Dir, "initrd")
	if o.Initrd == "" {
		write := writeInitramfs
		if o.Userland == Debian {
			write = writeDebianInitramfs
		}
		return write(ctx, initrd, o, g.Kernel)
	}
	path, err := filepath.Abs(o.Initrd)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err == nil {
		err = os.Symlink(path, initrd)
	}
	if err != nil {
		return fmt.Errorf("lab: initrd: %w", err)
	}
	return nil
}
