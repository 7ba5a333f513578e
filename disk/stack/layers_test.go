package stack_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/stack"
)

// physicalVolumes are three disks with a volume group, and a file system where the first volume begins.
func physicalVolumes(t *testing.T) (paths []string) {
	t.Helper()
	for _, name := range []string{"pv0", "pv1", "pv2"} {
		p := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(p, unpacked("../lvm/testdata/"+name+".gz"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		const extents = 1 << 20 // where they begin
		if _, err = f.WriteAt(ext4(), extents); err == nil {
			err = f.Truncate(24 << 20)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

func TestVolumeGroup(t *testing.T) {
	paths := physicalVolumes(t)
	d, err := stack.Open(t.Context(), paths[0], stack.Options{With: paths[1:]})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names := map[string]*stack.Volume{}
	for _, v := range d.Volumes {
		t.Logf("%s %q %v", v.Name, v.Content, v.Err)
		if names[v.Name] != nil {
			t.Errorf("two volumes are called %s", v.Name)
		}
		names[v.Name] = v
	}
	for _, name := range []string{"disk", "2:disk", "3:disk"} {
		if v := names[name]; v == nil || v.Content != "LVM2 physical volume" || v.FS != nil || v.Err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	v, err := d.Volume("")
	if err == nil {
		_, err = disk.Lookup(v.FS, "/etc/hostname", true)
	}
	if err != nil {
		t.Error(err)
	}
	alone, err := stack.Open(t.Context(), paths[0], stack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	if notes := strings.Join(alone.Notes, "; "); !strings.Contains(notes, "is missing: name its disk, too") {
		t.Errorf("notes of one disk alone: %s", notes)
	}
}
