package qemu_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/vm/qmp"
)

// TestGuestPauserKilled kills a process that pauses a real QEMU, at any moment.
func TestGuestPauserKilled(t *testing.T) {
	g := boot(t, "-m", "128")
	status := func() (s string) {
		for range 20 { // the guardian may have the seat
			c, err := qmp.Dial(t.Context(), g.socket)
			if err != nil {
				continue
			}
			var st struct{ Status string }
			err = c.Execute(t.Context(), "query-status", nil, &st)
			c.Close()
			if err == nil {
				return st.Status
			}
		}
		return "unknown"
	}
	times, left := 100, 0
	for range times {
		c := exec.Command("/proc/self/exe")
		c.Env = append(os.Environ(), "OUTSIGHT_TEST_PAUSER="+g.socket)
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
		s := status()
		if s == "paused" {
			left++
		}
		for end := time.Now().Add(10 * time.Second); s != "running"; s = status() {
			if time.Now().After(end) {
				t.Fatalf("it stays %s after its pauser was killed", s)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	t.Logf("of %d that were killed, %d left the machine paused when next looked at", times, left)
}
