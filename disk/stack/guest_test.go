package stack_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/stack"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// TestGuestDebian reads the disk of a running Debian, and compares it with what the guest says. What was written a moment ago is in the
// journal alone.
func TestGuestDebian(t *testing.T) {
	g := labtest.Up(t, lab.Options{Name: "disk", Kernel: lab.DefaultKernel, Userland: lab.Debian})
	labtest.Output(t, g, "mkdir -p /srv/new && seq 1 100000 > /srv/new/numbers && ln -s numbers /srv/new/link && rm -f /etc/motd && sync")
	const places = "/etc /srv /usr/bin /usr/sbin"
	inside := map[string]string{}
	for line := range strings.Lines(labtest.Output(t, g, "find "+places+" -xdev -type f -print0 | xargs -0 sha256sum")) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			t.Fatalf("the guest says %q", line)
		}
		inside[name] = sum
	}
	// Mode, owner, size, links and times of everything.
	told := map[string]string{}
	for line := range strings.Lines(labtest.Output(t, g, "find "+places+` -xdev -printf '%p\t%#m %U %G %s %n %T@ %i %y\n'`)) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		told[name] = rest
	}
	if len(inside) < 500 || len(told) < 700 {
		t.Fatalf("the guest has %d files, and %d of all kinds", len(inside), len(told))
	}
	d, err := stack.Open(t.Context(), filepath.Join(g.Dir, "disk.qcow2"), stack.Options{Folders: []string{"/"}}) // it is based on one in the lab's cache
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	v, err := d.Volume("")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s on %s: %v", v.Content, v.Name, v.FS.Info().Elsewhere)
	if notes := strings.Join(v.FS.Info().Elsewhere, "; "); !strings.Contains(notes, "journal") {
		t.Errorf("nothing was taken from the journal: %q", notes)
	}
	names := map[uint32]string{disk.TypeRegular: "f", disk.TypeDir: "d", disk.TypeLink: "l", disk.TypeFIFO: "p", disk.TypeSocket: "s", disk.TypeChar: "c", disk.TypeBlock: "b"}
	for _, place := range strings.Fields(places) {
		n, err := disk.Lookup(v.FS, place, true)
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range disk.Walk(v.FS, place, n) {
			if err != nil {
				t.Errorf("%s: %v", f.Path, err)
				continue
			}
			s := f.Node.Stat()
			mode := fmt.Sprintf("%#o", s.Mode&0o7777)
			if s.Mode&0o7777 == 0 {
				mode = "0"
			}
			got := fmt.Sprintf("%s %d %d %d %d %d.%09d0 %d %s", mode, s.UID, s.GID, s.Size, s.Links, s.Modified.Unix(), s.Modified.Nanosecond(), s.Inode, names[s.Type()])
			if want, ok := told[f.Path]; !ok || got != want {
				t.Errorf("%s: %s, not %s", f.Path, got, want)
			}
			delete(told, f.Path)
			if s.Type() != disk.TypeRegular {
				continue
			}
			c, err := f.Node.Content()
			if err != nil {
				t.Errorf("%s: %v", f.Path, err)
				continue
			}
			h := sha256.New()
			if _, err := io.Copy(h, io.NewSectionReader(c, 0, c.Size())); err != nil {
				t.Errorf("%s: %v", f.Path, err)
			}
			if sum := fmt.Sprintf("%x", h.Sum(nil)); sum != inside[f.Path] {
				t.Errorf("%s: %s, not %s", f.Path, sum, inside[f.Path])
			}
		}
	}
	for name := range told {
		t.Errorf("%s is not on the disk", name)
	}
}
