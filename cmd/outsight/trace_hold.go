package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys/acquire"
	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// decide asks the user's command about a call that is held. What it writes goes to standard error.
func (f *traceFlags) decide(ctx context.Context, e *trace.Event) tcg.Decision {
	var in bytes.Buffer
	row := make(table.Row, len(trace.Columns))
	trace.Fill(row, e, nil)
	enc, err := table.NewEncoder(&in, table.JSON, trace.Documented(), table.Options{})
	if err == nil {
		if err = enc.Row(row); err == nil {
			err = enc.Close()
		}
	}
	if err != nil {
		warn(fmt.Errorf("--hold-exec: %w: the call is done", err))
		return tcg.Allow
	}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", f.hold)
	c.Stdin, c.Stdout, c.Stderr = &in, os.Stderr, os.Stderr
	err = c.Run()
	var status *exec.ExitError
	decided := errors.As(err, &status) && !neverRan(status.ExitCode())
	switch {
	case err == nil:
	case !decided:
		warn(fmt.Errorf("--hold-exec: the command decided nothing (%w): the call is done", err))
	case f.holdDumps != "" && status.ExitCode() == snapshotStatus:
		return tcg.Snapshot
	default:
		warn(fmt.Errorf("%s(%s) of %s (%d) is not allowed (%w): the machine is paused; virsh resume, or cont on its QMP socket, resumes it", e.Name, e.Args, e.Process.Comm, e.Process.PID, err))
		return tcg.Pause
	}
	return tcg.Allow
}

// neverRan reports whether a shell's exit status says that it could not run the command.
func neverRan(status int) bool {
	const cannotRun, notFound = 126, 127
	return status == cannotRun || status == notFound
}

// checkHold is an error if the user's command cannot be run: nothing should be held for that.
func (f *traceFlags) checkHold() error {
	word, _, _ := strings.Cut(strings.TrimSpace(f.hold), " ")
	if word == "" || strings.ContainsAny(word, "\"'`$&|;<>(){}[]*?!#~=\\\n\t") {
		return nil // the shell's own business
	}
	if exec.Command("/bin/sh", "-c", `command -v -- "$1"`, "sh", word).Run() != nil {
		return usagef("--hold-exec: %s cannot be run: not found, or not executable", word)
	}
	return nil
}

// snapshotStatus is the exit status with which the user's command asks for a dump.
const snapshotStatus = 10

// snapshots writes dumps of a guest that is paused in front of a call. One that fails is a warning: the guest goes on.
func (f *traceFlags) snapshots(g *guest.Guest) func(context.Context, *trace.Event) error {
	return func(ctx context.Context, e *trace.Event) error {
		path := filepath.Join(f.holdDumps, fmt.Sprintf("%s-%d-%s.elf", e.Time.UTC().Format("20060102T150405.000000Z"), e.TID, e.Name))
		if err := dumpPaused(ctx, g, path); err != nil {
			warn(fmt.Errorf("--hold-dumps: %w: the guest goes on without a dump", err))
			return nil
		}
		fmt.Fprintf(os.Stderr, "outsight: dumped the guest to %s, in front of %s(%s) of %s (%d)\n", path, e.Name, e.Args, e.Process.Comm, e.Process.PID)
		return nil
	}
}

func dumpPaused(ctx context.Context, g *guest.Guest, path string) error {
	l, err := g.Look(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	o := acquire.Options{Format: acquire.ELF, Checksum: acquire.NoChecksum, Vmcoreinfo: l.Linux.VmcoreinfoText(), CPUs: registers(ctx, g.Machine())}
	_, err = acquire.File(ctx, l.Linux.Memory, path, false, o)
	return err
}
