// Package plugin has outsight's plugin for QEMU, as the Makefile built it from plugin/qemu. That folder is C and under the
// GPL, as QEMU's interface asks; this package only carries the file.
package plugin

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed all:built
var built embed.FS

// ErrNotBuilt says that this binary carries no plugin.
var ErrNotBuilt = errors.New("this outsight was built without the plugin for QEMU: install gcc, and build it with make")

// FileName is what the plugin's file is called.
const FileName = "outsight-x86_64.so"

// Object is the plugin, a shared object for an amd64 host.
func Object() ([]byte, error) {
	b, err := built.ReadFile("built/" + FileName)
	if err != nil {
		return nil, ErrNotBuilt
	}
	return b, nil
}

// Install writes the plugin to path; "" is a file of its own in the user's data folder, where it stays from one run to
// the next. It returns where it is. A file that a QEMU has loaded is replaced, not written over.
func Install(path string) (string, error) {
	object, err := Object()
	if err != nil {
		return "", err
	}
	if path == "" {
		if path, err = DefaultPath(); err != nil {
			return "", err
		}
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(object) {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("install the plugin: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".outsight-*.so")
	if err != nil {
		return "", fmt.Errorf("install the plugin: %w", err)
	}
	_, err = f.Write(object)
	err = errors.Join(err, f.Chmod(0o755), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("install the plugin: %w", err)
	}
	return path, nil
}

// DefaultPath is where [Install] puts the plugin if it is not told otherwise: for root where QEMU of any user finds it.
func DefaultPath() (string, error) {
	if os.Geteuid() == 0 {
		return filepath.Join("/usr/local/lib/outsight", FileName), nil
	}
	dir := os.Getenv("XDG_DATA_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("install the plugin: %w", err)
		}
		dir = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(dir, "outsight", FileName), nil
}
