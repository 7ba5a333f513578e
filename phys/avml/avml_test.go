package avml_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
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

func TestHostile(t *testing.T) {
	whole := block(0x1000, bytes.Repeat([]byte("x"), 8192))
	for n := range whole {
		if _, err := avml.New(source{bytes.NewReader(whole[:n])}); err == nil {
			t.Errorf("%d of %d bytes: no error", n, len(whole))
		}
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
