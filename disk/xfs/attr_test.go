package xfs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// attributes reads all of a node.
func attributes(t testing.TB, n disk.Node) map[string]string {
	t.Helper()
	got := map[string]string{}
	for a, err := range n.Attributes() {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := got[a.Name]; twice {
			t.Errorf("attribute %s twice", a.Name)
		}
		got[a.Name] = string(a.Value)
	}
	return got
}

// TestAttributes has xfs_db set attributes, whose values it fills with "v".
func TestAttributes(t *testing.T) {
	prefixes := map[string]string{"-u": "user.", "-r": "trusted.", "-s": "security."}
	for _, options := range []string{"", "-m crc=0", "-b size=1k", "-b size=64k", "-m crc=0 -b size=512", "-i nrext64=1"} {
		for form, sizes := range map[string][]int{
			"in the inode": {5, 1, 20},
			"in a leaf":    {5, 200, 20, 100, 1, 300},
			"remote":       {5, 4000, 30_000, 64<<10 - 1, 64 << 10, 3000},
			"in a tree":    slices.Repeat([]int{1, 3, 250, 17, 5000}, 160),
		} {
			t.Run(options+" "+form, func(t *testing.T) {
				t.Parallel()
				tr := tree{}
				tr.dir("")
				tr.file("file", []byte("content"))
				image := mkfs(t, tr, imageSize, strings.Fields(options)...)
				_, nodes := walk(t, openImage(t, image))
				want := map[string]string{}
				script := fmt.Sprintf("inode %d\n", nodes["file"].Stat().Inode)
				for i, size := range sizes {
					space := []string{"-u", "-r", "-s"}[i%3]
					name := fmt.Sprintf("name%s%d", strings.Repeat("-", i%200), i)
					script += fmt.Sprintf("attr_set %s -v %d %s\n", space, size, name)
					want[prefixes[space]+name] = strings.Repeat("v", size)
				}
				command(t, script, "xfs_db", "-x", image)
				got, nodes := walk(t, openImage(t, image))
				if string(got["file"].content) != "content" {
					t.Error("the attributes of a file hide its content")
				}
				if a := attributes(t, nodes["file"]); !maps.Equal(a, want) {
					t.Errorf("%d attributes instead of %d, or others", len(a), len(want))
				}
				if a := attributes(t, nodes[""]); len(a) != 0 {
					t.Errorf("the root directory has %q", a)
				}
			})
		}
	}
}

// TestPosixACL has the list that "setfacl -m u:1000:rw" makes.
func TestPosixACL(t *testing.T) {
	const onDisk = "\x00\x00\x00\x05" +
		"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x06\x00\x00" + "\x00\x00\x00\x02\x00\x00\x03\xe8\x00\x06\x00\x00" +
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x04\x00\x00" + "\x00\x00\x00\x10\x00\x00\x00\x00\x00\x06\x00\x00" +
		"\x00\x00\x00\x20\x00\x00\x00\x00\x00\x04\x00\x00"
	const want = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	if got, ok := posixACL([]byte(onDisk)); !ok || string(got) != want {
		t.Errorf("got %x, want %x", got, want)
	}
	for _, bad := range []string{"", "\x00\x00\x00", "\x00\x00\x00\x01", onDisk + "x", "\xff\xff\xff\xff" + onDisk[4:]} {
		if got, ok := posixACL([]byte(bad)); ok {
			t.Errorf("%x became %x", bad, got)
		}
	}
}
