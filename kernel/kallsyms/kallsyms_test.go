package kallsyms_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/kernel/kallsyms"
	"github.com/outsight-vmi/outsight/linux/synth"
)

const (
	textRel = 2 << 20 // from _text to the start of the window
	lead    = 4096    // of other bytes before the tables
)

// symbols are n symbols, ascending, with per-CPU ones first where l stores those
// as absolute.
func symbols(l synth.Layout, n int) []synth.Symbol {
	var all []synth.Symbol
	if l != synth.Since64 && l != synth.Place {
		for i := range 40 {
			all = append(all, synth.Symbol{Name: fmt.Sprintf("percpu_%d", i), Type: 'A', Rel: int64(64 * i), Percpu: true})
		}
	}
	all = append(all, synth.Symbol{Name: "_text", Type: 'T'}, synth.Symbol{Name: "_stext", Type: 'T'})
	for i := len(all); i < n; i++ {
		s := synth.Symbol{Name: fmt.Sprintf("fn_%x", i*7919), Type: 't', Rel: int64(16 * (i / 3))} // three share an address
		if i%500 == 0 {
			s.Name = strings.Repeat("very_long_rust_name_", 15) + s.Name // two length bytes
		}
		all = append(all, s)
	}
	return all
}

// window is read-only data with the tables of all in it.
func window(l synth.Layout, all []synth.Symbol) []byte {
	w := bytes.Repeat([]byte("rodata! \x00\x00\x00\x00\x01\x02\x03\x04"), lead/16)
	w = append(w, synth.Kallsyms(l, all, textRel+lead, 0xffffffff81000000)...)
	return append(w, bytes.Repeat([]byte{0xcc, 0, 0, 0}, 1024)...)
}

func open(t testing.TB, w []byte) *kallsyms.Table {
	t.Helper()
	for p := kallsyms.NextIndex(w, 0); p >= 0; p = kallsyms.NextIndex(w, p+4) {
		if table, err := kallsyms.Find(w, p); err == nil {
			return table
		}
	}
	t.Fatal("no table found")
	return nil
}

func TestRoundTrip(t *testing.T) {
	encodings := map[synth.Layout]kallsyms.Encoding{
		synth.Since64: kallsyms.BaseRelative, synth.Place: kallsyms.PlaceRelative, synth.Since64Percpu: kallsyms.AbsolutePercpu,
		synth.Before64: kallsyms.AbsolutePercpu, synth.Before64Seqs: kallsyms.AbsolutePercpu,
	}
	for _, l := range synth.Layouts() {
		for _, n := range []int{3841, 4096, 5003} {
			t.Run(fmt.Sprint(l, n), func(t *testing.T) {
				want := symbols(l, n)
				table := open(t, window(l, want))
				if table.N != n || table.Encoding != encodings[l] {
					t.Fatalf("%d symbols, %v", table.N, table.Encoding)
				}
				pos, has := table.TextPosition()
				if has != (l == synth.Place) || has && pos != -textRel {
					t.Errorf("text at %d, %v", pos, has)
				}
				if l != synth.Place && table.RelativeBase != 0xffffffff81000000 {
					t.Errorf("base %#x", table.RelativeBase)
				}
				var got []synth.Symbol
				for s := range table.All() {
					got = append(got, synth.Symbol(s))
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff)
				}
				agree(t, table, want)
				agree(t, reopen(t, window(l, want), table), want)
			})
		}
	}
}

// reopen opens the table in w once more, where it is known to lie.
func reopen(t *testing.T, w []byte, known *kallsyms.Table) *kallsyms.Table {
	t.Helper()
	table, err := kallsyms.Open(known.Layout(), func(p []byte, off int) error {
		copy(p, w[known.Start+off:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A table reads only what it is asked for, and is silent when that fails.
func TestOpenReadsLittle(t *testing.T) {
	all := symbols(synth.Place, 50000)
	w := window(synth.Place, all)
	known := open(t, w)
	read, gone := 0, false
	table, err := kallsyms.Open(known.Layout(), func(p []byte, off int) error {
		if gone {
			return errors.New("gone")
		}
		read += copy(p, w[known.Start+off:])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := all[40000]
	want, _, _ := known.At(s.Rel)
	if name, off, ok := table.At(s.Rel); name != want || off != 0 || !ok {
		t.Errorf("At(%#x) is %q, %#x, %v; not %q", s.Rel, name, off, ok, want)
	}
	if whole := known.End - known.Start; read > whole/4 {
		t.Errorf("one answer read %d of %d bytes", read, whole)
	}
	gone = true
	if name, _, ok := table.At(all[20000].Rel); ok {
		t.Errorf("%q returned from a table that is gone", name)
	}
	if found := table.Lookup(s.Name); len(found) > 0 {
		t.Errorf("%v found in a table that is gone", found)
	}
}

// agree fails unless all ways to ask a table give the same answers.
func agree(t *testing.T, table *kallsyms.Table, want []synth.Symbol) {
	t.Helper()
	var names []string
	for i, s := range want {
		names = append(names, s.Name)
		if rel, percpu := table.Rel(i); rel != s.Rel || percpu != s.Percpu {
			t.Errorf("Rel(%d) is %d, %v", i, rel, percpu)
		}
	}
	found := table.Lookup(append(names, "no_such_symbol", "")...)
	if len(found) != len(want) {
		t.Errorf("%d of %d symbols looked up", len(found), len(want))
	}
	first := map[int64]string{}
	for i, s := range want {
		if diff := cmp.Diff(kallsyms.Symbol(s), found[s.Name]); diff != "" {
			t.Error(diff)
		}
		if i%97 == 0 && table.Name(i) != s.Name {
			t.Errorf("Name(%d) is %q", i, table.Name(i))
		}
		if s.Percpu {
			continue
		}
		if first[s.Rel] == "" {
			first[s.Rel] = s.Name
		}
		if name, off, ok := table.At(s.Rel + 5); !ok || off != 5 || name != first[s.Rel] {
			t.Errorf("At(%d) is %q+%d, %v; want %s", s.Rel+5, name, off, ok, first[s.Rel])
		}
	}
	if name, _, ok := table.At(-1); ok {
		t.Errorf("before the text is %q", name)
	}
	if table.Name(-1) != "" || table.Name(len(want)) != "" {
		t.Error("there are names outside the table")
	}
}

func TestIterationStops(t *testing.T) {
	table := open(t, window(synth.Place, symbols(synth.Place, 4000)))
	n := 0
	for range table.All() {
		if n++; n == 10 {
			break
		}
	}
	if n != 10 {
		t.Error(n)
	}
}

// A window that ends within the tables says that more is needed.
func TestShortWindow(t *testing.T) {
	for _, l := range []synth.Layout{synth.Since64, synth.Since64Percpu, synth.Place} {
		w := window(l, symbols(l, 4000))
		full := open(t, w)
		p := kallsyms.NextIndex(w, 0)
		if _, err := kallsyms.Find(w[:full.End-64], p); !errors.Is(err, kallsyms.ErrShort) {
			t.Errorf("%v: %v", l, err)
		}
		if _, err := kallsyms.Find(w, 4); !errors.Is(err, kallsyms.ErrNone) {
			t.Errorf("%v: %v", l, err)
		}
	}
}

// hostile is a window in which a great many places pass the cheap tests: every
// name is two bytes, so that names could begin anywhere, and every word before
// them could be their count.
func hostile() []byte {
	const chains = 200
	le := binary.LittleEndian
	w := bytes.Repeat([]byte{1, 0}, 4<<20)
	for range chains {
		for i := range 257 {
			w = le.AppendUint32(w, uint32(512*i))
		}
		w = append(w, bytes.Repeat([]byte{1, 0}, 128)...)
	}
	good := window(synth.Since64, symbols(synth.Since64, 4000))
	p := kallsyms.NextIndex(good, 0)
	return append(w, good[p-4096:p+512]...) // its token table and index
}

func TestHostileWindowTakesBoundedTime(t *testing.T) {
	w := hostile()
	p := kallsyms.NextIndex(w, 0)
	if p < 0 {
		t.Fatal("the hostile window is not looked at")
	}
	start := time.Now()
	if _, err := kallsyms.Find(w, p); err == nil {
		t.Error("a table was found")
	}
	// It takes milliseconds; unbounded it would be minutes.
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

// use asks a table that hostile bytes made everything; it must not panic, and must
// not cost more than the bytes can hold.
func use(t *testing.T, table *kallsyms.Table, w []byte) {
	if table.N > len(w)/2 || table.Start < 0 || table.End > len(w)+16 || table.Start > table.End {
		t.Fatalf("%d symbols in [%d, %d) of %d bytes", table.N, table.Start, table.End, len(w))
	}
	n := 0
	for s := range table.All() {
		if len(s.Name) > kallsyms.MaxName {
			t.Fatalf("a name of %d bytes", len(s.Name))
		}
		n++
	}
	if n > table.N {
		t.Fatalf("%d of %d symbols", n, table.N)
	}
	table.Lookup("_text", "fn_0", "")
	for i := 0; i < table.N; i += 1 + table.N/16 {
		rel, _ := table.Rel(i)
		table.At(rel)
		table.Name(i)
	}
	table.At(-1 << 62)
	table.At(1 << 62)
}

// FuzzFind mutates a whole window: edits are triples of position and value.
func FuzzFind(f *testing.F) {
	windows := map[byte][]byte{}
	for _, l := range synth.Layouts() {
		windows[byte(l)] = window(l, symbols(l, 3900))
		f.Add(byte(l), 0, []byte{})
		f.Add(byte(l), 0, []byte{0x10, 0x00, 0xff, 0x10, 0x04, 0x7f})
		f.Add(byte(l), 300, []byte{0x20, 0x20, 0x80})
	}
	f.Fuzz(func(t *testing.T, which byte, cut int, edits []byte) {
		w := slices.Clone(windows[which%byte(len(windows))])
		for ; len(edits) >= 3; edits = edits[3:] {
			at := int(edits[0])<<8 | int(edits[1])
			w[at%len(w)] = edits[2]
			w[(len(w)-1-at%4096)%len(w)] ^= edits[2] // and near the offsets, or behind
		}
		if cut > 0 {
			w = w[:len(w)-cut%len(w)]
		}
		for p := kallsyms.NextIndex(w, 0); p >= 0; p = kallsyms.NextIndex(w, p+4) {
			if table, err := kallsyms.Find(w, p); err == nil {
				use(t, table, w)
			}
		}
	})
}

// FuzzBytes gives bytes as they come.
func FuzzBytes(f *testing.F) {
	w := window(synth.Place, symbols(synth.Place, 3900))
	p := kallsyms.NextIndex(w, 0)
	f.Add(w[p-2000 : p+600])
	f.Fuzz(func(t *testing.T, w []byte) {
		for p := kallsyms.NextIndex(w, 0); p >= 0; p = kallsyms.NextIndex(w, p+4) {
			if table, err := kallsyms.Find(w, p); err == nil {
				use(t, table, w)
			}
		}
		for p := range min(len(w), 64) {
			_, _ = kallsyms.Find(w, p)
		}
	})
}

// FuzzOpen opens tables where they are said to lie, and are not.
func FuzzOpen(f *testing.F) {
	w := window(synth.Place, symbols(synth.Place, 3900))
	l := open(f, w).Layout()
	f.Add(l.N, byte(l.Encoding), l.Names, l.NamesEnd, l.Markers, l.TokenTable, l.TokenIndex, l.Offsets, l.Text)
	f.Add(l.N, byte(l.Encoding), l.NamesEnd, l.Names, l.TokenIndex, l.TokenIndex, l.TokenTable, l.Markers, l.Text)
	f.Fuzz(func(t *testing.T, n int, encoding byte, names, end, markers, table, index, offsets int, text int64) {
		l := kallsyms.Layout{N: n, Encoding: kallsyms.Encoding(encoding), Size: len(w), Names: names, NamesEnd: end, Markers: markers, TokenTable: table, TokenIndex: index, Offsets: offsets, Text: text}
		opened, err := kallsyms.Open(l, func(p []byte, off int) error {
			copy(p, w[off:])
			return nil
		})
		if err == nil {
			use(t, opened, w)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	all := symbols(synth.Place, 100_000)
	w := window(synth.Place, all)
	b.SetBytes(int64(len(w)))
	for b.Loop() {
		if _, err := kallsyms.Find(w, kallsyms.NextIndex(w, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	table := open(b, window(synth.Place, symbols(synth.Place, 100_000)))
	for b.Loop() {
		table.Lookup("init_task", "no_such", "fn_10")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/symbol")
}
