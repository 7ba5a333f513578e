package guests

import (
	_ "embed"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/lab"
)

//go:embed livepatch/livepatch.c
var livepatchSource string

// Livepatch builds a live patch for a kernel of the lab, where its headers work with this machine's
// compiler and C library; empty elsewhere.
func Livepatch(t testing.TB, kernel string) string {
	t.Helper()
	if !slices.Contains([]string{"5.10", "6.1"}, kernel) {
		return "" // tools of later headers need a later C library
	}
	for _, tool := range []string{"make", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return ""
		}
	}
	dir := t.TempDir()
	if err := lab.BuildModules(t.Context(), kernel, dir, map[string]string{"livepatch.c": livepatchSource}, t.Output()); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "livepatch.ko")
}
