package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab/state"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// Twin starts a second QEMU with the machine of a guest, which waits until that guest's state comes in from a URI of QEMU's (-incoming): "unix:/path",
// to where the guest then migrates, or "file:/path" with what it has saved. A Debian guest cannot be in two QEMUs: it has a disk.
func (g *Guest) Twin(ctx context.Context, name, incoming string) (*Guest, error) {
	if g.Userland != Busybox || g.Firmware {
		return nil, invalidf("lab: guest %s has no twin: only a guest without a disk of its own has", g.Name)
	}
	if !state.ValidName(name) {
		return nil, invalidf("lab: invalid guest name %q: use up to 40 letters, digits, dots and dashes", name)
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(g.Process) + "/cmdline")
	if err != nil {
		return nil, fmt.Errorf("lab: command line of guest %s: %w", g.Name, err)
	}
	var args []string
	for _, a := range bytes.Split(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		switch s := string(a); s {
		case "guest=" + g.Name:
			args = append(args, "guest="+name)
		default:
			args = append(args, s)
		}
	}
	root, err := state.Dir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, name)
	lock, err := take(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: a guest %s is running already: %w", name, err)
	}
	defer lock.Close() // QEMU keeps its own copy
	twin := *g
	twin.Name, twin.Dir, twin.Started = name, dir, time.Now()
	if err := twin.startTwin(ctx, g, append(args, "-incoming", "defer"), lock); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	// What is asked for by QMP has begun to listen when that answers.
	q, err := qmp.Dial(ctx, twin.QMP())
	for began := time.Now(); errors.Is(err, qmp.ErrStale) && time.Since(began) < answerTime; q, err = qmp.Dial(ctx, twin.QMP()) {
		time.Sleep(5 * time.Millisecond) // QEMU has made the socket, and does not listen there yet
	}
	if err == nil {
		err = errors.Join(q.Execute(ctx, "migrate-incoming", map[string]any{"uri": incoming}, nil), q.Close())
	}
	if err != nil {
		_ = twin.kill() // err matters more
		os.RemoveAll(dir)
		return nil, fmt.Errorf("lab: have the state of guest %s come in from %s: %w", g.Name, incoming, err)
	}
	if err := twin.save(); err != nil {
		_ = twin.kill() // err matters more
		return nil, err
	}
	return &twin, nil
}

func (g *Guest) startTwin(ctx context.Context, of *Guest, args []string, lock *os.File) error {
	for _, file := range []string{"initrd", modulesDisk} { // it is started in its own directory
		if path := filepath.Join(of.Dir, file); exists(path) {
			if err := os.Symlink(path, filepath.Join(g.Dir, file)); err != nil {
				return fmt.Errorf("lab: %w", err)
			}
		}
	}
	ended, err := g.start(args[0], args[1:], lock)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for !exists(g.QMP()) {
		select {
		case <-ended:
			return fmt.Errorf("lab: QEMU ended before guest %s could come in: %s", g.Name, g.lastWords())
		case <-ctx.Done():
			_ = unix.Kill(g.Process, unix.SIGKILL)
			<-ended
			return fmt.Errorf("lab: QEMU of guest %s opens no socket: %w", g.Name, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
