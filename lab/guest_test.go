package lab

import (
	"os"
	"os/exec"
	"testing"
)

// TestDownOfAnother: a guest that has ended is ended without a word, though another has its
// name, and so its folder, by now.
func TestDownOfAnother(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	mine := &Guest{Name: "one", Dir: dir, Process: ended.Process.Pid}
	if !mine.Running() {
		t.Fatal("nobody holds the folder")
	}
	for _, recorded := range []bool{false, true} { // it is still being started, or runs
		if recorded {
			if err := (&Guest{Name: "one", Dir: dir, Process: os.Getpid()}).save(); err != nil {
				t.Fatal(err)
			}
		}
		if err := mine.Down(); err != nil {
			t.Errorf("recorded %v: %v", recorded, err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("recorded %v: the other's folder: %v", recorded, err)
		}
	}
}
