package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table/text"
)

// The exit statuses. Other programs depend on them.
const (
	exitDone        = 0
	exitFound       = 1 // done, and something was found
	exitUsage       = 2 // usage error: the command line is invalid
	exitTarget      = 3 // the target cannot be opened or read
	exitInterrupted = 130
	exitPipe        = 141 // the reader of the output is gone, as after SIGPIPE
)

// errFound is returned by a command that did its work and found something.
var errFound = errors.New("something was found")

// bodyError marks an error from the work of a command. All others that cobra
// returns are about the command line.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// usageError is an error in the command line that only the work finds out.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef makes an error that ends in exit status 2.
func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// markBodies makes every command below c wrap the errors of its work.
func markBodies(c *cobra.Command) {
	if work := c.RunE; work != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			// Memory that is mapped faults if its file shrinks meanwhile.
			if err := phys.Guard(func() error { return work(c, args) }); err != nil {
				// Once interrupted, whatever else failed did so for that.
				return &bodyError{errors.Join(err, c.Context().Err())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		markBodies(sub)
	}
}

// conclude is the one place where errors become exit statuses. It prints the one
// sentence that says what went wrong. An error with an ExitStatus method decides
// for itself, in silence: lab exec hands on the status of the guest's command.
func conclude(err error, stderr io.Writer) int {
	var own interface{ ExitStatus() int }
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, guest.ErrStillPaused):
		// Whatever else happened, this must be said.
	case errors.Is(err, errFound):
		return exitFound
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "outsight: interrupted")
		return exitInterrupted
	case errors.Is(err, syscall.EPIPE):
		return exitPipe
	case errors.As(err, &own):
		return own.ExitStatus()
	}
	fmt.Fprintln(stderr, "outsight: "+sentence(err.Error()))
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[*bodyError](err); ok {
		return exitTarget
	}
	return exitUsage
}

// sentence puts a message on one line, and makes guest text in it harmless.
func sentence(s string) string {
	return text.Visible(strings.Join(strings.Fields(s), " "))
}
