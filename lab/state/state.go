// Package state is where the running guests of the lab (package lab) are found: one
// directory a guest, locked for as long as its QEMU lives.
//
// It is a package of its own so that a TARGET lab:NAME is known wherever targets are
// opened, without what it takes to boot guests.
package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is the directory of all guests, which is made: a short path, because a unix
// socket's path has at most 107 bytes, and one that a reboot empties.
func Dir() (string, error) {
	dir, err := path()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("lab: cannot make the directory of guests (%w): set OUTSIGHT_LAB_STATE", err)
	}
	// In a shared /tmp somebody else may have been there first.
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("lab: directory of guests: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Getuid() {
		return "", fmt.Errorf("lab: %s is not a directory of yours: set OUTSIGHT_LAB_STATE to one", dir)
	}
	return dir, nil
}

func path() (string, error) {
	dir := os.Getenv("OUTSIGHT_LAB_STATE")
	if dir == "" {
		if run := os.Getenv("XDG_RUNTIME_DIR"); run != "" {
			dir = filepath.Join(run, "outsight-lab")
		} else {
			dir = filepath.Join(os.TempDir(), fmt.Sprintf("outsight-lab-%d", os.Getuid()))
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("lab: state directory: %w", err)
	}
	return dir, nil
}

// ValidName reports whether a guest can be called name.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 40
}

// Held reports whether a QEMU, or somebody who starts one, owns the directory of a guest.
func Held(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// QMP is the path of a guest's QMP socket, in the guest's directory.
func QMP(dir string) string { return filepath.Join(dir, "qmp") }

// Record is the file that describes a guest, in the guest's directory. It is written when
// the guest has been started.
func Record(dir string) string { return filepath.Join(dir, "guest.json") }

// Target is the target behind lab:NAME. It is a resolver of package vm.
func Target(_ context.Context, name string) (string, error) {
	if !ValidName(name) {
		return "", fmt.Errorf("lab: invalid guest name %q", name)
	}
	root, err := path()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	held := Held(dir)
	_, err = os.Stat(Record(dir))
	switch {
	case held && err == nil:
		return "qemu:" + QMP(dir), nil
	case held:
		return "", fmt.Errorf("lab: guest %s is still being started", name)
	case err == nil:
		return "", fmt.Errorf("lab: guest %s has ended; what it said last is in %s", name, filepath.Join(dir, "console.log"))
	}
	return "", fmt.Errorf("lab: no guest %s; running: %s", name, names(root))
}

// names are the guests that run, for a sentence.
func names(root string) string {
	entries, _ := os.ReadDir(root)
	var names []string
	for _, e := range entries {
		if Held(filepath.Join(root, e.Name())) {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
