package xfs

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// patched is a device with some bytes changed.
type patched struct {
	disk.Device
	at map[int64]byte // what is xored to a byte
}

func (p patched) ReadAt(b []byte, offset int64) (int, error) {
	n, err := p.Device.ReadAt(b, offset)
	for at, x := range p.at {
		if at >= offset && at < offset+int64(n) {
			b[at-offset] ^= x
		}
	}
	return n, err
}

// gathered is all that can be read of a file system, with the errors.
type gathered struct {
	names  []string
	errs   []error
	bytes  int64
	inodes int
}

// readEverything goes through all inodes, and all that they have: what a damaged one says must harm nobody.
func readEverything(fs *FS) *gathered {
	g := &gathered{}
	fail := func(err error) {
		if err != nil {
			g.errs = append(g.errs, err)
		}
	}
	fs.Info()
	buffer := make([]byte, 64<<10)
	one := func(n disk.Node) {
		g.inodes++
		n.Stat().Flags.Names()
		for a, err := range n.Attributes() {
			fail(err)
			g.bytes += int64(len(a.Value))
		}
		switch n.Stat().Type() {
		case disk.TypeDir:
			for e, err := range n.Entries() {
				fail(err)
				if err == nil {
					g.names = append(g.names, e.Name)
				}
			}
		case disk.TypeLink:
			_, err := n.Target()
			fail(err)
		case disk.TypeRegular:
			c, err := n.Content()
			fail(err)
			if err != nil {
				return
			}
			for e, err := range c.Extents() {
				fail(err)
				got, err := c.ReadAt(buffer[:min(int64(len(buffer)), e.Length)], e.Logical)
				if !errors.Is(err, io.EOF) {
					fail(err)
				}
				g.bytes += int64(got)
			}
		}
	}
	for n, err := range fs.Nodes() {
		fail(err)
		if err == nil {
			one(n)
		}
	}
	for n, err := range fs.Unlinked() {
		fail(err)
		if err == nil {
			one(n)
		}
	}
	return g
}

// TestWrongChecksums changes a byte of one structure of each kind: that structure is wrong, and the others are read.
func TestWrongChecksums(t *testing.T) {
	tr := sampleTree(2000)
	for p, it := range tr {
		if len(it.target) > 300 {
			delete(tr, p)
		}
	}
	image := mkfs(t, tr, imageSize)
	dev := openDevice(t, image)
	fs := openImage(t, image)
	_, nodes := walk(t, fs)
	whole := readEverything(fs)
	if len(whole.errs) > 0 || len(whole.names) != len(tr)-1 {
		t.Fatalf("%d names instead of %d: %v", len(whole.names), len(tr)-1, whole.errs)
	}
	inode := nodes["names200"].(*node)
	big := nodes["many"].(*node)
	agi := 2 * int64(fs.sb.sectorSize)
	b, _, err := fs.agi(0)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		at           int64
		want         string
		names, least int
	}{
		"an inode":                 {inode.offset + 40, "wrong checksum of inode", -200, 0},
		"the place of an inode":    {inode.offset + 159, "wrong checksum of inode", -200, 0},
		"a block of a directory":   {big.dataRuns().list[0].physical*4096 + 100, "wrong checksum of a directory block", -400, 0},
		"a block that hashes":      {big.dataRuns().list[len(big.dataRuns().list)-1].physical*4096 + 100, "", 0, 0},
		"the header of a group":    {agi + 20, "wrong checksum of a inode header of an allocation group", -len(whole.names), 0},
		"a block of an inode tree": {int64(be.Uint32(b[20:]))*4096 + 60, "wrong checksum of a block of an inode tree", -len(whole.names), 0},
	} {
		damaged, err := Open(patched{dev, map[int64]byte{c.at: 1}})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got := readEverything(damaged)
		found := c.want == "" && len(got.errs) == 0
		for _, err := range got.errs {
			var where *disk.CorruptError
			if !errors.As(err, &where) {
				t.Errorf("%s: %v is no CorruptError", what, err)
			}
			found = found || strings.Contains(err.Error(), c.want) && where.Offset <= c.at && where.Offset > c.at-4096
		}
		if !found {
			t.Errorf("%s: %v", what, got.errs)
		}
		if lost := len(got.names) - len(whole.names); lost > 0 || lost < c.names {
			t.Errorf("%s: %d names instead of %d", what, len(got.names), len(whole.names))
		}
	}
	damaged, err := Open(patched{dev, map[int64]byte{108: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if notes := damaged.Info().Notes; !slices.Contains(notes, "the superblock's checksum is wrong") {
		t.Errorf("notes of a damaged superblock: %q", notes)
	}
}

// TestRefused has superblocks that are not read, each by its name.
func TestRefused(t *testing.T) {
	dev := openDevice(t, mkfs(t, nil, imageSize))
	for what, c := range map[string]struct {
		at    int64
		x     byte
		kind  error
		words string
	}{
		"no magic":          {0, 1, disk.ErrUnknown, "no superblock"},
		"version 6":         {101, 3, disk.ErrUnsupported, "version 6"},
		"unknown feature":   {216, 0x80, disk.ErrUnsupported, "incompatible features 0x80000000"},
		"block size":        {6, 0xff, nil, "block size"},
		"sector size":       {103, 1, nil, "sector size"},
		"inode size":        {104, 0xff, nil, "inode size"},
		"groups":            {88, 0xff, nil, "allocation groups"},
		"blocks of a group": {84, 0xff, nil, "allocation groups of"},
		"directory blocks":  {192, 0x7f, nil, "directory blocks"},
	} {
		_, err := Open(patched{dev, map[int64]byte{c.at: c.x}})
		var bad *disk.CorruptError
		if err == nil || !strings.Contains(err.Error(), c.words) || c.kind != nil && !errors.Is(err, c.kind) || c.kind == nil && !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, size := range []int64{0, 511, 512, 4095} {
		short, err := disk.Section(dev, 0, size)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(short); err == nil {
			t.Errorf("a device of %d bytes was opened", size)
		}
	}
	half, err := disk.Section(dev, 0, imageSize/2)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(half)
	if err != nil {
		t.Fatal(err)
	}
	if len(fs.Info().Notes) == 0 || len(readEverything(fs).errs) == 0 {
		t.Error("nothing is said of a device that ends too early")
	}
}
