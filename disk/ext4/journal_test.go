package ext4_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// blockOf is the block of the device that a file's nth block is in.
func blockOf(t testing.TB, f disk.FileSystem, name string, nth int64) int64 {
	t.Helper()
	n, err := disk.Lookup(f, name, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.Content()
	if err != nil {
		t.Fatal(err)
	}
	size := f.Info().BlockSize
	for e, err := range c.Extents() {
		if err != nil {
			t.Fatal(err)
		}
		if at := nth * size; at >= e.Logical && at < e.Logical+e.Length {
			return (e.Physical + at - e.Logical) / size
		}
	}
	t.Fatalf("%s has no block %d", name, nth)
	return 0
}

// TestJournal has debugfs write transactions that are not in their places, and reads them; e2fsck, which puts them there, must end with the same.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir)
	for name, args := range map[string][]string{
		"v3":        {"-t", "ext4"},
		"v3-32bit":  {"-t", "ext4", "-O", "^64bit"},
		"no-csum":   {"-t", "ext4", "-O", "^metadata_csum"},
		"ext3":      {"-t", "ext3"},
		"ext3-1k":   {"-t", "ext3", "-b", "1024"},
		"no-csum-1": {"-t", "ext4", "-O", "^metadata_csum,^64bit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			work := t.TempDir()
			image := filepath.Join(work, "image")
			tool(t, "mke2fs", append(append([]string{"-q", "-F", "-d", dir}, args...), image, "64M")...)
			clean := open(t, image)
			before := seen(t, clean)
			size := int(clean.Info().BlockSize)
			at := func(nth int64) int64 { return blockOf(t, clean, "/big", nth) }
			fill := func(name string, b byte, escaped bool) string {
				block := []byte(strings.Repeat(string(rune(b)), size))
				if escaped {
					binary.BigEndian.PutUint32(block, 0xc03b3998)
				}
				p := filepath.Join(work, name)
				if err := os.WriteFile(p, block, 0o600); err != nil {
					t.Fatal(err)
				}
				return p
			}
			open2 := "jo"
			if !strings.Contains(strings.Join(args, " "), "^metadata_csum") && args[1] == "ext4" {
				open2 = "jo -c"
			}
			script := strings.Join([]string{
				open2,
				fmt.Sprintf("jw -b %d %s", at(0), fill("a", 'a', false)),
				fmt.Sprintf("jw -b %d %s", at(5), fill("b", 'b', true)),
				fmt.Sprintf("jw -b %d %s", at(9), fill("c", 'c', false)),
				fmt.Sprintf("jw -r %d", at(9)),
				fmt.Sprintf("jw -b %d %s", at(0), fill("d", 'd', false)),
				"jc",
			}, "\n")
			cmds := filepath.Join(work, "commands")
			if err := os.WriteFile(cmds, []byte(script+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Log(tool(t, "debugfs", "-w", "-f", cmds, image))
			dirty := open(t, image)
			got := seen(t, dirty)
			if notes := strings.Join(dirty.Info().Elsewhere, "; "); !strings.Contains(notes, "as the journal has them") {
				t.Errorf("notes: %s", notes)
			}
			replayed := filepath.Join(work, "replayed")
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(replayed, b, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Log(tool(t, "debugfs", "-w", "-R", "jr", replayed))
			after := open(t, replayed)
			if notes := after.Info().Elsewhere; len(notes) > 0 {
				t.Fatalf("debugfs left something in the journal: %v", notes)
			}
			if want := seen(t, after); !maps.Equal(got, want) {
				for p := range want {
					if got[p] != want[p] {
						t.Errorf("%s: %+v, not %+v", p, got[p], want[p])
					}
				}
			}
			if got["/big"] == before["/big"] {
				t.Error("nothing has changed")
			}
		})
	}
}

// TestAttributes compares what debugfs has set, in the inode and in a block of their own, with what is read.
func TestAttributes(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir)
	for name, args := range map[string][]string{"256": {}, "128": {"-I", "128"}, "1024": {"-I", "1024"}, "ea_inode": {"-O", "ea_inode", "-b", "4096"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			work := t.TempDir()
			image := filepath.Join(work, "image")
			tool(t, "mke2fs", append(append([]string{"-q", "-F", "-t", "ext4", "-d", dir}, args...), image, "64M")...)
			want := map[string]string{"user.short": "v", "security.capability": strings.Repeat("c", 20), "user.long": strings.Repeat("long ", 100), "trusted.none": ""}
			if name == "ea_inode" {
				want["user.huge"] = strings.Repeat("huge.", 819) // more than fits into a block beside the rest
			}
			var script strings.Builder
			for k, v := range want {
				p := filepath.Join(work, k)
				if err := os.WriteFile(p, []byte(v), 0o600); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&script, "ea_set -f %s /tiny %s\n", p, k)
			}
			cmds := filepath.Join(work, "commands")
			if err := os.WriteFile(cmds, []byte(script.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			out := tool(t, "debugfs", "-w", "-f", cmds, image)
			if strings.Contains(out, "ea_set:") && strings.Contains(out, "while") {
				t.Fatal(out)
			}
			n, err := disk.Lookup(open(t, image), "/tiny", true)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for a, err := range n.Attributes() {
				if err != nil {
					t.Fatal(err)
				}
				got[a.Name] = string(a.Value)
			}
			if !maps.Equal(got, want) {
				for k := range want {
					t.Errorf("%s: %d bytes %.40q, not %d bytes %.40q", k, len(got[k]), got[k], len(want[k]), want[k])
				}
				t.Errorf("%d attributes", len(got))
			}
		})
	}
}
