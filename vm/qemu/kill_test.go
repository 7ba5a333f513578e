package qemu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outsight-vmi/outsight/vm"
)

// pauser is set in a process that pauses the machine at the socket it names, again and
// again, until it is killed.
const pauser = "OUTSIGHT_TEST_PAUSER"

func TestMain(m *testing.M) {
	if path := os.Getenv(pauser); path != "" {
		fmt.Println(pauseForever(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func pauseForever(path string) error {
	m := newMonitor(path, 0, nil)
	for {
		resume, err := m.Pause(context.Background())
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

// killPauser starts a pauser, and kills it a while after its first pause.
func killPauser(t *testing.T, path string, after time.Duration) {
	t.Helper()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), pauser+"="+path)
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
	time.Sleep(after)
	_ = c.Process.Kill()
	_ = c.Wait()
}

// awaitRunning waits until nothing pauses the machine and its monitor is free.
func awaitRunning(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		m := newMonitor(path, 0, nil)
		s, err := m.State(t.Context())
		m.Close()
		if err == nil && s == vm.StateRunning {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the machine stays %q after its pauser was killed (%v)", s, err)
		}
	}
}

// TestPauserKilled kills a process that pauses a machine, at any moment.
func TestPauserKilled(t *testing.T) {
	times := 60
	if testing.Short() {
		times = 12
	}
	f := &fakeQMP{state: vm.StateRunning}
	path := f.serve(t).path
	paused := 0
	for n := range times {
		killPauser(t, path, time.Duration(n%2)*rand.N(100*time.Millisecond)) // at once: most likely in the pause
		f.mu.Lock()
		if f.state == vm.StatePaused {
			paused++
		}
		f.mu.Unlock()
		awaitRunning(t, path)
	}
	t.Logf("of %d that were killed, %d left the machine paused, for a moment", times, paused)
	if paused == 0 {
		t.Error("none was killed while the machine was paused")
	}
}

// TestGuardianLeavesOthers: what was not paused by the process that was killed is not
// resumed.
func TestGuardianLeavesOthers(t *testing.T) {
	for _, s := range []vm.State{vm.StateRunning, "postmigrate", "io-error"} {
		f := &fakeQMP{state: s}
		m := f.serve(t)
		if err := resumeGuarded(t.Context(), fmt.Appendf(nil, `{"Path": %q}`, m.path)); err != nil {
			t.Error(err)
		}
		f.check(t, s, "1:query-status", "2:query-status", "3:query-status")
	}
	// A machine that is gone needs nothing.
	if err := resumeGuarded(t.Context(), []byte(`{"Path": "/no/such/socket"}`)); err != nil {
		t.Error(err)
	}
	if err := resumeGuarded(t.Context(), []byte(`{"Path": "/", "PID": 4194999, "Started": 5}`)); err != nil {
		t.Error(err)
	}
}
