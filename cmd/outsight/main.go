// Outsight sees into virtual machines from outside: it reads the memory
// of a running Linux guest from its host and shows what is in it, with nothing
// in the guest and nothing prepared.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command, for main and for the tests.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	defer stop()
	// The first Ctrl-C ends the work in an orderly way; give a later one its
	// ordinary meaning, for the case that this takes too long. Not at once: when
	// a terminal closes, SIGHUP comes twice, and a paused guest must go on first.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	// Notified of SIGPIPE, Go does not die of it when the reader of the output
	// has gone: the write fails instead, and what was opened is closed.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	// A run is short and its memory small: collecting late saves time.
	debug.SetGCPercent(800)
	root := newRootCommand(args...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return conclude(root.ExecuteContext(ctx), stderr)
}

// endings are the signals that ask for an end, but for those that the parent chose
// to ignore: nohup does.
func endings() []os.Signal {
	return slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}
