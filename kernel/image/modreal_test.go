package image_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/lab"
)

// TestPlaceAll places all modules of the kernels in the lab's cache: everything in them is
// understood, and what they need is what the kernel or other modules export.
func TestPlaceAll(t *testing.T) {
	kernels, err := lab.CachedKernels()
	if err != nil || len(kernels) == 0 {
		t.Skip("no kernels in the lab's cache")
	}
	for _, k := range kernels {
		im, err := image.OpenFile(k.Vmlinuz)
		if err != nil {
			t.Fatal(err)
		}
		sites, err := im.Sites()
		if err != nil {
			t.Fatal(err)
		}
		exports := im.Exports()
		if len(exports) < 5_000 {
			t.Errorf("%s: %d exports", k.Release, len(exports))
		}
		n, patched := 0, 0
		err = filepath.WalkDir(filepath.Join(k.Modules, "kernel"), func(path string, d fs.DirEntry, err error) error {
			name, ok := image.ModuleName(path)
			if err != nil || !ok || testing.Short() && n >= 20 || n >= 200 {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if b, err = image.UnpackModule(b); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			f, err := image.ParseModule(b)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if f.Name != name || f.Release != k.Release || len(f.BuildID) != 40 {
				t.Errorf("%s: %q for %q, build-id %q", path, f.Name, f.Release, f.BuildID)
			}
			m, err := f.Place(f.AreasAt(0xffff_ffff_c012_3000), image.Linking{Offset: 0x1200_0000, Sites: sites, Resolve: func(name string) (uint64, bool) {
				a, ok := exports[name]
				if !ok {
					a = 0xffff_ffff_c000_0000
				}
				return a, true
			}})
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			n++
			patched += len(m.Sites.All)
			if m.Unresolved > 0 {
				t.Errorf("%s: %d unresolved", path, m.Unresolved)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s: %d exports, %d modules, %d sites", k.Release, len(exports), n, patched)
	}
}
