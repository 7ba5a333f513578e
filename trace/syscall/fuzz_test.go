package syscall

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// maxText bounds what any call can become: the largest pieces, escaped.
const maxText = 2 << 20

// FuzzCall writes calls whose values are anything: nothing panics, what comes out is bounded, and
// has no control characters.
func FuzzCall(f *testing.F) {
	f.Add(uint16(0), uint64(1), []byte("abc"), int64(3))
	f.Add(uint16(257), uint64(2), []byte("/etc/passwd\x1b[2J"), int64(-2))
	f.Fuzz(func(t *testing.T, number uint16, seed uint64, data []byte, result int64) {
		abi := ABI(number >> 15)
		table := Table(abi)
		c := table[int(number&0x7fff)%len(table)]
		if c == nil {
			return
		}
		check(t, c, hostile(c, seed, data, result))
	})
}

// hostile makes values of a call's pieces out of data.
func hostile(c *Call, seed uint64, data []byte, result int64) *Values {
	r := rand.New(rand.NewPCG(seed, 1))
	v := &Values{Result: result, Returned: r.IntN(8) > 0}
	for i := range v.Args {
		v.Args[i] = r.Uint64() >> r.IntN(64)
		if r.IntN(4) == 0 {
			v.Args[i] = ^v.Args[i]
		}
	}
	if c.selector >= 0 && r.IntN(4) > 0 { // a variant that exists
		for k := range c.variants {
			v.Args[c.selector] = k
			break
		}
	}
	if r.IntN(2) == 0 {
		v.Data = append(v.Data, Data{Tag: TagSocket, Bytes: []byte{byte(r.IntN(12)), 0}[:r.IntN(3)]})
	}
	for tag, p := range c.Pieces {
		for range r.IntN(3) {
			b := make([]byte, r.IntN(int(min(p.Limit, 4096))+1))
			for i := range b {
				if len(data) > 0 {
					b[i] = data[r.IntN(len(data))]
				}
				if r.IntN(3) == 0 {
					b[i] = byte(r.Uint32() >> r.IntN(32))
				}
			}
			if len(b) > 16 && r.IntN(2) == 0 {
				binary.LittleEndian.PutUint64(b[8*r.IntN(len(b)/8):], r.Uint64()>>r.IntN(64))
			}
			v.Data = append(v.Data, Data{Tag: uint8(tag), Status: Status(r.IntN(4)), Bytes: b})
		}
	}
	return v
}

func check(t *testing.T, c *Call, v *Values) {
	t.Helper()
	out := c.AppendArgs(nil, v, Options{})
	out = c.AppendResult(append(out, " = "...), v)
	for _, s := range c.Fields(v) {
		out = append(out, s...)
	}
	if len(out) > maxText {
		t.Errorf("%s: %d bytes", c.Name, len(out))
	}
	for _, b := range out {
		if b < ' ' || b > '~' {
			t.Fatalf("%s: byte %#x in %q", c.Name, b, out)
		}
	}
}

// Every call, with values that make no sense.
func TestHostileValues(t *testing.T) {
	start := time.Now()
	n := 0
	for seed := range uint64(8) {
		for _, abi := range []ABI{ABI64, ABI32} {
			for _, c := range Table(abi) {
				if c != nil {
					n++
					check(t, c, hostile(c, seed*1000+uint64(c.Number), []byte("\x00\x01\x1b\x7f\xff"), int64(seed)-20))
				}
			}
		}
	}
	t.Logf("%d calls in %v", n, time.Since(start))
}

func FuzzSignature(f *testing.F) {
	f.Add("open", "const char *", "filename", []byte("x"))
	f.Add("", "int", "\x1b[2J", []byte{})
	f.Fuzz(func(t *testing.T, name, ctype, arg string, data []byte) {
		c := FromSignature(1000, Signature{Name: name, Types: []string{ctype, ctype, ctype, ctype, ctype, ctype, ctype}, Args: []string{arg, name, ctype, arg, arg, arg, arg}})
		if len(c.Args) > 6 {
			t.Errorf("%d arguments", len(c.Args))
		}
		check(t, c, hostile(c, uint64(len(data)), data, 0))
	})
}
