package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInheritedFiles: a guest outlives the process that started it, and must not keep what
// that process had inherited.
func TestInheritedFiles(t *testing.T) {
	dir := t.TempDir()
	inherited, err := os.Create(filepath.Join(dir, "inherited"))
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	if _, err := unix.FcntlInt(inherited.Fd(), unix.F_SETFD, 0); err != nil { // as a shell leaves it
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	g := &Guest{Dir: dir}
	ended, err := g.start("/bin/sh", []string{"-c", "ls -l /proc/$$/fd"}, lock)
	if err != nil {
		t.Fatal(err)
	}
	<-ended
	out, err := os.ReadFile(filepath.Join(dir, "qemu.log"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), "/lock") || strings.Contains(string(out), "/inherited") {
		t.Errorf("the guest has\n%s", out)
	}
}
