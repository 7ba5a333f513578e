package guard_test

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	maxGoLines = 500
	maxBinary  = 64 << 10  // bytes
	maxText    = 512 << 10 // bytes
)

func TestNoOversizedFile(t *testing.T) {
	for _, name := range files(t) {
		b := read(t, name)
		switch lines := bytes.Count(b, []byte("\n")); {
		case strings.HasSuffix(name, ".go") && lines > maxGoLines:
			t.Errorf("%s: %d lines; a Go file has at most %d: one idea a file", name, lines, maxGoLines)
		case isBinary(b) && len(b) > maxBinary:
			t.Errorf("%s: a binary of %d bytes: make it in the test, or fetch it", name, len(b))
		case len(b) > maxText:
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
}

// tied are things that are true on one machine only. They are put together here
// so that this file does not hold them itself.
var tied = []struct {
	what string
	re   *regexp.Regexp
}{
	{"a path of somebody's machine", regexp.MustCompile(`/(work/(main|shared)|tmp/bash_` + `jobs|home/[a-z]+)\b`)},
	{"the host of a package registry", regexp.MustCompile(`\b(proxy|sum)\.golang` + `\.org|\b(deb|ftp|snapshot|archive|security)\.(\w+\.)?(debian|ubuntu)` + `\.(org|com)|pypi` + `\.org|npmjs` + `\.(org|com)|crates` + `\.io`)},
}

func TestNothingTiedToAMachine(t *testing.T) {
	for _, name := range files(t) {
		b := read(t, name)
		if isBinary(b) {
			continue
		}
		for _, x := range tied {
			if found := x.re.Find(b); found != nil {
				t.Errorf("%s: %q is %s", name, found, x.what)
			}
		}
	}
}

func TestScriptsAreExecutable(t *testing.T) {
	for _, name := range files(t) {
		if strings.HasPrefix(name, "lab/rootfs/") || strings.HasPrefix(name, "groundtruth/guests/") {
			continue // run by a guest, which sets their modes itself
		}
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().IsRegular() && bytes.HasPrefix(read(t, name), []byte("#!")) && info.Mode()&0o111 == 0 {
			t.Errorf("%s: a script that is not executable", name)
		}
	}
}

// make fuzz runs what scripts/fuzz lists: nothing that fuzzes is left out.
func TestMakeFuzzRunsEveryTarget(t *testing.T) {
	var want []string
	for _, s := range sources(t) {
		for _, name := range functions(s) {
			if s.test && strings.HasPrefix(name, "Fuzz") {
				want = append(want, "./"+s.pkg()+" "+name)
			}
		}
	}
	slices.Sort(want)
	out, err := exec.Command("scripts/fuzz", "--list").Output()
	if err != nil {
		t.Fatalf("scripts/fuzz --list: %v", err)
	}
	got := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("scripts/fuzz lists %q, and the sources have %q", got, want)
	}
}
