// Package guardian makes sure that a machine which was paused runs again, however the
// process that paused it ends.
//
// Before it pauses a machine, a process starts a guardian: a child that runs the same
// program, in a session of its own, and that holds one end of a pipe. When the pipe
// closes before [Guard.Done], because the process was killed, the guardian resumes the
// machine. It cannot help where it is killed too: by a SIGKILL to the whole cgroup or
// container, or by the end of the host.
//
// Drivers say with [Register] how their machines are resumed. Whoever else changes something of a machine for a while,
// as disk/live does, says so how that is taken back.
package guardian

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// variable is set in the environment of a guardian, to the kind of its recipe.
const variable = "OUTSIGHT_GUARDIAN"

// patienceStart bounds the start of a guardian.
const patienceStart = 10 * time.Second

// What goes over the pipe behind the recipe.
const (
	wordArmed = 'a' // the machine is about to be paused
	wordDone  = 'd' // it runs again, or never was paused
)

var kinds struct {
	sync.Mutex
	resume map[string]Resume
}

// Resume makes a machine run again that was paused as recipe says: only if it is in the
// state that the pause left it in. It tries until ctx ends.
type Resume func(ctx context.Context, recipe json.RawMessage) error

// Register sets how recipes of a kind are carried out. It must be called from an init
// function: in a guardian of that kind it does not return, so that the program's main
// never runs there.
func Register(kind string, resume Resume) {
	kinds.Lock()
	if kinds.resume == nil {
		kinds.resume = map[string]Resume{}
	}
	kinds.resume[kind] = resume
	kinds.Unlock()
	if role == kind {
		os.Exit(watch(resume))
	}
}

// Guard is a guardian that watches over this process.
type Guard struct {
	cmd  *exec.Cmd
	pipe *os.File
	once sync.Once
	err  error
}

// Start starts a guardian, which is ready when Start returns. recipe is given to the
// [Resume] of kind as JSON. The Guard must be ended by [Guard.Done] or [Guard.Abandon].
func Start(ctx context.Context, kind string, recipe any) (*Guard, error) {
	g, err := start(ctx, kind, recipe)
	if err != nil {
		return nil, fmt.Errorf("start a guardian, which resumes the machine if this process is killed: %w", err)
	}
	return g, nil
}

func start(ctx context.Context, kind string, recipe any) (*Guard, error) {
	kinds.Lock()
	known := kinds.resume[kind] != nil
	kinds.Unlock()
	if !known {
		return nil, fmt.Errorf("nothing is registered for %q", kind)
	}
	data, err := json.Marshal(recipe)
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecipe {
		return nil, errors.New("the recipe is too long")
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer ready.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), variable+"="+kind)
	cmd.ExtraFiles = []*os.File{theirs, readyEnd}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	readyEnd.Close()
	if err != nil {
		ours.Close()
		return nil, err
	}
	g := &Guard{cmd: cmd, pipe: ours}
	if err := g.prepare(ctx, data, ready); err != nil {
		_ = cmd.Process.Kill()
		g.end()
		return nil, err
	}
	return g, nil
}

// prepare hands over the recipe and waits until the guardian has it.
func (g *Guard) prepare(ctx context.Context, recipe []byte, ready *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, patienceStart)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		_ = ready.SetDeadline(time.Unix(1, 0))
		_ = g.pipe.SetDeadline(time.Unix(1, 0))
	})()
	if _, err := g.pipe.Write(append(recipe, '\n')); err != nil {
		return err
	}
	var word [1]byte
	switch _, err := ready.Read(word[:]); {
	case ctx.Err() != nil:
		return fmt.Errorf("it did not become ready: %w", ctx.Err())
	case err != nil:
		return errors.New("it exited immediately")
	}
	return nil
}

// Arm must be called just before the machine is paused: the guardian does nothing
// before.
func (g *Guard) Arm() error {
	if _, err := g.pipe.Write([]byte{wordArmed}); err != nil {
		return fmt.Errorf("the guardian, which resumes the machine if this process is killed, has ended: %w", err)
	}
	return nil
}

// Done ends the guardian when the machine runs again.
func (g *Guard) Done() {
	_, _ = g.pipe.Write([]byte{wordDone})
	g.end()
}

// Abandon lets the guardian resume the machine, if it can, and waits until it has, or
// ctx ends.
func (g *Guard) Abandon(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		g.end()
		close(ended)
	}()
	select {
	case <-ended:
		return g.err
	case <-ctx.Done(): // it keeps trying
		return ctx.Err()
	}
}

func (g *Guard) end() {
	g.once.Do(func() {
		g.pipe.Close()
		g.err = g.cmd.Wait()
	})
}
