package libvirt

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

// pauser is set in a process that pauses a domain again and again, until it is killed: to
// the socket of its daemon. pauserPID is the process of the domain.
const (
	pauser    = "OUTSIGHT_TEST_PAUSER"
	pauserPID = "OUTSIGHT_TEST_PAUSED"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(pauser); socket != "" {
		fmt.Println(pauseForever(socket))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func pauseForever(socket string) error {
	pid, err := strconv.Atoi(os.Getenv(pauserPID))
	if err != nil {
		return err
	}
	p, err := proc.Get(pid)
	if err != nil {
		return err
	}
	dom, err := New().lookUp(context.Background(), daemon{socket: socket}, fakeUUID, p)
	if err != nil {
		return err
	}
	for {
		resume, err := dom.Pause(context.Background())
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

// TestPauserKilled kills a process that suspends a domain, at any moment.
func TestPauserKilled(t *testing.T) {
	f := startFake(t, "web")
	left := 0
	for range 12 {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), pauser+"="+f.at.socket, fmt.Sprintf("%s=%d", pauserPID, os.Getpid()))
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
		time.Sleep(rand.N(100 * time.Millisecond))
		_ = c.Process.Kill()
		_ = c.Wait()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var state uint32
			f.set(func() { state = f.state })
			if state == 1 {
				break
			}
			left++
			if time.Now().After(end) {
				t.Fatal("it stays suspended after its pauser was killed")
			}
		}
	}
	if left == 0 {
		t.Error("none was killed while it had suspended the domain")
	}
}

// TestCloseResumes: a machine that is closed while it is paused runs again.
func TestCloseResumes(t *testing.T) {
	f := startFake(t, "web")
	dom := open(t, f)
	if _, err := dom.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := dom.Pause(t.Context()); err == nil {
		t.Error("paused twice")
	}
	if err := dom.Close(); err != nil || f.state != 1 {
		t.Errorf("state %d: %v", f.state, err)
	}
}
