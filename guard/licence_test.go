package guard_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// licences are those that a dependency of the binary may have, each with words
// that only its text has.
var licences = map[string]string{
	"Apache-2.0": "Apache License",
	"MIT":        "Permission is hereby granted, free of charge",
	"BSD":        "Redistribution and use in source and binary forms",
	"ISC":        "Permission to use, copy, modify, and/or distribute",
}

func TestLicencesOfDependencies(t *testing.T) {
	files(t) // what go list reads
	out, err := exec.Command("go", "list", "-deps", "-f",
		"{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		path, dir, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || seen[path] {
			continue
		}
		seen[path] = true
		if !hasLicence(t, dir) {
			t.Errorf("%s: no licence that goes into an Apache-2.0 program; see %s", path, dir)
		}
	}
	if !seen["github.com/spf13/cobra"] {
		t.Error("the list of dependencies is not complete: cobra is missing")
	}
}

func hasLicence(t *testing.T, dir string) bool {
	t.Helper()
	for _, pattern := range []string{"LICEN[CS]E*", "COPYING*"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text := read(t, name)
			for _, words := range licences {
				if bytes.Contains(text, []byte(words)) {
					return true
				}
			}
		}
	}
	return false
}

// gplFolders are the exceptions: QEMU's plugin, and the sources of kernel modules for tests,
// which are linked with QEMU and the kernel.
var gplFolders = []string{"plugin/qemu/", "check/testdata/modules/"}

// The repository is Apache-2.0 as a whole, which one file says for all others. The files of
// gplFolders say themselves that they are not.
func TestOwnLicence(t *testing.T) {
	for _, name := range files(t) {
		b := read(t, name)
		gpl := bytes.Contains(b, []byte("SPDX-License-"+"Identifier: GPL-2.0-or-later"))
		exempt := slices.ContainsFunc(gplFolders, func(dir string) bool { return strings.HasPrefix(name, dir) })
		switch {
		case exempt && (strings.HasSuffix(name, ".c") || strings.HasSuffix(name, ".h")) && !gpl:
			t.Errorf("%s: does not say that it is GPL-2.0-or-later", name)
		case gpl && !exempt:
			t.Errorf("%s: GPL outside %v", name, gplFolders)
		}
	}
	if b, err := os.ReadFile("LICENSE"); err != nil || !bytes.Contains(b, []byte("Apache License")) {
		t.Errorf("LICENSE is not the Apache License: %v", err)
	}
}
