package lime_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/phys/lime"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

func small() []byte {
	b := lime.AppendHeader(nil, phys.Range{Start: 0x1000, End: 0x1008})
	b = append(b, "01234567"...)
	b = lime.AppendHeader(b, phys.Range{Start: 0x100000, End: 0x100004})
	return append(b, "abcd"...)
}

func Example() {
	m, err := lime.New(source{bytes.NewReader(small())})
	if err != nil {
		fmt.Println(err)
		return
	}
	b := make([]byte, 4)
	_, err = m.ReadAt(b, 0x100000)
	fmt.Printf("%s %v %v\n", b, err, m.Ranges())
	// Output: abcd <nil> [[0x1000, 0x1008) [0x100000, 0x100004)]
}

func TestHeader(t *testing.T) {
	want := "EMiL\x01\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\xff\x1f\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if got := lime.AppendHeader(nil, phys.Range{Start: 0x1000, End: 0x2000}); string(got) != want {
		t.Errorf("%q", got)
	}
}

func TestHostile(t *testing.T) {
	whole := small()
	for n := range whole {
		m, err := lime.New(source{bytes.NewReader(whole[:n])})
		if n <= lime.HeaderSize && err == nil {
			t.Errorf("%d bytes: no error", n)
		}
		if n == len(whole)-1 && (err != nil || m.Ranges()[1].Size() != 3 || m.Short() != 1) {
			t.Errorf("a dump that was cut off: %v", err)
		}
	}
	for name, at := range map[string]int{"magic": 0, "version": 4, "last": 23, "second header": 32 + 8} {
		b := bytes.Clone(whole)
		b[at] ^= 0xff
		if name == "last" {
			copy(b[16:], "\xff\xff\xff\xff\xff\xff\xff\xff")
		}
		if _, err := lime.New(source{bytes.NewReader(b)}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzLime(f *testing.F) {
	f.Add(small())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := lime.New(source{bytes.NewReader(b)})
		if err != nil {
			return
		}
		for _, r := range m.Ranges() {
			if _, err := m.ReadAt(make([]byte, min(16, r.Size())), r.Start); err != nil {
				t.Fatalf("%v: %v", r, err)
			}
		}
	})
}
