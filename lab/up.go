package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Up boots a guest and returns when its agent answers (at once for a guest that stays in
// its firmware). The guest goes on after the calling process has ended; Down ends it. If
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
		Accel: o.Accel, Private: o.Private, Firmware: o.Firmware, Started: time.Now(),
	}
	if err := g.prepare(ctx, o); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	ended, err := g.start(qemu, qemuArgs(o, g.Kernel, o.Userland == Debian), lock)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	if err := g.await(ctx, o, ended); err != nil {
		_ = g.kill() // err matters more
		os.RemoveAll(dir)
		return nil, err
	}
	if err := g.save(); err != nil {
		_ = g.kill() // err matters more
		return nil, err
	}
	return g, nil
}

// ErrNoQEMU says that there is no QEMU on this machine.
var ErrNoQEMU = errors.New("QEMU is not installed")

// claim takes a name and makes its directory, with a lock held.
func claim(o *Options) (dir string, lock *os.File, err error) {
	root, err := stateDir()
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
	// The directory may have been removed, and made anew, since we opened the file.
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
	if o.Userland == Debian {
		if err := makeDisk(ctx, o, filepath.Join(g.Dir, "disk.qcow2")); err != nil {
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

// start runs QEMU in a session of its own, so that it outlives us and no key press ends it.
func (g *Guest) start(qemu string, args []string, lock *os.File) (ended <-chan struct{}, err error) {
	log, err := os.Create(filepath.Join(g.Dir, "qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(qemu, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = g.Dir, log, log
	cmd.ExtraFiles = []*os.File{lock} // held for as long as QEMU lives
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: start QEMU: %w", err)
	}
	g.Process = cmd.Process.Pid
	end := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its log says why it ended
		close(end)
	}()
	return end, nil
}

// await returns when the guest is up: its agent answers, or, for one in its firmware,
// QEMU has opened its QMP socket.
func (g *Guest) await(ctx context.Context, o Options, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime(o))
	defer cancel()
	up := make(chan error, 1)
	socket := filepath.Join(g.Dir, "agent")
	if o.Firmware {
		socket = g.QMP()
	}
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(socket); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if o.Firmware {
			up <- ctx.Err()
			return
		}
		fmt.Fprintf(o.Progress, "booting %s\n", g.Kernel.title())
		l, err := g.dialAgent()
		if err == nil {
			defer l.conn.Close()
			defer l.follow(ctx)()
			if err = l.hello(bootTime(o)); err == nil {
				err = l.sync(answerTime)
			}
		}
		up <- err
	}()
	select {
	case err := <-up:
		if err == nil {
			return nil
		}
		select {
		case <-ended: // a QEMU that gives up closes the line first
			return fmt.Errorf("lab: QEMU ended before guest %s was up: %s", g.Name, g.lastWords())
		case <-time.After(3 * time.Second):
		}
		if ctx.Err() == nil && g.Running() {
			return fmt.Errorf("lab: agent of guest %s: %w", g.Name, err)
		}
	case <-ended:
		return fmt.Errorf("lab: QEMU ended before guest %s was up: %s", g.Name, g.lastWords())
	case <-ctx.Done():
	}
	if !g.Running() {
		return fmt.Errorf("lab: QEMU ended before guest %s was up: %s", g.Name, g.lastWords())
	}
	return fmt.Errorf("lab: guest %s did not come up (%w); its console ends: %s", g.Name, context.Cause(ctx), tail(g.Console()))
}

// bootTime is when a boot counts as failed.
func bootTime(o Options) time.Duration {
	if o.Userland == Debian || o.KVMHost {
		return 10 * time.Minute
	}
	return 3 * time.Minute
}

func (k Kernel) title() string {
	if k.Release != "" {
		return k.Release
	}
	return k.Name
}
