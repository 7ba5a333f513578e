package microvm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// pauser is set in a process that pauses the process whose pid it is, until it is killed.
const pauser = "OUTSIGHT_TEST_PAUSER"

func TestMain(m *testing.M) {
	if s := os.Getenv(pauser); s != "" {
		fmt.Println(pauseForever(s))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func pauseForever(s string) error {
	pid, err := strconv.Atoi(s)
	if err != nil {
		return err
	}
	p, err := proc.Get(pid)
	if err != nil {
		return err
	}
	c := &control{p: p}
	for {
		resume, err := c.Pause(context.Background())
		if err != nil {
			return err
		}
		fmt.Println("paused")
		time.Sleep(rand.N(30 * time.Millisecond))
		if err := resume(context.Background()); err != nil {
			return err
		}
	}
}

// TestPauserKilled kills a process that stops a monitor by a signal, at any moment.
func TestPauserKilled(t *testing.T) {
	monitor := exec.Command("sleep", "600")
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = monitor.Process.Kill(); _ = monitor.Wait() }()
	left := 0
	for n := range 12 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", pauser, monitor.Process.Pid))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var said string
		if _, err := fmt.Fscanln(out, &said); err != nil || said != "paused" {
			t.Fatalf("%q, %v", said, err)
		}
		if n%2 > 0 { // else it is most likely killed in the pause
			time.Sleep(rand.N(100 * time.Millisecond))
		}
		_ = c.Process.Kill()
		_ = c.Wait()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			stopped, err := proc.Stopped(monitor.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			if !stopped {
				break
			}
			left++
			if time.Now().After(end) {
				t.Fatal("it stays stopped after its pauser was killed")
			}
		}
	}
	if left == 0 {
		t.Error("none was killed while it had stopped the monitor")
	}
}
