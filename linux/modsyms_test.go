package linux

import (
	"encoding/binary"
	"testing"
)

func elfSymbol(name uint32, section uint16, value uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, name)
	b = append(b, 0, 0)
	b = binary.LittleEndian.AppendUint16(b, section)
	b = binary.LittleEndian.AppendUint64(b, value)
	return binary.LittleEndian.AppendUint64(b, 0)
}

func TestParseModuleSymbols(t *testing.T) {
	var raw []byte
	for _, s := range [][]byte{
		elfSymbol(0, 0, 0), elfSymbol(1, 1, 0x30), elfSymbol(5, 0, 0x20), elfSymbol(9, 1, 0x10), elfSymbol(12, 1, 0x30),
	} {
		raw = append(raw, s...)
	}
	got := parseModuleSymbols(raw, []byte("?tUdT"))
	want := []moduleSymbol{{0x10, 9, 'd'}, {0x30, 1, 't'}, {0x30, 12, 'T'}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func FuzzParseModuleSymbols(f *testing.F) {
	f.Add(elfSymbol(1, 1, 0x30), []byte("t"))
	f.Add([]byte{1, 2, 3}, []byte{})
	f.Fuzz(func(t *testing.T, raw, kinds []byte) {
		last := moduleSymbol{}
		for _, s := range parseModuleSymbols(raw, kinds) {
			if s.at < last.at || s.name == 0 {
				t.Fatalf("%+v after %+v", s, last)
			}
			last = s
		}
	})
}

func TestTaintLetters(t *testing.T) {
	for bits, want := range map[uint64]string{0: "", 1: "P", 1<<12 | 1<<13: "OE", 1 << 40: "<40>"} {
		if got := TaintLetters(bits); got != want {
			t.Errorf("%#x is %q, want %q", bits, got, want)
		}
	}
}
