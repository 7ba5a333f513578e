package xfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// need skips a test where a tool of xfsprogs is not installed, and fails it in CI.
func need(t testing.TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("%v: apt-get install xfsprogs", err)
		}
	}
}

// run runs a command, which must succeed.
func command(t testing.TB, stdin string, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, stderr.Bytes())
	}
	return string(out)
}

// An item is something that an image is made with.
type item struct {
	mode         uint32
	uid, gid     uint32
	content      []byte
	target       string
	major, minor uint32
}

// tree is the items of an image by path. The root is "".
type tree map[string]item

func (tr tree) dir(p string) { tr[p] = item{mode: disk.TypeDir | 0o755} }
func (tr tree) file(p string, c []byte) {
	tr[p] = item{mode: disk.TypeRegular | 0o640, uid: 1000, gid: 70000, content: c}
}
func (tr tree) link(p string, to string) { tr[p] = item{mode: disk.TypeLink | 0o777, target: to} }
func (tr tree) many(p string, n int, f func(i int) string) {
	tr.dir(p)
	for i := range n {
		tr.link(path.Join(p, f(i)), "x")
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 15}).Read(b)
	return b
}

// sampleTree has everything that a prototype file can say, with a directory of n names.
func sampleTree(n int) tree {
	tr := tree{}
	tr.dir("")
	tr.file("empty", nil)
	for _, size := range []int{1, 511, 4095, 4096, 4097, 65536, 1<<20 + 17} {
		tr.file(fmt.Sprintf("file%d", size), randomBytes(size))
	}
	tr.link("link", "a/short/target")
	for _, size := range []int{150, 400, 456, 457, 900, 1023} {
		tr.link(fmt.Sprintf("link%d", size), strings.Repeat("abcdefg/", 128)[:size])
	}
	tr["block"] = item{mode: disk.TypeBlock | 0o600, major: 8, minor: 17}
	tr["char"] = item{mode: disk.TypeChar | 0o666, gid: 5, major: 204, minor: 191}
	tr["fifo"] = item{mode: disk.TypeFIFO | 0o644}
	tr["setuid"] = item{mode: disk.TypeRegular | 0o4755, content: []byte("#!/bin/sh\n")}
	tr.dir("dir")
	tr.dir("dir/empty")
	tr.file("dir/"+strings.Repeat("n", 255), []byte("long name\n"))
	tr.file("dir/\xff\xfe\xe2\x82\xac", []byte("not utf-8"))
	for deep, i := "deep", 0; i < 20; i++ {
		tr.dir(deep)
		deep += "/deep"
	}
	tr.many("names20", 20, func(i int) string { return fmt.Sprint("n", i) })
	tr.many("names200", 200, func(i int) string { return strings.Repeat("x", i+1) })
	tr.many("many", n, func(i int) string { return fmt.Sprintf("name-number-%d", i) })
	return tr
}

// prototype writes the file that mkfs.xfs -p reads, and the contents of files beside it.
func (tr tree) prototype(t testing.TB, dir string) string {
	t.Helper()
	children := map[string][]string{}
	for p := range tr {
		if p != "" {
			parent := path.Dir(p)
			if parent == "." {
				parent = ""
			}
			children[parent] = append(children[parent], p)
		}
	}
	var b strings.Builder
	b.WriteString("/dev/null\n0 0\n")
	var write func(p string)
	write = func(p string) {
		it := tr[p]
		letter := map[uint32]string{
			disk.TypeDir: "d", disk.TypeRegular: "-", disk.TypeLink: "l", disk.TypeBlock: "b", disk.TypeChar: "c", disk.TypeFIFO: "p",
		}[it.mode&disk.TypeMask]
		name := path.Base(p) + " "
		if p == "" {
			name = ""
		}
		set := "-"
		if it.mode&0o4000 != 0 {
			set = "u"
		}
		fmt.Fprintf(&b, "%s%s%s-%03o %d %d ", name, letter, set, it.mode&0o777, it.uid, it.gid)
		switch it.mode & disk.TypeMask {
		case disk.TypeRegular:
			file := filepath.Join(dir, fmt.Sprintf("%x", sha256.Sum256(it.content)))
			if err := os.WriteFile(file, it.content, 0o600); err != nil {
				t.Fatal(err)
			}
			b.WriteString(file)
		case disk.TypeLink:
			b.WriteString(it.target)
		case disk.TypeBlock, disk.TypeChar:
			fmt.Fprintf(&b, "%d %d", it.major, it.minor)
		}
		b.WriteByte('\n')
		if it.mode&disk.TypeMask == disk.TypeDir {
			slices.Sort(children[p])
			for _, c := range children[p] {
				write(c)
			}
			b.WriteString("$\n")
		}
	}
	write("")
	file := filepath.Join(dir, "prototype")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// mkfs makes an image with a tree in it and gives its path.
func mkfs(t testing.TB, tr tree, size int64, options ...string) string {
	t.Helper()
	need(t, "mkfs.xfs", "xfs_db")
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-q", "--unsupported"}, options...)
	if tr != nil {
		args = append(args, "-p", tr.prototype(t, dir))
	}
	command(t, "", "mkfs.xfs", append(args, image)...)
	return image
}

// fileDevice is a device in a file.
type fileDevice struct {
	*os.File
	size int64
}

func (d fileDevice) Size() int64 { return d.size }

func openDevice(t testing.TB, image string) disk.Device {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fileDevice{f, info.Size()}
}

func openImage(t testing.TB, image string) *FS {
	t.Helper()
	fs, err := Open(openDevice(t, image))
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// walk reads a tree with all that is in it.
func walk(t testing.TB, fs *FS) (tree, map[string]disk.Node) {
	t.Helper()
	got, nodes := tree{}, map[string]disk.Node{}
	var visit func(p string, n disk.Node)
	visit = func(p string, n disk.Node) {
		it := itemOf(t, p, n)
		got[p], nodes[p] = it, n
		if it.mode&disk.TypeMask != disk.TypeDir {
			return
		}
		for e, err := range n.Entries() {
			if err != nil {
				t.Fatalf("%q: %v", p, err)
			}
			child, err := fs.Node(e.Inode)
			if err != nil {
				t.Fatalf("%q: %v", path.Join(p, e.Name), err)
			}
			if kind := child.Stat().Type(); e.Type != kind && (e.Type != 0 || fs.sb.ftype) {
				t.Fatalf("%q: type %#o in the directory, %#o in the inode", path.Join(p, e.Name), e.Type, kind)
			}
			if child.Stat().Inode != e.Inode {
				t.Fatalf("inode %d says that it is %d", e.Inode, child.Stat().Inode)
			}
			visit(path.Join(p, e.Name), child)
		}
	}
	root, err := fs.Root()
	if err != nil {
		t.Fatal(err)
	}
	visit("", root)
	return got, nodes
}

func itemOf(t testing.TB, p string, n disk.Node) item {
	t.Helper()
	s := n.Stat()
	it := item{mode: s.Mode, uid: s.UID, gid: s.GID, major: s.Major, minor: s.Minor}
	var err error
	switch s.Type() {
	case disk.TypeRegular:
		it.content, err = readAll(n)
	case disk.TypeLink:
		it.target, err = n.Target()
	}
	if err != nil {
		t.Fatalf("%q: %v", p, err)
	}
	return it
}

func readAll(n disk.Node) ([]byte, error) {
	c, err := n.Content()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
}

func compareTrees(t *testing.T, got, want tree) {
	t.Helper()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[p]
		w := want[p]
		if !ok {
			t.Errorf("%q is missing", p)
			continue
		}
		if !bytes.Equal(g.content, w.content) {
			t.Errorf("%q: other content, of %d bytes instead of %d", p, len(g.content), len(w.content))
		}
		g.content, w.content = nil, nil
		if g.target != w.target || g.mode != w.mode || g.uid != w.uid || g.gid != w.gid || g.major != w.major || g.minor != w.minor {
			t.Errorf("%q: got %+v, want %+v", p, g, w)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%q is not in the tree", p)
		}
	}
}
