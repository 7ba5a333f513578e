package proc_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm/proc"
)

func TestHandle(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	p, err := proc.Get(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	h, err := proc.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if !h.Alive() {
		t.Fatal("a process that runs is not alive")
	}
	other := p
	other.Started++
	if _, err := proc.Open(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another process of that number: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		h.Wait()
		close(ended)
	}()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select { // before anybody reaps it
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("its end went unnoticed")
	}
	if h.Alive() {
		t.Error("a zombie is alive")
	}
	_ = cmd.Wait()
	if _, err := proc.Open(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a process that has ended: %v", err)
	}
}

// TestHandleClosed: closing ends Wait.
func TestHandleClosed(t *testing.T) {
	p, err := proc.Get(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	h, err := proc.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		h.Wait()
		close(done)
	}()
	time.Sleep(time.Millisecond)
	h.Close()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("still waiting")
	}
}
