package main

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestShortProgram runs the program that ends at once.
func TestShortProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(file, shortProgram(), 0o700); err != nil {
		t.Fatal(err)
	}
	if f, err := elf.NewFile(bytes.NewReader(shortProgram())); err != nil || len(f.Progs) != 1 {
		t.Fatalf("%v, %v", f, err)
	}
	if err := exec.Command(file).Run(); err != nil {
		t.Error(err)
	}
}
