package xfs

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/disk"
	"github.com/outsight-vmi/outsight/groundtruth/guests"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
)

// listed is what the program disktree says of a file.
type listed struct {
	Path                  []byte
	Inode                 uint64
	Mode, UID, GID, Links uint32
	Project, Generation   uint32
	Immutable, Append     bool
	Size, Blocks          int64
	Major, Minor          uint32
	Times                 [4][2]int64
	Target                []byte
	Sum                   string
	Attributes            map[string][]byte
}

// A guestDisk is a file system that a guest fills.
type guestDisk struct {
	name, options string
	names         int  // in its largest directory, and extents of its largest file; 0 is 400
	clean         bool // compare it before the guest stops in the middle
	replayed      bool // and after its kernel has replayed the log, which has the last word
	image         string
}

// What a disk is when it is compared.
const (
	clean = false
	dirty = true
)

// TestGuestXFS compares file systems that a guest's kernel wrote with what that kernel says of each file: after it has unmounted them, and after
// it was stopped with a log that has not reached its places.
func TestGuestXFS(t *testing.T) {
	guestTest(t, "6.12", []*guestDisk{
		{name: "v5", options: "-i nrext64=1 -m rmapbt=1,reflink=1,bigtime=1,inobtcount=1", clean: true},
		{name: "v4", options: "-m crc=0 -b size=512", replayed: true},
	})
}

// TestGuestXFSOptions is the same with other options and kernels, and with 100000 names.
func TestGuestXFSOptions(t *testing.T) {
	if os.Getenv("OUTSIGHT_SLOW") != "1" {
		t.Skip("slow: OUTSIGHT_SLOW=1 runs it")
	}
	for _, kernel := range []string{"5.10", "6.1", "6.12", "7.2"} {
		t.Run(kernel, func(t *testing.T) {
			guestTest(t, kernel, []*guestDisk{
				{name: "v4", options: "-m crc=0 -n ftype=0 -i size=256", clean: true},
				{name: "v4-ci", options: "-m crc=0 -n version=ci -l version=1", replayed: true},
				{name: "small", options: "-b size=1k -i sparse=1,size=512", names: 100_000, clean: true, replayed: true},
				{name: "sectors", options: "-s size=4096 -n size=64k -i size=2048", replayed: true},
				{name: "rmap", options: "-m rmapbt=1,reflink=1,bigtime=0 -d agcount=16", replayed: true},
				{name: "old", options: "-m reflink=0,finobt=0,bigtime=0,inobtcount=0 -i sparse=0", clean: true},
			})
		})
	}
}

const outputSize = 512 << 20

func guestTest(t *testing.T, kernel string, disks []*guestDisk) {
	labtest.NeedQEMU(t)
	labtest.NeedTool(t, "mkfs.xfs")
	output := filepath.Join(t.TempDir(), "output")
	if err := os.WriteFile(output, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(output, outputSize); err != nil {
		t.Fatal(err)
	}
	o := lab.Options{
		Kernel: kernel, Memory: 768 << 20, SMP: 2, Modules: []string{"virtio_pci", "virtio_blk", "crc32c_generic", "xfs"},
		Files: map[string]string{"/disktree": guests.Program(t, "disktree")},
	}
	attach := func(path string) {
		n := len(o.QEMUArgs) / 4
		o.QEMUArgs = append(o.QEMUArgs, "-drive", fmt.Sprintf("if=none,id=xfs%d,format=raw,discard=unmap,file=%s", n, path),
			"-device", fmt.Sprintf("virtio-blk-pci,vectors=0,drive=xfs%d,addr=%#x", n, 0x10+n))
	}
	attach(output)
	for _, d := range disks {
		d.image = mkfs(t, nil, 2<<30, strings.Fields(d.options)...)
		attach(d.image)
	}
	g := labtest.Up(t, o)
	for i, d := range disks {
		t.Run(d.name, func(t *testing.T) {
			device := fmt.Sprintf("/dev/vd%c", 'b'+i)
			mount := func(options string) string {
				return "mount -t xfs -o noatime," + options + " " + device + " /mnt"
			}
			names := cmp.Or(d.names, 400)
			labtest.Output(t, g, fmt.Sprintf("mkdir -p /mnt && %s && /disktree fill /mnt %d && umount /mnt", mount("rw"), names))
			if d.clean {
				labtest.Output(t, g, mount("ro"))
				want := guestList(t, g, output)
				labtest.Output(t, g, "umount /mnt")
				d.compare(t, want, clean)
			}
			// What fill has made is in its place, and not in the log.
			labtest.Output(t, g, mount("rw")+" && /disktree change /mnt "+fmt.Sprint(names/3)+
				" && (/disktree hold /mnt >/run/held & until grep -q READY /run/held; do sleep 0.1; done)")
			want := guestList(t, g, output)
			labtest.Output(t, g, "sync; /disktree shutdown /mnt; killall disktree; until umount /mnt 2>/dev/null; do sleep 0.1; done")
			d.compare(t, want, dirty)
			if !d.replayed {
				return
			}
			labtest.Output(t, g, mount("ro"))
			want = guestList(t, g, output)
			labtest.Output(t, g, "umount /mnt")
			d.compare(t, want, clean)
		})
	}
}

// guestList has the guest list /mnt to a device, which is a file here.
func guestList(t *testing.T, g *lab.Guest, output string) []*listed {
	t.Helper()
	labtest.Output(t, g, "/disktree list /mnt /dev/vda")
	f, err := os.Open(output)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []*listed
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line[0] == 0 {
			return all
		}
		e := &listed{}
		if err := json.Unmarshal(line, e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, e)
		if next, err := r.Peek(1); err == nil && next[0] == 0 {
			return all
		}
	}
}

func (d *guestDisk) compare(t *testing.T, want []*listed, isDirty bool) {
	t.Helper()
	fs := openImage(t, d.image)
	info := fs.Info()
	began := time.Now()
	replayed := len(info.Elsewhere) == 1
	if replayed != isDirty || len(info.Notes) > 0 {
		t.Errorf("notes of the file system: %q, %q", info.Notes, info.Elsewhere)
	}
	got := map[string]disk.Node{}
	collect(t, fs, "", fs.sb.rootInode, got)
	if len(got) != len(want) {
		t.Errorf("%d files, the guest has %d", len(got), len(want))
	}
	wrong := 0
	for _, w := range want {
		p := string(w.Path)
		if p == "." {
			p = ""
		}
		n, ok := got[p]
		what := "is missing"
		if ok {
			what = difference(n, w, isDirty)
		}
		if what != "" {
			if wrong++; wrong < 20 {
				t.Errorf("%q (inode %d): %s", p, w.Inode, what)
			}
		}
	}
	links, inodes, held, lists := map[uint64]bool{}, 0, 0, 0
	for _, w := range want {
		links[w.Inode] = true
	}
	for n, err := range fs.Nodes() {
		if err != nil {
			t.Fatal(err)
		}
		switch s := n.Stat(); {
		case !s.Deleted.IsZero():
		case s.Flags&disk.Unlinked != 0:
			held++
			if b, err := readAll(n); err != nil || !strings.HasPrefix(string(b), "deleted and open: ") {
				t.Errorf("inode %d, deleted and open: %q, %v", s.Inode, b, err)
			}
		case links[s.Inode]:
			inodes++
		}
	}
	for n, err := range fs.Unlinked() {
		if lists++; err != nil || n.Stat().Flags&disk.Unlinked == 0 {
			t.Errorf("a list of unlinked inodes has %+v, %v", n, err)
		}
	}
	wantHeld := 0
	if isDirty {
		wantHeld = 150 - (150+6)/7
	}
	if inodes != len(links) || held != wantHeld || lists != wantHeld {
		t.Errorf("%d inodes of %d; %d deleted and open, %d on lists, of %d", inodes, len(links), held, lists, wantHeld)
	}
	t.Logf("%s: %d files compared in %v; %q", d.name, len(want), time.Since(began), info.Notes)
}

func collect(t *testing.T, fs *FS, p string, number uint64, into map[string]disk.Node) {
	t.Helper()
	n, err := fs.Node(number)
	if err != nil {
		t.Errorf("%q: %v", p, err)
		return
	}
	into[p] = n
	if n.Stat().Type() != disk.TypeDir {
		return
	}
	for e, err := range n.Entries() {
		if err != nil {
			t.Errorf("%q: %v", p, err)
			continue
		}
		collect(t, fs, filepath.Join(p, e.Name), e.Inode, into)
	}
}

// difference compares a file with what its guest says of it.
func difference(n disk.Node, w *listed, isDirty bool) string {
	s := n.Stat()
	at := func(t time.Time) [2]int64 {
		if t.IsZero() {
			return [2]int64{}
		}
		return [2]int64{t.Unix(), int64(t.Nanosecond())}
	}
	got := listed{
		Path: w.Path, Inode: s.Inode, Mode: s.Mode, UID: s.UID, GID: s.GID, Links: s.Links, Project: s.Project, Generation: s.Generation,
		Immutable: s.Flags&disk.Immutable != 0, Append: s.Flags&disk.AppendOnly != 0, Size: s.Size, Blocks: s.Blocks, Major: s.Major, Minor: s.Minor,
		Times: [4][2]int64{at(s.Accessed), at(s.Modified), at(s.Changed), at(s.Born)},
	}
	if isDirty { // the kernel counts what it has reserved in memory
		got.Blocks = w.Blocks
	}
	switch s.Type() {
	case disk.TypeLink:
		target, err := n.Target()
		if err != nil {
			return err.Error()
		}
		got.Target = []byte(target)
	case disk.TypeRegular:
		sum, err := sumOf(n)
		if err != nil {
			return err.Error()
		}
		got.Sum = sum
	}
	if kind := s.Type(); kind != disk.TypeRegular && kind != disk.TypeDir { // the guest cannot open others to ask
		got.Generation, got.Project = w.Generation, w.Project
	}
	for a, err := range n.Attributes() {
		if err != nil {
			return err.Error()
		}
		if got.Attributes == nil {
			got.Attributes = map[string][]byte{}
		}
		if len(a.Value) > 200 {
			a.Value = []byte(fmt.Sprintf("%x", sha256.Sum256(a.Value)))
		}
		got.Attributes[a.Name] = a.Value
	}
	maps.DeleteFunc(w.Attributes, func(name string, _ []byte) bool { return strings.HasPrefix(name, "trusted.SGI_ACL_") }) // shown twice
	if !maps.EqualFunc(got.Attributes, w.Attributes, bytes.Equal) {
		return fmt.Sprintf("attributes %q, the guest has %q", got.Attributes, w.Attributes)
	}
	got.Attributes, w.Attributes = nil, nil
	g, err1 := json.Marshal(got)
	v, err2 := json.Marshal(w)
	if err1 != nil || err2 != nil || !bytes.Equal(g, v) {
		return fmt.Sprintf("got  %s\nwant %s", g, v)
	}
	return ""
}

// sumOf is the sum that disktree makes.
func sumOf(n disk.Node) (string, error) {
	c, err := n.Content()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if c.Size() <= 64<<20 {
		_, err := io.Copy(h, io.NewSectionReader(c, 0, c.Size()))
		return fmt.Sprintf("%x", h.Sum(nil)), err
	}
	b := make([]byte, 4096)
	for at := int64(0); at < c.Size(); at += 1 << 30 {
		n, err := c.ReadAt(b, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		h.Write(b[:n])
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}
