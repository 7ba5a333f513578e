package text

import (
	"encoding/binary"
	"testing"
)

// TestOperandIn: addresses that instructions have as an operand are found, absolute and relative.
func TestOperandIn(t *testing.T) {
	const start, addr = 0xffff_ffff_8100_0000, 0xffff_ffff_8123_4560
	code := make([]byte, 64)
	for i := range code {
		code[i] = 0x8d // whose operand reaches over the end
	}
	if operandIn(code, start, addr) || operandIn(nil, start, addr) {
		t.Fatal("code without the address has it")
	}
	lea := func(at int, modrm byte, to uint64) []byte {
		c := append([]byte(nil), code...)
		c[at], c[at+1] = 0x8d, modrm
		binary.LittleEndian.PutUint32(c[at+2:], uint32(to-(start+uint64(at)+6)))
		return c
	}
	for at := 1; at+6 <= len(code); at++ {
		c := append([]byte(nil), code...)
		binary.LittleEndian.PutUint32(c[at:], uint32(addr&0xffff_ffff))
		if !operandIn(c, start, addr) {
			t.Errorf("not found as an absolute operand at %d", at)
		}
		if !operandIn(lea(at, 0x3d, addr), start, addr) { // lea addr(%rip), %rdi
			t.Errorf("not found as a relative operand at %d", at)
		}
		if operandIn(lea(at, 0x3d, addr+1), start, addr) || operandIn(lea(at, 0x7d, addr), start, addr) {
			t.Errorf("found where it is not, at %d", at)
		}
	}
}

// TestWordIn: words of data that have the address are found, aligned ones, outside of lists.
func TestWordIn(t *testing.T) {
	const start, addr = 0xffff_ffff_8200_0004, 0xffff_ffff_8123_4560 // 4 bytes before an aligned word
	for at := range 40 {
		data := make([]byte, 48)
		binary.LittleEndian.PutUint64(data[at:], addr)
		if got, want := wordIn(data, start, addr, nil), at%8 == 4; got != want {
			t.Errorf("at %d: %v", at, got)
		}
		if wordIn(data, start, addr, []span{{start, start + 48}}) {
			t.Errorf("at %d: found in a list", at)
		}
	}
	if wordIn(nil, start, addr, nil) {
		t.Error("nothing has it")
	}
}
