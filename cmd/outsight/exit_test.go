package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/outsight-vmi/outsight/guest"
)

func TestConclude(t *testing.T) {
	pipe := &bodyError{fmt.Errorf("write the output: %w", syscall.EPIPE)}
	for _, c := range []struct {
		err    error
		status int
		says   string
	}{
		{nil, exitDone, ""},
		{errFound, exitFound, ""},
		{&bodyError{context.Canceled}, exitInterrupted, "interrupted"},
		{pipe, exitPipe, ""},
		{&bodyError{errors.Join(context.Canceled, guest.ErrStillPaused)}, exitTarget, "still be paused"},
		{&bodyError{errors.Join(pipe, guest.ErrStillPaused)}, exitTarget, "still be paused"},
	} {
		var b strings.Builder
		if got := conclude(c.err, &b); got != c.status || !strings.Contains(b.String(), c.says) || (c.says == "") != (b.Len() == 0) {
			t.Errorf("%v: status %d, said %q", c.err, got, b.String())
		}
	}
}

// TestBrokenPipe: when the reader of the output is gone, the command exits silently and
// normally, so that what it holds is released.
func TestBrokenPipe(t *testing.T) {
	self, err := exec.LookPath("outsight") // made by testscript.Main
	if err != nil {
		t.Skip("testscript has put no outsight on the path")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	var stderr strings.Builder
	cmd := exec.Command(self, "vms")
	cmd.Stdout, cmd.Stderr = w, &stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != exitPipe || stderr.Len() != 0 {
		t.Errorf("%v, %q", err, stderr.String())
	}
}
