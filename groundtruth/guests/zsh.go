package guests

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// zshModules are what an interactive zsh loads, wherever Debian's looks for them.
const zshModules = "/usr/lib/*/zsh/*/zsh/zle.so"

// zshFiles put the host's zsh into a guest, with its libraries where the guest has none;
// nothing where the host has no zsh.
func zshFiles(t testing.TB, libraries bool) map[string]string {
	t.Helper()
	zsh, err := exec.LookPath("zsh")
	if err != nil {
		return nil
	}
	files := map[string]string{"/usr/bin/zsh": zsh}
	if libraries {
		for _, path := range librariesOf(t, zsh) {
			files[path] = path
		}
	}
	modules, err := filepath.Glob(zshModules)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range modules {
		files[path] = path
	}
	return files
}
