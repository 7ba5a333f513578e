package lab

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A guest that never gets anywhere is booted again, and then given up.
func TestGuestHungBoot(t *testing.T) {
	if _, err := exec.LookPath(qemuProgram); err != nil || testing.Short() {
		t.Skip("needs QEMU")
	}
	t.Setenv("OUTSIGHT_LAB_STATE", t.TempDir())
	var said bytes.Buffer
	_, err := Up(t.Context(), Options{Memory: 256 << 20, QEMUArgs: []string{"-S"}, Progress: &said, quiet: 400 * time.Millisecond})
	if !errors.Is(err, errStuck) {
		t.Errorf("error %v", err)
	}
	if n := strings.Count(said.String(), "booting it again"); n != bootTries-1 {
		t.Errorf("booted again %d times:\n%s", n, said.String())
	}
	if guests, err := List(); err != nil || len(guests) != 0 {
		t.Errorf("left behind: %v, %v", guests, err)
	}
}
