package ext4_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/disk/ext4"
)

// tool runs a program of e2fsprogs, which may be where only root looks.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s: make install-deps installs it: %v", name, err)
		}
		t.Skipf("%s: %v", name, err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// A sample is what a tree of the host's has, by path.
type sample struct {
	mode   os.FileMode
	sum    [32]byte
	target string
	size   int64
	links  uint64
}

// tree fills a directory with what file systems keep in different ways.
func tree(t testing.TB, dir string) map[string]sample {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, b []byte, mode os.FileMode) {
		t.Helper()
		check(os.WriteFile(filepath.Join(dir, name), b, mode))
		check(os.Chmod(filepath.Join(dir, name), mode))
	}
	for _, d := range []string{"etc", "many", "deep/er/and/deeper", "empty"} {
		check(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	write("empty/file", nil, 0o600)
	write("tiny", []byte("x"), 0o644)
	write("inline", random(70), 0o644)
	write("inline.more", random(150), 0o644)
	write("etc/shadow", random(1000), 0o600)
	write("block", random(4096), 0o644)
	write("blocks", random(300_001), 0o4755)
	write("big", random(3<<20), 0o644)
	for i := range 700 {
		write(fmt.Sprintf("many/%0*d", 1+i%200, i), []byte{byte(i)}, 0o644)
	}
	write("deep/er/and/deeper/file", random(5000), 0o444)
	sparse, err := os.Create(filepath.Join(dir, "sparse"))
	check(err)
	for i := range int64(40) {
		_, err := sparse.WriteAt(random(4096), i*200<<10)
		check(err)
	}
	check(sparse.Close())
	sparse, err = os.Create(filepath.Join(dir, "hole"))
	check(err)
	check(sparse.Truncate(5 << 20))
	check(sparse.Close())
	check(os.Symlink("etc/shadow", filepath.Join(dir, "short")))
	check(os.Symlink("/"+strings.Repeat("long/", 30)+"link", filepath.Join(dir, "long")))
	check(os.Symlink(strings.Repeat("x", 59), filepath.Join(dir, "edge")))
	check(os.Symlink(strings.Repeat("y", 60), filepath.Join(dir, "beyond")))
	check(os.Link(filepath.Join(dir, "tiny"), filepath.Join(dir, "hard")))
	check(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o640))
	return read(t, dir)
}

func read(t testing.TB, dir string) map[string]sample {
	t.Helper()
	found := map[string]sample{}
	err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, dir)
		if name == "" {
			return nil
		}
		s := sample{mode: info.Mode(), size: info.Size(), links: info.Sys().(*syscall.Stat_t).Nlink}
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s.sum = sha256.Sum256(b)
		case info.Mode()&os.ModeSymlink != 0:
			if s.target, err = os.Readlink(p); err != nil {
				return err
			}
		}
		if info.IsDir() {
			s.size, s.links = 0, 0
		}
		found[name] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// seen is a file system, as sample has it.
func seen(t testing.TB, f disk.FileSystem) map[string]sample {
	t.Helper()
	root, err := f.Root()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]sample{}
	for file, err := range disk.Walk(f, "/", root) {
		if err != nil {
			t.Fatalf("%s: %v", file.Path, err)
		}
		if file.Path == "/" || file.Path == "/lost+found" {
			continue
		}
		st := file.Node.Stat()
		if file.Entry.Type != 0 && file.Entry.Type != st.Type() {
			t.Errorf("%s: the directory says type %#o, the inode %#o", file.Path, file.Entry.Type, st.Type())
		}
		s := sample{mode: os.FileMode(st.Mode & 0o777), size: st.Size, links: uint64(st.Links)}
		for bit, mode := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
			if st.Mode&bit != 0 {
				s.mode |= mode
			}
		}
		switch st.Type() {
		case disk.TypeRegular:
			s.sum = sum(t, file.Node)
		case disk.TypeLink:
			s.mode |= os.ModeSymlink
			if s.target, err = file.Node.Target(); err != nil {
				t.Fatalf("%s: %v", file.Path, err)
			}
		case disk.TypeDir:
			s.mode |= os.ModeDir
			s.size, s.links = 0, 0
		case disk.TypeFIFO:
			s.mode |= os.ModeNamedPipe
		}
		found[file.Path] = s
	}
	return found
}

// sum reads a file in pieces of odd sizes, and by its extents.
func sum(t testing.TB, n disk.Node) [32]byte {
	t.Helper()
	c, err := n.Content()
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, c.Size())
	for at := 0; at < len(whole); {
		piece := min(100_003, len(whole)-at)
		got, err := c.ReadAt(whole[at:at+piece], int64(at))
		if err != nil && (!errors.Is(err, io.EOF) || at+got != len(whole)) {
			t.Fatal(err)
		}
		at += got
	}
	covered := int64(0)
	for e, err := range c.Extents() {
		if err != nil {
			t.Fatal(err)
		}
		if e.Logical < covered || e.Length <= 0 || e.Logical+e.Length > c.Size() {
			t.Errorf("extent %+v behind byte %d of %d", e, covered, c.Size())
		}
		for i := covered; i < e.Logical; i++ {
			if whole[i] != 0 {
				t.Fatalf("byte %d is in no extent, and not zero", i)
			}
		}
		covered = e.Logical + e.Length
	}
	return sha256.Sum256(whole)
}

func open(t testing.TB, image string) *ext4.FS {
	t.Helper()
	file, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	f, err := ext4.Open(io.NewSectionReader(file, 0, info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryOption reads what mke2fs has filled, with what it can set.
func TestEveryOption(t *testing.T) {
	dir := t.TempDir()
	want := tree(t, dir)
	for name, args := range map[string][]string{
		"ext2":          {"-t", "ext2"},
		"ext2-1k":       {"-t", "ext2", "-b", "1024"},
		"ext2-rev0":     {"-t", "ext2", "-r", "0", "-b", "1024"},
		"ext3":          {"-t", "ext3"},
		"ext4":          {"-t", "ext4"},
		"1k":            {"-t", "ext4", "-b", "1024"},
		"2k":            {"-t", "ext4", "-b", "2048"},
		"64k":           {"-t", "ext4", "-b", "65536"},
		"inline":        {"-t", "ext4", "-O", "inline_data"},
		"inline-big":    {"-t", "ext4", "-O", "inline_data", "-I", "1024"},
		"bigalloc":      {"-t", "ext4", "-O", "bigalloc", "-C", "65536"},
		"no-csum":       {"-t", "ext4", "-O", "^metadata_csum"},
		"no-csum-gdt":   {"-t", "ext4", "-O", "^metadata_csum,uninit_bg"},
		"32bit":         {"-t", "ext4", "-O", "^64bit"},
		"no-extents":    {"-t", "ext4", "-O", "^extent,^64bit"},
		"meta-bg":       {"-t", "ext4", "-O", "meta_bg,^resize_inode"},
		"meta-bg-1k":    {"-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode", "-g", "1024"},
		"sparse-super2": {"-t", "ext4", "-O", "sparse_super2"},
		"no-filetype":   {"-t", "ext4", "-O", "^filetype"},
		"no-dir-index":  {"-t", "ext4", "-O", "^dir_index"},
		"no-flex":       {"-t", "ext4", "-O", "^flex_bg"},
		"small-inodes":  {"-t", "ext4", "-I", "128"},
		"ea-inode":      {"-t", "ext4", "-O", "ea_inode"},
		"csum-seed":     {"-t", "ext4", "-O", "metadata_csum_seed"},
		"large-dir":     {"-t", "ext4", "-O", "large_dir"},
		"casefold":      {"-t", "ext4", "-O", "casefold", "-E", "encoding=utf8"},
		"encrypt":       {"-t", "ext4", "-O", "encrypt"},
		"fast-commit":   {"-t", "ext4", "-O", "fast_commit"},
		"quota":         {"-t", "ext4", "-O", "quota,project"},
		"verity":        {"-t", "ext4", "-O", "verity"},
		"mmp":           {"-t", "ext4", "-O", "mmp"},
		"stable":        {"-t", "ext4", "-O", "stable_inodes"},
		"no-journal":    {"-t", "ext4", "-O", "^has_journal"},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && !slices.Contains([]string{"ext2-1k", "ext4", "inline"}, name) {
				t.Skip("the quick tests have three of them")
			}
			t.Parallel()
			image := filepath.Join(t.TempDir(), "image")
			tool(t, "mke2fs", slices.Concat([]string{"-q", "-F", "-d", dir, "-L", "a label"}, args, []string{image, "64M"})...)
			f := open(t, image)
			info := f.Info()
			if kind := strings.SplitN(name, "-", 2)[0]; strings.HasPrefix(kind, "ext") && info.Kind != kind || info.Label != "a label" && name != "ext2-rev0" || len(info.Notes) > 0 {
				t.Errorf("%+v", info)
			}
			// What e2fsprogs says of it is checked in its own words.
			for _, line := range strings.Split(tool(t, "dumpe2fs", "-h", image), "\n") {
				key, value, _ := strings.Cut(line, ":")
				value = strings.TrimSpace(value)
				switch key {
				case "Filesystem UUID":
					if value != info.UUID && name != "ext2-rev0" {
						t.Errorf("UUID %s, not %s", info.UUID, value)
					}
				case "Filesystem features":
					have := slices.Clone(info.Features)
					all := strings.Fields(value)
					slices.Sort(have)
					slices.Sort(all)
					if !slices.Equal(have, all) && name != "ext2-rev0" {
						t.Errorf("features %v, not %v", have, all)
					}
				}
			}
			got := seen(t, f)
			for p := range maps.Keys(want) {
				if got[p] != want[p] {
					t.Errorf("%s: %+v, not %+v", p, got[p], want[p])
				}
				delete(got, p)
			}
			for p := range got {
				t.Errorf("%s: not in the tree", p)
			}
		})
	}
}

func TestNotOne(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 100), make([]byte, 1<<20)} {
		if _, err := ext4.Open(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))); !errors.Is(err, disk.ErrUnknown) {
			t.Errorf("%d zeroes: %v", len(b), err)
		}
	}
}
