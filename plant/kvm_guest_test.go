package plant_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuestKVM plants in a guest on real KVM, with shared and with private RAM.
func TestGuestKVM(t *testing.T) {
	labtest.NeedQEMU(t)
	if os.Getenv("OUTSIGHT_SLOW") == "" {
		t.Skip("takes minutes: set OUTSIGHT_SLOW")
	}
	command := filepath.Join(t.TempDir(), "outsight")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", command, "../cmd/outsight")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	tests := labtest.Binary(t)
	for _, private := range []bool{false, true} {
		n := labtest.Nested{Command: command, Run: "^TestInside$", Private: private, Guest: lab.Options{Kernel: "6.12"}, Patience: 15 * time.Minute}
		if !onKVM(t, n, tests) {
			t.Errorf("private RAM %v: nothing could be planted on KVM", private)
		}
	}
}

// onKVM tries again where the emulated processor lost a guest.
func onKVM(t *testing.T, n labtest.Nested, tests string) bool {
	t.Helper()
	for range 3 {
		out, err := n.Try(t, tests)
		if err == nil {
			t.Log(out)
			return true
		}
		t.Logf("another try, after %v: %s", err, out)
		if strings.Contains(out, "--- FAIL: TestInside") {
			return false
		}
	}
	return false
}

// TestInside is what TestGuestKVM runs inside its KVM host.
func TestInside(t *testing.T) {
	g := labtest.NestedGuest(t)
	plantIn(t, g)
	plantIn(t, g)
}
