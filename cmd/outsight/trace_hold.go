package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"

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
	if err := c.Run(); err != nil {
		warn(fmt.Errorf("%s(%s) of %s (%d) is not allowed (%w): the machine is paused; QMP's cont resumes it", e.Name, e.Args, e.Process.Comm, e.Process.PID, err))
		return tcg.Pause
	}
	return tcg.Allow
}
