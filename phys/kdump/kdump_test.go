package kdump_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/kdump"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

const page = 4096

// Kinds of packing.
const (
	plain      = 0
	packZlib   = 1
	packLZO    = 2
	packSnappy = 4
	packZstd   = 0x20
)

func pack(t testing.TB, p []byte, kind uint32) []byte {
	t.Helper()
	switch kind {
	case packZlib:
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		_, _ = w.Write(p)
		_ = w.Close()
		return b.Bytes()
	case packSnappy:
		return snappy.Encode(nil, p)
	case packZstd:
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(p, nil)
	case packLZO:
		// Literals only: a run of n bytes, then the end of the stream.
		b := []byte{0}
		for n := len(p) - 18; ; n -= 255 {
			if n <= 255 {
				b = append(b, byte(n))
				break
			}
			b = append(b, 0)
		}
		return append(append(b, p...), 0x11, 0, 0)
	}
	return p
}

// dump makes a kdump file: pages by number, how to pack them, and which others
// exist but are left out.
func dump(t testing.TB, pages map[int][]byte, kind uint32, left []int, level uint32) []byte {
	t.Helper()
	const top = 300
	b := make([]byte, 4*page)
	copy(b, "KDUMP   ")
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put32(b[8:], 6)
	copy(b[12+4*65:], "x86_64")
	put32(b[428:], page)
	put32(b[432:], 1) // sub header
	put32(b[436:], 2) // bitmaps
	put32(b[440:], top)
	put32(b[page+8:], level)
	put64(b[page+96:], top)
	first, second := b[2*page:], b[3*page:]
	for _, n := range left {
		first[n/8] |= 1 << (n % 8)
	}
	var descs, data []byte
	at := uint64(len(b) + 24*len(pages))
	for n := range top {
		p, ok := pages[n]
		if !ok {
			continue
		}
		first[n/8] |= 1 << (n % 8)
		second[n/8] |= 1 << (n % 8)
		packed := pack(t, p, kind)
		d := make([]byte, 24)
		put64(d, at+uint64(len(data)))
		put32(d[8:], uint32(len(packed)))
		put32(d[12:], kind)
		descs, data = append(descs, d...), append(data, packed...)
	}
	return append(append(b, descs...), data...)
}

func open(b []byte) (*kdump.Memory, error) { return kdump.New(source{bytes.NewReader(b)}) }

func pageOf(s string) []byte { return bytes.Repeat([]byte(s), page/len(s)) }

func Example() {
	m, err := open(dump(&testing.B{}, map[int][]byte{1: pageOf("one "), 65: pageOf("many")}, packZlib, nil, 0))
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 4)
	_, err = m.ReadAt(b, 65*page)
	fmt.Printf("%s %v %s %v\n", b, err, m.Packing(), m.Ranges())
	// Output: many <nil> zlib [[0x1000, 0x2000) [0x41000, 0x42000)]
}

func TestPackings(t *testing.T) {
	pages := map[int][]byte{0: make([]byte, page)}
	for n := 3; n < 290; n += 1 + n%5 {
		pages[n] = pageOf(fmt.Sprintf("%08d", n))
	}
	for name, kind := range map[string]uint32{"not packed": plain, "zlib": packZlib, "lzo": packLZO, "snappy": packSnappy, "zstd": packZstd} {
		m, err := open(dump(t, pages, kind, nil, 0))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Packing() != name {
			t.Errorf("%s is called %s", name, m.Packing())
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				got := make([]byte, page)
				for n := range 310 {
					_, err := m.ReadAt(got, phys.Addr(n*page))
					switch want, ok := pages[n]; {
					case ok && (err != nil || !bytes.Equal(got, want)):
						t.Errorf("%s: page %d: %.16q %v", name, n, got, err)
					case !ok && !errors.Is(err, phys.ErrNotPresent):
						t.Errorf("%s: page %d: %v", name, n, err)
					}
				}
			})
		}
		wg.Wait()
		var populated uint64
		for r, ok := m.NextPopulated(0); ok; r, ok = m.NextPopulated(r.End) {
			populated += r.Size()
		}
		if populated != uint64(len(pages))*page {
			t.Errorf("%s: %d bytes populated, want %d", name, populated, len(pages)*page)
		}
		if name == "zlib" && (m.Backed(0) || !m.Backed(3*page)) {
			t.Error("the page of zeros is not known as such")
		}
	}
}

// TestLeftOut: what was left out is never made up, but where it can only be zeros.
func TestLeftOut(t *testing.T) {
	pages := map[int][]byte{1: pageOf("here")}
	for level, isZero := range map[uint32]bool{0: false, 1: true, 31: false} {
		m, err := open(dump(t, pages, packZlib, []int{2}, level))
		if err != nil {
			t.Fatal(err)
		}
		b := []byte{1}
		_, err = m.ReadAt(b, 2*page)
		switch {
		case isZero && (err != nil || b[0] != 0):
			t.Errorf("level %d: %d %v", level, b[0], err)
		case !isZero && (!errors.Is(err, kdump.ErrExcluded) || !errors.Is(err, phys.ErrNotPresent)):
			t.Errorf("level %d: %v", level, err)
		}
		if r := m.Ranges(); len(r) != 1 || r[0] != (phys.Range{Start: page, End: 3 * page}) {
			t.Errorf("ranges %v", r)
		}
		if _, err := m.ReadAt(b, 5*page); errors.Is(err, kdump.ErrExcluded) || !errors.Is(err, phys.ErrNotPresent) {
			t.Errorf("no memory: %v", err)
		}
	}
}

// TestOpeningUnpacksNothing: only what is asked for is read.
func TestOpeningUnpacksNothing(t *testing.T) {
	pages := map[int][]byte{}
	for n := range 290 {
		pages[n] = pageOf("abcd")
	}
	b := dump(t, pages, packZlib, nil, 0)
	src := &counting{source: source{bytes.NewReader(b)}}
	m, err := kdump.New(src)
	if err != nil {
		t.Fatal(err)
	}
	if src.data > 3 {
		t.Errorf("opening read the data of %d pages", src.data)
	}
	_, _ = m.ReadAt(make([]byte, 8), 200*page)
	if src.data > 4 {
		t.Errorf("one read read the data of %d pages", src.data)
	}
}

type counting struct {
	source
	data int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if off >= 4*page+290*24 {
		c.data++
	}
	return c.source.ReadAt(p, off)
}

// TestHeaderIsAHint: what headers say beside the bitmaps does not decide what can be read.
func TestHeaderIsAHint(t *testing.T) {
	whole := dump(t, map[int][]byte{1: pageOf("here"), 9: pageOf("away")}, packZlib, nil, 0)
	patch := func(at int, v ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		b              []byte
		notes, foreign string
	}{
		"whole":      {whole, "", ""},
		"pages":      {patch(page+96, 0xff, 0xff, 0xff, 0xff), "4294967295 pages, and has bitmaps for 32768", ""},
		"no pages":   {patch(page+96, 0, 0, 0, 0), "0 pages", ""},
		"incomplete": {patch(424, 8), "incomplete, but has all", ""},
		"machine":    {patch(12+4*65, []byte("aarch64")...), "", "aarch64"},
		"notes":      {patch(page+56, 0xff, 0xff, 0xff, 0xff), "no notes where its header says", ""},
		"vmcoreinfo": {patch(page+32, 0, 0, 0, 1, 0, 0, 0, 0, 9), "no VMCOREINFO where its header says (9 bytes at offset 0x1000000)", ""},
	} {
		m, err := open(c.b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if notes := strings.Join(m.Notes(), "; "); !strings.Contains(notes, c.notes) || c.notes == "" && notes != "" {
			t.Errorf("%s: notes %q", name, notes)
		}
		if !strings.Contains(m.Foreign(), c.foreign) || c.foreign == "" && m.Foreign() != "" {
			t.Errorf("%s: machine %s", name, m.Foreign())
		}
		got := make([]byte, 4)
		if _, err := m.ReadAt(got, 9*page); err != nil || string(got) != "away" || m.Lost() != 0 {
			t.Errorf("%s: %q %v, %d lost", name, got, err, m.Lost())
		}
	}
}

// TestCutOff: a dump that was cut off, or that makedumpfile left incomplete, is read as far
// as it goes, and the pages that it lost are counted.
func TestCutOff(t *testing.T) {
	pages := map[int][]byte{0: make([]byte, page)}
	var order []int
	for n := 3; n < 290; n++ {
		pages[n] = pageOf(fmt.Sprintf("%08d", n))
		order = append(order, n)
	}
	whole := dump(t, pages, packZlib, nil, 0)
	// The last pages are zeros, and share the first one's bytes.
	descs := 4 * page
	for i := 250; i < 288; i++ {
		copy(whole[descs+24*i:descs+24*i+24], whole[descs:])
		pages[order[i-1]] = make([]byte, page)
	}
	check := func(name string, b []byte, least int) {
		t.Helper()
		m, err := open(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		lost := 0
		got := make([]byte, page)
		for n, want := range pages {
			switch _, err := m.ReadAt(got, phys.Addr(n*page)); {
			case errors.Is(err, kdump.ErrLost) && errors.Is(err, phys.ErrNotPresent) && !m.Backed(phys.Addr(n*page)):
				lost++
			case err != nil || !bytes.Equal(got, want):
				t.Errorf("%s: page %d: %.8q %v", name, n, got, err)
			}
		}
		if m.Lost() != uint64(lost)*page || lost < least {
			t.Errorf("%s: %d bytes are said to be lost, and %d pages are", name, m.Lost(), lost)
		}
	}
	check("whole", whole, 0)
	last := whole[descs+24*249:] // the last page that is not zeros
	end := binary.LittleEndian.Uint64(last) + uint64(binary.LittleEndian.Uint32(last[8:]))
	check("cut behind the last page", whole[:end], 0)
	check("cut by a byte", whole[:end-1], 1)
	check("cut in the middle", whole[:descs+24*288+4000], 100)
	incomplete := bytes.Clone(whole)
	incomplete[424] = 8
	clear(incomplete[descs+24*100 : descs+24*288]) // descriptors that were not written
	check("incomplete", incomplete, 188)
	if _, err := open(whole[:descs+24*200]); !errors.Is(err, phys.ErrGone) {
		t.Errorf("cut in the descriptors: %v", err)
	}
	if _, err := open(whole[:descs+24*288+1]); !errors.Is(err, phys.ErrGone) {
		t.Errorf("no page: %v", err)
	}
}

func TestHostile(t *testing.T) {
	whole := dump(t, map[int][]byte{1: pageOf("here"), 9: pageOf("away")}, packZlib, nil, 0)
	for n := 0; n < len(whole); n += 13 {
		if m, err := open(whole[:n]); err == nil {
			_, _ = m.ReadAt(make([]byte, page), page)
		}
	}
	patch := func(at int, v uint32) []byte {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"version":       patch(8, 0x6000000),
		"page size":     patch(428, 65536),
		"sub header":    patch(432, 0xffffffff),
		"bitmaps":       patch(436, 0xffffffff),
		"one of two":    patch(page+12, 1),
		"no pages":      patch(3*page, 0)[:5*page-page],
		"without bytes": nil,
	} {
		if name == "no pages" {
			clear(b[3*page:])
		}
		if _, err := open(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for kind := range uint32(64) { // pages that are not what they say
		b := patch(4*page+24+12, kind)
		m, err := open(b)
		if err != nil {
			continue
		}
		_, err = m.ReadAt(make([]byte, page), 9*page)
		if (kind&packZlib == 0) && err == nil {
			t.Errorf("packing %d: no error", kind)
		}
	}
}

func FuzzKdump(f *testing.F) {
	f.Add(dump(f, map[int][]byte{1: pageOf("here"), 9: make([]byte, page)}, packZlib, []int{4}, 1))
	f.Add(dump(f, map[int][]byte{1: pageOf("here")}, packLZO, []int{4}, 31))
	f.Fuzz(func(_ *testing.T, b []byte) {
		m, err := open(b)
		if err != nil {
			return
		}
		m.CPUs()
		m.Notes()
		for i, r := range m.Ranges() {
			if i == 16 {
				break
			}
			_, _ = m.ReadAt(make([]byte, 64), r.Start)
		}
	})
}
