package kdump_test

import (
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/kdump"
)

// large is a kdump file of so many pages, all of which are kept: page n is one that
// begins with n, packed, without the room that it would take.
type large struct {
	pages uint64
	head  []byte // headers and bitmaps
	read  atomic.Uint64
	made  sync.Map // of packed pages, by number
}

const packedSlot = 128 // bytes in the file for each packed page

func newLarge(pages uint64) *large {
	half := (pages/8 + page - 1) &^ (page - 1)
	b := make([]byte, 2*page+2*half)
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	copy(b, kdump.Signature)
	put32(b[8:], 6)
	copy(b[12+4*65:], "x86_64")
	put32(b[428:], page)
	put32(b[432:], 1)
	put32(b[436:], uint32(2*half/page))
	put64(b[page+96:], pages)
	for i := range pages / 8 {
		b[2*page+i], b[2*page+half+i] = 0xff, 0xff
	}
	return &large{pages: pages, head: b}
}

func (l *large) Close() error { return nil }
func (l *large) descs() int64 { return int64(len(l.head)) }
func (l *large) data() int64  { return l.descs() + int64(l.pages*24) }
func (l *large) Size() uint64 { return uint64(l.data()) + l.pages*packedSlot }

// ReadAt makes what is asked for: a read is of one kind of content only.
func (l *large) ReadAt(p []byte, off int64) (int, error) {
	l.read.Add(uint64(len(p)))
	switch {
	case off < l.descs():
		return copy(p, l.head[off:]), nil
	case off < l.data():
		n := uint64(off-l.descs()) / 24
		d := make([]byte, 24)
		binary.LittleEndian.PutUint64(d, uint64(l.data())+n*packedSlot)
		binary.LittleEndian.PutUint32(d[8:], uint32(len(l.packed(n))))
		binary.LittleEndian.PutUint32(d[12:], packZlib)
		return copy(p, d[uint64(off-l.descs())%24:]), nil
	case uint64(off) < l.Size():
		return copy(p, l.packed(uint64(off-l.data())/packedSlot)), nil
	}
	return 0, io.EOF
}

func (l *large) packed(n uint64) []byte {
	if b, ok := l.made.Load(n); ok {
		return b.([]byte) //nolint:forcetypeassert // it is one
	}
	p := make([]byte, page)
	binary.LittleEndian.PutUint64(p, n+1)
	b := pack(&testing.B{}, p, packZlib)
	l.made.Store(n, b)
	return b
}

// TestLarge: opening reads two bits for each page and unpacks a handful, whatever the
// size; reading a page reads that one.
func TestLarge(t *testing.T) {
	for _, gib := range []uint64{1, 4, 64} {
		l := newLarge(gib << 30 / page)
		m, err := kdump.New(l)
		if err != nil {
			t.Fatal(err)
		}
		const headers = 64 << 10
		if got, most := l.read.Load(), l.pages/4+headers; got > most {
			t.Errorf("%d GiB: opening read %d bytes, more than %d", gib, got, most)
		}
		if got := m.Unpacked(); got > 3 {
			t.Errorf("%d GiB: opening unpacked %d pages", gib, got)
		}
		opened, unpacked := l.read.Load(), m.Unpacked()
		for _, n := range []uint64{0, 5, 4095, 4096, 99_999, l.pages - 1} {
			var b [8]byte
			if _, err := m.ReadAt(b[:], phys.Addr(n*page)); err != nil || binary.LittleEndian.Uint64(b[:]) != n+1 {
				t.Errorf("%d GiB: page %d begins with %x: %v", gib, n, b, err)
			}
		}
		if l.read.Load()-opened > 6*(24+packedSlot) || m.Unpacked()-unpacked > 6 {
			t.Errorf("%d GiB: reading 6 pages read %d bytes and unpacked %d pages", gib, l.read.Load()-opened, m.Unpacked()-unpacked)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name string
		gib  uint64
	}{{"1GiB", 1}, {"4GiB", 4}, {"64GiB", 64}} {
		b.Run(c.name, func(b *testing.B) {
			l := newLarge(c.gib << 30 / page)
			for b.Loop() {
				if _, err := kdump.New(l); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
