package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bootTries is how often a guest is booted that hangs on its way.
const bootTries = 3

// errStuck says that a guest stopped on its way up.
var errStuck = errors.New("it hangs")

// boot starts QEMU and waits until the guest is up. An emulated guest of several
// processors hangs in its boot now and then, for no fault of its own (7.2 under TCG,
// when it changes its clocksource): then it is booted again.
func (g *Guest) boot(ctx context.Context, o Options, qemu string, lock *os.File) error {
	_, err := os.Lstat(filepath.Join(g.Dir, modulesDisk))
	modules := err == nil
	for try := 1; ; try++ {
		ended, err := g.start(qemu, qemuArgs(o, g.Kernel, o.Userland == Debian, modules), lock)
		if err != nil {
			return err
		}
		if err = g.await(ctx, o, ended); err == nil {
			return nil
		}
		_ = syscall.Kill(g.Process, syscall.SIGKILL) // not yet reaped, so it is still ours
		<-ended
		if try == bootTries || !errors.Is(err, errStuck) || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(o.Progress, "guest %s hangs in its boot, booting it again\n", g.Name)
		for _, socket := range []string{filepath.Join(g.Dir, "agent"), g.QMP()} {
			os.Remove(socket) // else the next try would be asked here
		}
	}
}

// watchBoot gives up when the guest's console has been silent for long.
func (g *Guest) watchBoot(ctx context.Context, o Options, giveUp context.CancelCauseFunc) {
	var size int64
	grown := time.Now()
	for tick := time.NewTicker(o.quiet / 40); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		if info, err := os.Stat(g.Console()); err == nil && info.Size() != size {
			size, grown = info.Size(), time.Now()
		}
		if silent := time.Since(grown); silent > o.quiet {
			giveUp(fmt.Errorf("%w: its console has been silent for %s", errStuck, silent.Round(time.Second)))
			return
		}
	}
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
	// What a shell has given us, such as a lock or a pipe, would be held for as long as the
	// guest runs. Kernels before 5.11 do not know the flag: then it is held.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
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
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	if !o.Firmware {
		go g.watchBoot(ctx, o, giveUp)
	}
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
		l, err := g.dialBooting(ctx)
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
