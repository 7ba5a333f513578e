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
	if _, err := seekable.New(source{bytes.NewReader(enc.EncodeAll(make([]byte, 100), nil))}); !errors.Is(err, seekable.ErrNoTable) {
		t.Errorf("no table: %v", err)
	}
	whole := pack([]byte("a needle in a haystack"), 5)
	for n := range whole {
		if _, err := seekable.New(source{bytes.NewReader(whole[:n])}); err == nil {
			t.Errorf("%d of %d bytes: no error", n, len(whole))
		}
	}
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
	f.Add(pack([]byte("a needle in a haystack"), 5))
	f.Fuzz(func(_ *testing.T, b []byte) {
		s, err := seekable.New(source{bytes.NewReader(b)})
		if err != nil {
			return
		}
		_, _ = s.ReadAt(make([]byte, 100), 0)
		s.Close()
	})
}
