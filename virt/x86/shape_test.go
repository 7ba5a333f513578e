package x86_test

import (
	"encoding/hex"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt/x86"
)

func TestShapeOf(t *testing.T) {
	for _, c := range []struct {
		code               string
		len, opcode, relAt int
	}{
		{"90", 1, 0, 0},
		{"6690", 2, 1, 0},
		{"0f1f4400 00", 5, 0, 0},
		{"662e0f1f840000000000", 10, 2, 0},
		{"e811223344", 5, 0, 1},
		{"2ee811223344", 6, 1, 2},
		{"eb05", 2, 0, 1},
		{"0f8411223344", 6, 0, 2},
		{"7405", 2, 0, 1},
		{"f30f1efa", 4, 1, 0},
		{"0f01ca", 3, 0, 0},
		{"0f01cb", 3, 0, 0},
		{"0faee8", 3, 0, 0}, // endbr64, clac, stac, lfence
		{"ff1511223344", 6, 0, 2},
		{"ff142511223344", 7, 0, 0},
		{"48b81122334455667788", 10, 1, 0},
		{"66b81122", 4, 1, 0},
		{"f60501020304ff", 7, 0, 2},
		{"f7d8", 2, 0, 0},
		{"f7c011223344", 6, 0, 0},
		{"48c7c011223344", 7, 1, 0},
		{"c4e2f9f7c1", 5, 0, 0},
		{"62f17c48100501020304", 10, 0, 6},
		{"c8112233", 4, 0, 0},
		{"480f01f8", 4, 1, 0},
		{"65488b0425112233 44", 9, 2, 0},
		{"f20f38f1c1", 5, 1, 0},
		{"0f0d0c0e", 4, 0, 0},
		{"a1 1122334455667788", 9, 0, 0},
	} {
		b := unhex(t, c.code)
		s, ok := x86.ShapeOf(append(b, 0, 0, 0, 0, 0)[:len(b)+5])
		if !ok || s.Len != c.len || s.Opcode != c.opcode || s.Rel != c.relAt {
			t.Errorf("%s: %+v %v", c.code, s, ok)
		}
		if _, ok := x86.ShapeOf(b[:len(b)-1]); ok {
			t.Errorf("%s: whole without its last byte", c.code)
		}
	}
	for code, want := range map[string]bool{"90": true, "6690": true, "f390": false, "4190": false, "0f1f00": true, "662e0f1f840000000000": true, "c3": false, "0f1e c0": false} {
		b := unhex(t, code)
		if s, ok := x86.ShapeOf(b); !ok || s.IsNop(b) != want {
			t.Errorf("%s: nop %v", code, !want)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	var clean []byte
	for i := range len(s) {
		if s[i] != ' ' {
			clean = append(clean, s[i])
		}
	}
	b, err := hex.DecodeString(string(clean))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What x86asm decodes too must have the same length.
func FuzzShapeOf(f *testing.F) {
	for _, s := range []string{"\x0f\x1f\x44\x00\x00", "\xff\x15\x01\x02\x03\x04", "\xf6\x05\x01\x02\x03\x04\xff", "\x48\xb8\x01\x02\x03\x04\x05\x06\x07\x08"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := x86.ShapeOf(b)
		if ok && (s.Len > len(b) || s.Len < 1 || s.Rel+s.RelLen > s.Len || s.Opcode >= s.Len) {
			t.Fatalf("% x: %+v", b, s)
		}
		if ok {
			s.IsNop(b)
		}
		in, err := x86asm.Decode(b, 64)
		if err != nil || in.Op == 0 || in.Len == 1 && in.Op == x86asm.NOP {
			return
		}
		for _, p := range in.Prefix { // what x86asm reads differently: prefixes that mean something else, or come twice
			if p != 0 && p&^0xf != 0x40 {
				return
			}
		}
		control := ok && s.Len > s.Opcode+1 && b[s.Opcode] == 0x0f && b[s.Opcode+1]&0xfc == 0x20 // their mod counts as 3: x86asm reads a memory operand
		if ok && !control && s.Len != in.Len {                                                   // x86asm knows some that processors of 64 bits do not
			t.Fatalf("% x: %+v %v, x86asm: %v of %d", b, s, ok, in, in.Len)
		}
	})
}
