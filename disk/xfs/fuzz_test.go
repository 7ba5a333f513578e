package xfs

import (
	"bytes"
	"compress/gzip"
	"io"
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

// sample is a small file system that mkfs.xfs made, with rmapbt, reflink, nrext64 and bigtime, of the tree that the example shows.
func sample(t testing.TB) *memory {
	t.Helper()
	f, err := os.Open("testdata/small.xfs.gz")
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

// FuzzOpen changes bytes of a whole file system and reads all that is there, which must neither panic nor run away.
// Checksums would keep most changes out: for half of the inputs they are not looked at.
func FuzzOpen(f *testing.F) {
	dev := sample(f)
	f.Add([]byte{0, 0, 0, 101, 5}, false)
	f.Add([]byte{0, 0, 2, 20, 0xff, 0, 1, 4, 20, 7}, true)
	f.Fuzz(func(_ *testing.T, changes []byte, blind bool) {
		damaged := &memory{pages: map[int64][]byte{}, size: dev.size}
		for at, page := range dev.pages {
			damaged.pages[at] = page
		}
		touched := map[int64]bool{}
		for ; len(changes) >= 5; changes = changes[5:] { // which page, where in it, and to what
			page := dev.used[(int(changes[0])<<8|int(changes[1]))%len(dev.used)]
			if !touched[page] {
				damaged.pages[page] = append([]byte(nil), damaged.pages[page]...)
			}
			touched[page] = true
			damaged.pages[page][(int(changes[2])<<8|int(changes[3]))%memoryPage] = changes[4]
		}
		fs, err := Open(damaged)
		if err != nil {
			return
		}
		fs.cache.blind = blind
		if g := readEverything(fs); g.bytes > 1<<30 || g.inodes > 1<<20 {
			panic("more was read than there is")
		}
	})
}

var _ disk.Device = (*memory)(nil)
