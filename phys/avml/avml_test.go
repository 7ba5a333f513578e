package avml_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/klauspost/compress/snappy"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/avml"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

// block is one range as AVML writes it.
func block(start uint64, data []byte) []byte {
	var packed bytes.Buffer
	w := snappy.NewBufferedWriter(&packed)
	_, _ = w.Write(data)
	_ = w.Close()
	b := []byte("AVML\x02\x00\x00\x00")
	b = binary.LittleEndian.AppendUint64(b, start)
	b = binary.LittleEndian.AppendUint64(b, start+uint64(len(data))-1)
	b = append(b, make([]byte, 8)...)
	b = append(b, packed.Bytes()...)
	return binary.LittleEndian.AppendUint64(b, uint64(packed.Len()))
}

func Example() {
	dump := append(block(0x1000, bytes.Repeat([]byte("low "), 1024)), block(0x100000, bytes.Repeat([]byte("high"), 1024))...)
	m, err := avml.New(source{bytes.NewReader(dump)})
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 4)
	_, err = m.ReadAt(b, 0x100800)
	fmt.Printf("%s %v %v\n", b, err, m.Ranges())
	// Output: high <nil> [[0x1000, 0x2000) [0x100000, 0x101000)]
}

// TestContent: memory that packs well and memory that does not, over many frames.
func TestContent(t *testing.T) {
	data := bytes.Repeat([]byte("guest"), 100000)
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 300000)
	_, _ = random.Read(noise)
	data = append(data, noise...)
	m, err := avml.New(source{bytes.NewReader(block(0x10000, data))})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := m.ReadAt(got, 0x10000); err != nil || !bytes.Equal(got, data) {
		t.Errorf("all at once: %v", err)
	}
	for range 1000 {
		at, n := rand.IntN(len(data)-9000), 1+rand.IntN(9000)
		if _, err := m.ReadAt(got[:n], phys.Addr(0x10000+at)); err != nil || !bytes.Equal(got[:n], data[at:at+n]) {
			t.Fatalf("%d bytes at %#x: %v", n, at, err)
		}
	}
}

const mib = 1 << 20

// header is the header of a block alone, as AVML 0.17 writes it where all is zeros.
func header(start, size uint64) []byte { return block(start, make([]byte, size))[:32] }

func open(b []byte) (*avml.Memory, error) { return avml.New(source{bytes.NewReader(b)}) }

// TestZeros: blocks of zeros, whose header stands alone or is left out too.
func TestZeros(t *testing.T) {
	some := bytes.Repeat([]byte("some"), 4*mib) // a whole block
	low := block(0x1000, []byte("low!"))
	for name, c := range map[string]struct {
		b     []byte
		zeros []phys.Range // what reads as zeros
		holes []phys.Addr  // what is not there
	}{
		"header alone": {
			slices.Concat(low, block(mib, some), header(17*mib, 16*mib), header(33*mib, 16*mib), block(49*mib, []byte("more")), header(49*mib+4, mib)),
			[]phys.Range{{Start: 17 * mib, End: 49 * mib}, {Start: 49*mib + 4, End: 50*mib + 4}},
			[]phys.Addr{0x1004, 50*mib + 4},
		},
		"first": {slices.Concat(header(mib, 16*mib), block(17*mib, some)), []phys.Range{{Start: mib, End: 17 * mib}}, []phys.Addr{0, 33 * mib}},
		"left out": {
			slices.Concat(low, block(mib, some), block(65*mib, []byte("tail")), block(4<<30+32*mib, some)),
			[]phys.Range{{Start: 17 * mib, End: 65 * mib}, {Start: 4 << 30, End: 4<<30 + 32*mib}},
			[]phys.Addr{0x1004, 65*mib + 4, 1 << 30, 4<<30 - 1, 4<<30 + 48*mib},
		},
		"first left out": {slices.Concat(low, block(33*mib, some)), []phys.Range{{Start: mib, End: 33 * mib}}, []phys.Addr{0x1004, mib - 1}},
		"a hole":         {slices.Concat(low, block(3*mib, some), block(5<<30+4096, some)), nil, []phys.Addr{0x1004, 3*mib - 1, 20 * mib, 4 << 30}},
	} {
		m, err := open(c.b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.Lost() != 0 {
			t.Errorf("%s: %d bytes lost", name, m.Lost())
		}
		for _, r := range c.zeros {
			got := bytes.Repeat([]byte{1}, int(r.Size()))
			if _, err := m.ReadAt(got, r.Start); err != nil || !bytes.Equal(got, make([]byte, len(got))) {
				t.Errorf("%s: %v are not zeros: %v", name, r, err)
			}
			if p, ok := m.NextPopulated(r.Start); ok && p.Start < r.End {
				t.Errorf("%s: %v is said to be populated in %v", name, p, r)
			}
		}
		for _, at := range c.holes {
			if _, err := m.ReadAt(make([]byte, 1), at); !errors.Is(err, phys.ErrNotPresent) {
				t.Errorf("%s: hole at %#x: %v", name, uint64(at), err)
			}
		}
	}
}

// TestCutOff: a dump that was cut off has what is before that, and counts what it lacks.
func TestCutOff(t *testing.T) {
	noise := make([]byte, 300<<10)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(noise)
	whole := append(block(0x1000, []byte("whole")), block(mib, noise)...)
	m, err := open(whole[:len(whole)-100])
	if err != nil {
		t.Fatal(err)
	}
	there := m.Ranges()[1].Size()
	if m.Lost() == 0 || there+m.Lost() != uint64(len(noise)) {
		t.Errorf("%d bytes are there and %d lost of %d", there, m.Lost(), len(noise))
	}
	got := make([]byte, there)
	if _, err := m.ReadAt(got, mib); err != nil || !bytes.Equal(got, noise[:there]) {
		t.Errorf("what is there: %v", err)
	}
}

func TestHostile(t *testing.T) {
	whole := block(0x1000, bytes.Repeat([]byte("x"), 8192))
	for n := range whole {
		m, err := open(whole[:n])
		switch {
		case n == 32: // as of a block of zeros
		case n < len(whole)-8 && err == nil:
			t.Errorf("%d of %d bytes: no error, %d lost", n, len(whole), m.Lost())
		}
	}
	if _, err := open(header(0x1000, 17*mib)); err == nil {
		t.Error("no stream behind a large block, and no error")
	}
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 0x81
		if m, err := avml.New(source{bytes.NewReader(b)}); err == nil {
			_, _ = m.ReadAt(make([]byte, 8192), 0x1000)
		}
	}
}

func FuzzAVML(f *testing.F) {
	f.Add(block(0x1000, bytes.Repeat([]byte("x"), 8192)))
	f.Add(slices.Concat(header(0x1000, mib), block(mib, []byte("x")), header(33*mib, mib)))
	f.Fuzz(func(_ *testing.T, b []byte) {
		m, err := avml.New(source{bytes.NewReader(b)})
		if err != nil {
			return
		}
		for _, r := range m.Ranges() {
			_, _ = m.ReadAt(make([]byte, min(100, r.Size())), r.Start)
		}
	})
}
