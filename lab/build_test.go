package lab

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestUnaccepted(t *testing.T) {
	const config = "# a comment\nCONFIG_A=y\nCONFIG_B=4\nCONFIG_C=y\n# CONFIG_D is not set\n# CONFIG_E is not set\n"
	const got = "CONFIG_A=y\nCONFIG_B=8\n# CONFIG_C is not set\nCONFIG_D=y\nCONFIG_AB=y\n"
	want := []string{"CONFIG_B=4", "CONFIG_C=y", "# CONFIG_D is not set"}
	if lost := unaccepted(config, got); !slices.Equal(lost, want) {
		t.Errorf("%q, want %q", lost, want)
	}
	if lost := unaccepted(MinimalConfig, MinimalConfig); len(lost) > 0 {
		t.Errorf("the minimal configuration contradicts itself: %q", lost)
	}
}

func TestBuildKernelNames(t *testing.T) {
	t.Setenv("OUTSIGHT_LAB_CACHE", t.TempDir())
	for _, series := range []string{"", "6.12-rt", "x", "../6.12"} {
		if _, err := BuildKernel(t.Context(), series, MinimalConfig, nil); err == nil {
			t.Errorf("%q: no error", series)
		}
	}
}

// TestKeepBuilt: what was built is kept, and is what the same configuration gives from then on.
func TestKeepBuilt(t *testing.T) {
	t.Setenv("OUTSIGHT_LAB_CACHE", t.TempDir())
	dir, err := cacheDir("built")
	if err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp(dir, ".tmp-*")
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(tmp, "linux-source-6.12")
	for _, name := range []string{"arch/x86/boot/bzImage", ".config", "System.map"} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := Kernel{Name: "6.12-" + fileHash(MinimalConfig), Release: "6.12.1", Version: "6.12.1-1", Suite: "trixie"}
	made, err := keepBuilt(dir, tmp, tree, want)
	if err != nil {
		t.Fatal(err)
	}
	k, err := BuildKernel(t.Context(), "6.12", MinimalConfig, nil)
	if err != nil || k.Release != want.Release || k.Version != want.Version || k.Vmlinuz != made.Vmlinuz {
		t.Fatalf("%+v, %v; kept %+v", k, err, made)
	}
	if b, err := os.ReadFile(k.Vmlinuz); err != nil || string(b) != "arch/x86/boot/bzImage" {
		t.Errorf("%q, %v", b, err)
	}
}
