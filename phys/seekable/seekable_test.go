package seekable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/outsight-vmi/outsight/phys/seekable"
)

type source struct{ *bytes.Reader }

func (source) Close() error   { return nil }
func (s source) Size() uint64 { return uint64(s.Reader.Size()) }

// pack makes a seekable file of frames of n bytes.
func pack(data []byte, n int) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	var out []byte
	var table seekable.Table
	for len(data) > 0 {
		k := min(n, len(data))
		b := enc.EncodeAll(data[:k], nil)
		table.Add(len(b), k)
		out, data = append(out, b...), data[k:]
	}
	return table.Append(out)
}

func Example() {
	s, err := seekable.New(source{bytes.NewReader(pack([]byte("a needle in a haystack"), 5))})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	b := make([]byte, 6)
	_, err = s.ReadAt(b, 2)
	fmt.Printf("%s %v, %d bytes in all\n", b, err, s.Size())
	// Output: needle <nil>, 22 bytes in all
}

func TestContent(t *testing.T) {
	data := bytes.Repeat([]byte("some of it repeats "), 3000)
	for range 20000 {
		data = append(data, byte(rand.IntN(256)))
	}
	packed := pack(data, 4096)
	s, err := seekable.New(source{bytes.NewReader(packed)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := io.ReadAll(io.NewSectionReader(s, 0, int64(s.Size())))
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for range 1000 {
		at, n := rand.IntN(len(data)), rand.IntN(9000)
		k, err := s.ReadAt(got[:n], int64(at))
		want := data[at:min(len(data), at+n)]
		if k != len(want) || !bytes.Equal(got[:k], want) || (k < n) != errors.Is(err, io.EOF) {
			t.Fatalf("%d bytes at %d: %d %v", n, at, k, err)
		}
	}
	// Any zstd unpacks it.
	r, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if all, err := io.ReadAll(r); err != nil || !bytes.Equal(all, data) {
		t.Errorf("as a stream: %d bytes, %v", len(all), err)
	}
}

func TestHostile(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	// A stream does not say how much it holds.
	var stream bytes.Buffer
	w, err := zstd.NewWriter(&stream, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	huge := enc.EncodeAll(make([]byte, 65<<20), nil)
	for name, b := range map[string][]byte{"a stream": stream.Bytes(), "a huge frame": huge, "another file": bytes.Repeat([]byte("x"), 100), "nothing": nil} {
		if _, err := seekable.New(source{bytes.NewReader(b)}); !errors.Is(err, seekable.ErrNoTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole := pack([]byte("a needle in a haystack"), 5)
	for at := range whole {
		b := bytes.Clone(whole)
		b[at] ^= 0x55
		s, err := seekable.New(source{bytes.NewReader(b)})
		if err != nil {
			continue
		}
		_, _ = s.ReadAt(make([]byte, 22), 0)
		s.Close()
	}
}

func FuzzSeekable(f *testing.F) {
	whole := pack([]byte("a needle in a haystack"), 5)
	f.Add(whole)
	f.Add(whole[:len(whole)-30])
	f.Fuzz(func(_ *testing.T, b []byte) {
		s, err := seekable.New(source{bytes.NewReader(b)})
		if err != nil {
			return
		}
		_, _ = s.ReadAt(make([]byte, 100), 0)
		s.Close()
	})
}

// TestCutOff: a file that was cut off has the frames that are whole.
func TestCutOff(t *testing.T) {
	data := []byte("a needle in a haystack")
	whole := pack(data, 5)
	var ends []int // of the frames
	for at := 0; len(ends) < 5; {
		at = bytes.Index(whole[at+4:], []byte(seekable.Magic)) + at + 4
		if len(ends) == 4 {
			at = bytes.LastIndex(whole, []byte{0x5e, 0x2a, 0x4d, 0x18})
		}
		ends = append(ends, at)
	}
	for n := range whole {
		s, err := seekable.New(source{bytes.NewReader(whole[:n])})
		frames := 0
		for frames < len(ends) && ends[frames] <= n {
			frames++
		}
		if frames == 0 {
			if !errors.Is(err, seekable.ErrNoTable) {
				t.Errorf("%d bytes: %v", n, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d bytes: %v", n, err)
			continue
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, 100))
		if want := data[:min(5*frames, len(data))]; err != nil || !bytes.Equal(got, want) || !s.Bare() || s.CutOff() == (n == ends[frames-1]) {
			t.Errorf("%d bytes: %q, cut off %v, %v", n, got, s.CutOff(), err)
		}
	}
	// Frames of many blocks, with checksums, and some to be skipped between them.
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.IntN(256) >> (i >> 18))
	}
	b := append(enc.EncodeAll(noise, nil), 0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3)
	b = append(append(b, enc.EncodeAll(make([]byte, 3<<20), nil)...), enc.EncodeAll(noise, nil)[:1000]...)
	s, err := seekable.New(source{bytes.NewReader(b)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(s, 0, int64(s.Size())))
	if err != nil || !bytes.Equal(got, append(noise, make([]byte, 3<<20)...)) || !s.CutOff() {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
