package proc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestWaitExit(t *testing.T) {
	c := exec.Command("sleep", "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := Get(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := WaitExit(ctx, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it runs: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- WaitExit(t.Context(), p) }()
	time.Sleep(20 * time.Millisecond)
	_ = c.Process.Kill()
	select {
	case err := <-done: // even before it is reaped
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("its end was not seen")
	}
	_ = c.Wait()
	if err := WaitExit(t.Context(), p); err != nil {
		t.Errorf("after its end: %v", err)
	}
	self, err := Get(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Started-- // the same pid, another process
	if err := WaitExit(t.Context(), self); err != nil {
		t.Errorf("pid given again: %v", err)
	}
}
