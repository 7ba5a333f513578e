package xfs

import (
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"os"
	"testing"

	"github.com/outsight-vmi/outsight/disk"
)

// memory is a device of which only the pages that are not zero are kept.
type memory struct {
	pages map[int64][]byte
	used  []int64 // where they are, in order
	size  int64
}

const memoryPage = 4096

func newMemory(t testing.TB, r io.Reader) *memory {
	t.Helper()
	m := &memory{pages: map[int64][]byte{}}
	zero := make([]byte, memoryPage)
	for {
		page := make([]byte, memoryPage)
		_, err := io.ReadFull(r, page)
		if err == io.EOF {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(page, zero) {
			m.pages[m.size] = page
			m.used = append(m.used, m.size)
		}
		m.size += memoryPage
	}
}

func (m *memory) Size() int64 { return m.size }

func (m *memory) ReadAt(p []byte, offset int64) (n int, err error) {
	if offset >= m.size {
		return 0, io.EOF
	}
	if int64(len(p)) > m.size-offset {
		p, err = p[:m.size-offset], io.EOF
	}
	for n < len(p) {
		at := offset + int64(n)
		start := at &^ (memoryPage - 1)
		part := p[n:min(len(p), n+int(start+memoryPage-at))]
		if page, ok := m.pages[start]; ok {
			copy(part, page[at-start:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return n, err
}

// sample is a small file system in testdata. Both have been made by mkfs.xfs with rmapbt and reflink, "small" with nrext64 too; what is in
// "dirty", a guest's kernel wrote, which was stopped in the middle, and "dirty.jsonl" is what it showed before.
func sample(t testing.TB, name string) *memory {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".xfs.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	return newMemory(t, z)
}

// change sets bytes of a copy of a device: which page of some, where in it, and to what.
func (m *memory) change(used []int64, changes []byte) *memory {
	damaged := &memory{pages: maps.Clone(m.pages), size: m.size}
	touched := map[int64]bool{}
	for ; len(changes) >= 5; changes = changes[5:] {
		page := used[(int(changes[0])<<8|int(changes[1]))%len(used)]
		if !touched[page] {
			damaged.pages[page] = bytes.Clone(damaged.pages[page])
		}
		touched[page] = true
		damaged.pages[page][(int(changes[2])<<8|int(changes[3]))%memoryPage] = changes[4]
	}
	return damaged
}

// readDamaged opens a device and reads all that is there, which must neither panic nor run away.
func readDamaged(t *testing.T, dev *memory, blind bool) {
	fs, err := open(dev, blind)
	if err != nil {
		return
	}
	if g := readEverything(fs); g.bytes > 1<<30 || g.inodes > 1<<20 {
		t.Errorf("%d bytes of %d inodes were read, of a device of %d", g.bytes, g.inodes, dev.size)
	}
}

// FuzzOpen changes bytes of a whole file system. Checksums would keep most changes out: for half of the inputs they are not looked at.
func FuzzOpen(f *testing.F) {
	dev := sample(f, "small")
	f.Add([]byte{0, 0, 0, 101, 5}, false)
	f.Add([]byte{0, 0, 2, 20, 0xff, 0, 1, 4, 20, 7}, true)
	f.Fuzz(func(t *testing.T, changes []byte, blind bool) {
		readDamaged(t, dev.change(dev.used, changes), blind)
	})
}

// FuzzLog changes bytes of a log that is replayed, whose checksums are not looked at.
func FuzzLog(f *testing.F) {
	dev := sample(f, "dirty")
	fs, err := Open(dev)
	if err != nil {
		f.Fatal(err)
	}
	log, err := fs.newLogReader()
	if err != nil {
		f.Fatal(err)
	}
	var used []int64
	for _, page := range dev.used {
		if page >= log.start && page < log.start+log.size*sector {
			used = append(used, page)
		}
	}
	f.Add([]byte{0, 5, 0, 0, 0, 0, 6, 4, 20, 7})
	f.Fuzz(func(t *testing.T, changes []byte) { readDamaged(t, dev.change(used, changes), true) })
}

var _ disk.Device = (*memory)(nil)
