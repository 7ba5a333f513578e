package lime_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
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
		if n < lime.HeaderSize && err == nil { // one alone is of a range of zeros
			t.Errorf("%d bytes: no error", n)
		}
		if n == len(whole)-1 && (err != nil || m.Ranges()[1].Size() != 3 || m.Lost() != 1) {
			t.Errorf("a dump that was cut off: %v", err)
		}
	}
	for name, at := range map[string]int{"magic": 0, "version": 4, "last": 23} {
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

// ranges makes a file of ranges: what their headers say, and how many bytes each really has,
// of its own letter.
func ranges(rs []phys.Range, have ...int) (b []byte) {
	for i, r := range rs {
		b = lime.AppendHeader(b, r)
		b = append(b, bytes.Repeat([]byte{'a' + byte(i)}, have[i])...)
	}
	return b
}

// TestDamaged: no range is dropped in silence, whatever follows the damage, and bytes of one
// are not taken for another's.
func TestDamaged(t *testing.T) {
	rs := []phys.Range{{Start: 0x1000, End: 0x9fc00}, {Start: 0x100000, End: 0x300000}, {Start: 1 << 32, End: 1<<32 + 0x200000}, {Start: 1 << 33, End: 1<<33 + 0x4000}}
	sizes := []int{0x9ec00, 0x200000, 0x200000, 0x4000}
	fake := lime.AppendHeader(nil, phys.Range{Start: 1 << 40, End: 1<<40 + 0x100000})
	for name, c := range map[string]struct {
		b    []byte
		lost []uint64 // of each range
		note string
	}{
		"whole":                     {ranges(rs, sizes...), []uint64{0, 0, 0, 0}, ""},
		"padding":                   {append(ranges(rs, sizes...), make([]byte, 5000)...), []uint64{0, 0, 0, 0}, ""},
		"one short":                 {ranges(rs, 0x9ec00, 0x1ff000, 0x200000, 0x4000), []uint64{0, 0x1000, 0, 0}, "[0x100000, 0x300000) has 2093056 of 2097152 bytes"},
		"two short, by odd numbers": {ranges(rs, 0x9ebfb, 0x200000, 17, 0x4000), []uint64{5, 0, 0x200000 - 17, 0}, "has 17 of"},
		"the first has next to nothing, so that it seems cut off": {ranges(rs[1:], 10, 0x10, 0x4000), []uint64{0x200000 - 10, 0x200000 - 0x10, 0}, "has 10 of"},
		"zeros where the next should be": {
			slices.Concat(ranges(rs[:1], 0x9ec00-64), lime.AppendHeader(nil, rs[1]), make([]byte, 0x200000)), []uint64{64, 0}, "has 650176 of",
		},
		"a header in memory": {
			slices.Concat(ranges(rs[:2], 0x9ec00, 0x1000), fake, ranges(rs[2:3], 0x200000)), []uint64{0, 0x200000 - 0x1020, 0}, "has 4128 of",
		},
		"blanks as of AVML 0.17": {ranges(rs, 0, 0x200000, 0, 0x4000), []uint64{0, 0, 0, 0}, ""},
		"a last blank":           {ranges(rs, 0, 0x200000, 0x200000, 0), []uint64{0, 0, 0, 0}, ""},
		"more than a header says": {
			append(ranges(rs[:2], 0x9ec00+99, 0x200000), ranges(rs[2:], 0x200000, 0x4000)...), []uint64{0, 0, 0, 0}, "99 bytes that belong to no range",
		},
	} {
		m, err := lime.New(source{bytes.NewReader(c.b)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if notes := strings.Join(m.Notes(), "; "); !strings.Contains(notes, c.note) || c.note == "" && notes != "" {
			t.Errorf("%s: notes %q", name, notes)
		}
		var lost uint64
		for _, n := range c.lost {
			lost += n
		}
		if m.Lost() != lost {
			t.Errorf("%s: %d bytes lost, want %d", name, m.Lost(), lost)
		}
		first := len(rs) - len(c.lost)
		if strings.HasPrefix(name, "zeros") || strings.HasPrefix(name, "a header") {
			first = 0
		}
		for i, n := range c.lost {
			r := rs[first+i]
			end := r.End - phys.Addr(n)
			if _, err := m.ReadAt(make([]byte, 1), end); err == nil && end != r.Start {
				t.Errorf("%s: %#x is there", name, uint64(end))
			}
			b := make([]byte, 1)
			if _, err := m.ReadAt(b, end-1); err != nil || b[0] != 0 && (b[0] < 'a' || b[0] > 'd') {
				t.Errorf("%s: last byte of %v: %q %v", name, r, b, err)
			}
		}
	}
	// What follows cannot be placed: that is counted.
	b := slices.Concat(ranges(rs[:1], 0x9ec00), make([]byte, 2<<20))
	if m, err := lime.New(source{bytes.NewReader(b)}); err != nil || m.Lost() != 2<<20 || len(m.Notes()) != 1 {
		t.Errorf("zeros without a header: %v", err)
	}
}

// TestOmitted: AVML leaves out blocks of zeros, without compression too. LiME does not, and
// what is between its ranges is a hole.
func TestOmitted(t *testing.T) {
	const mib = 1 << 20
	block := func(at phys.Addr) phys.Range { return phys.Range{Start: at, End: at + 16*mib} }
	rs := []phys.Range{block(mib), block(17 * mib), block(65 * mib), {Start: 4<<30 + 16*mib, End: 4<<30 + 17*mib}}
	b := ranges(rs, 16*mib, 16*mib, 16*mib, mib)
	m, err := lime.New(source{bytes.NewReader(b)})
	if err != nil {
		t.Fatal(err)
	}
	got := []byte("....")
	if _, err := m.ReadAt(got, 65*mib-2); err != nil || string(got) != "\x00\x00cc" {
		t.Errorf("%q %v", got, err)
	}
	want := []phys.Range{{Start: mib, End: 81 * mib}, {Start: 4 << 30, End: 4<<30 + 17*mib}}
	if !slices.Equal(m.Ranges(), want) || m.Lost() != 0 {
		t.Errorf("%v", m.Ranges())
	}
	b = ranges(rs[2:], 16*mib, mib)
	if m, err := lime.New(source{bytes.NewReader(b)}); err != nil || !slices.Equal(m.Ranges(), rs[2:]) {
		t.Errorf("LiME's own: %v %v", m.Ranges(), err)
	}
}

func FuzzLime(f *testing.F) {
	f.Add(small())
	f.Add(small()[5:])
	f.Add(append(small()[:38], small()[40:]...))
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
