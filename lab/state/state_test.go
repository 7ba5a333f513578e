package state_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/lab/state"
)

func Example() {
	fmt.Println(state.ValidName("web-1"), state.ValidName("../web"))
	_, err := state.Target(context.Background(), "../web")
	fmt.Println(err)
	// Output:
	// true false
	// lab: invalid guest name "../web"
}

func TestTarget(t *testing.T) {
	root := t.TempDir()
	t.Setenv("OUTSIGHT_LAB_STATE", root)
	dir := filepath.Join(root, "web")
	says := func(want string) {
		t.Helper()
		got, err := state.Target(t.Context(), "web")
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	says("no guest web; running: none")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	says("still being started")
	if err := os.WriteFile(state.Record(dir), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	says("qemu:" + state.QMP(dir))
	lock.Close()
	says("has ended")
}
