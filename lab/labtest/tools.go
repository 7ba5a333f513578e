package labtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Tools is the root folder with drgn, crash and a current makedumpfile in it: the one
// that scripts/bench-tools made in the user's cache, or OUTSIGHT_TOOLS; "": there is none.
func Tools() string {
	root := os.Getenv("OUTSIGHT_TOOLS")
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		root = filepath.Join(cache, "outsight", "bench", "tools")
	}
	if _, err := os.Stat(filepath.Join(root, "usr/bin/crash")); err != nil {
		return ""
	}
	return root
}

// NeedTools skips a test where there are no [Tools].
func NeedTools(t testing.TB) string {
	t.Helper()
	root := Tools()
	if root == "" {
		t.Skip("no drgn and no crash: make them with scripts/bench-tools")
	}
	return root
}

// Tool is a command that runs a program of root, which [Tools] gave, on this machine's
// files: through the root's own loader and libraries, so that it needs no chroot.
func Tool(ctx context.Context, root, name string, args ...string) *exec.Cmd {
	in := func(path string) string { return filepath.Join(root, path) }
	command := []string{"--library-path", in("usr/lib/x86_64-linux-gnu"), in("usr/bin/" + name)}
	if name == "drgn" { // a script of Python's
		command = append(command[:2], in("usr/bin/python3"), in("usr/bin/drgn"))
	}
	c := exec.CommandContext(ctx, in("lib64/ld-linux-x86-64.so.2"), append(command, args...)...)
	c.Env = append(os.Environ(), "PYTHONHOME="+in("usr"), "TERM=dumb")
	return c
}
