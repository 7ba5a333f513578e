package flattened_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/outsight-vmi/outsight/phys/flattened"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

type piece struct {
	at   int64
	data string
}

func flat(pieces ...piece) []byte {
	b := make([]byte, 4096)
	copy(b, flattened.Signature)
	b[23], b[31] = 1, 1
	add := func(at, n int64) {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	for _, p := range pieces {
		add(p.at, int64(len(p.data)))
		b = append(b, p.data...)
	}
	add(-1, -1)
	return b
}

func Example() {
	s, err := flattened.New(source{bytes.NewReader(flat(piece{6, "world"}, piece{0, "Hello "}, piece{0, "h"}))})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := io.ReadAll(io.NewSectionReader(s, 0, int64(s.Size())))
	fmt.Printf("%s %v\n", b, err)
	// Output: hello world <nil>
}

// TestArrange: the same as writing the pieces one after the other into a file.
func TestArrange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want []byte
		var pieces []piece
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			p := piece{int64(rapid.IntRange(0, 100).Draw(t, "at")), rapid.StringN(1, 30, 60).Draw(t, "data")}
			pieces = append(pieces, p)
			if end := int(p.at) + len(p.data); end > len(want) {
				want = append(want, make([]byte, end-len(want))...)
			}
			copy(want[p.at:], p.data)
		}
		s, err := flattened.New(source{bytes.NewReader(flat(pieces...))})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, int64(s.Size())))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q is not %q: %v", got, want, err)
		}
	})
}

func TestHostile(t *testing.T) {
	whole := flat(piece{6, "world"}, piece{0, "hello "})
	for n := range whole {
		s, err := flattened.New(source{bytes.NewReader(whole[:n])})
		const first = 4096 + 16 + 1 // the least that has something of a piece
		switch {
		case n < first && err == nil:
			t.Errorf("%d of %d bytes: no error", n, len(whole))
		case n >= first && (err != nil || !s.CutOff()):
			t.Errorf("%d of %d bytes: %v, not said to be cut off", n, len(whole), err)
		case n >= first+4+16+6: // both pieces
			b := make([]byte, 11)
			if _, err := s.ReadAt(b, 0); err != nil || string(b) != "hello world" {
				t.Errorf("%d of %d bytes: %q %v", n, len(whole), b, err)
			}
		}
	}
	for name, b := range map[string][]byte{
		"nothing":      flat(),
		"beyond":       flat(piece{1<<63 - 2, "xxxxx"}),
		"negative":     flat(piece{-2, "x"}),
		"empty piece":  flat(piece{0, ""}),
		"wrong number": append([]byte("makedumpfile\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07"), whole[24:]...),
	} {
		if _, err := flattened.New(source{bytes.NewReader(b)}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	s, err := flattened.New(source{bytes.NewReader(whole)})
	if err != nil || s.CutOff() {
		t.Fatal(err)
	}
	if n, err := s.ReadAt(make([]byte, 20), 6); n != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d %v", n, err)
	}
}

func FuzzFlattened(f *testing.F) {
	f.Add(flat(piece{6, "world"}, piece{0, "hello "}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if s, err := flattened.New(source{bytes.NewReader(b)}); err == nil {
			_, _ = s.ReadAt(make([]byte, 100), 0)
		}
	})
}
