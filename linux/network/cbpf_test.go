package network

import (
	"encoding/binary"
	"slices"
	"testing"
)

// cbpfCode assembles instructions of code, jt, jf, k.
func cbpfCode(insns ...[4]uint32) []byte {
	var b []byte
	for _, i := range insns {
		b = binary.LittleEndian.AppendUint16(b, uint16(i[0]))
		b = append(b, byte(i[1]), byte(i[2]))
		b = binary.LittleEndian.AppendUint32(b, i[3])
	}
	return b
}

// What tcpdump -d "tcp port 22" prints for its IPv4 half, and some more.
func TestDisassembleClassic(t *testing.T) {
	got := DisassembleClassic(cbpfCode(
		[4]uint32{0x28, 0, 0, 12}, [4]uint32{0x15, 0, 8, 0x800}, [4]uint32{0x30, 0, 0, 23},
		[4]uint32{0x45, 6, 0, 0x1fff}, [4]uint32{0xb1, 0, 0, 14}, [4]uint32{0x48, 0, 0, 16},
		[4]uint32{0x06, 0, 0, 262144}, [4]uint32{0x06, 0, 0, 0}, [4]uint32{0x28, 0, 0, 0xfffff000},
		[4]uint32{0x05, 0, 0, 3}, [4]uint32{0x07, 0, 0, 0}, [4]uint32{0x54, 0, 0, 0xf0}, [4]uint32{0x16, 0, 0, 0},
		[4]uint32{0xff35, 0, 0, 1},
	))
	want := []string{
		"(000) ldh      [12]", "(001) jeq      #0x800           jt 2 jf 10", "(002) ldb      [23]",
		"(003) jset     #0x1fff          jt 10 jf 4", "(004) ldxb     4*([14]&0xf)", "(005) ldh      [x + 16]",
		"(006) ret      #262144", "(007) ret      #0", "(008) ldh      #proto",
		"(009) ja       13", "(010) tax", "(011) and      #0xf0", "(012) ret      a",
		"(013) jge      #0x1             jt 14 jf 14",
	}
	if !slices.Equal(got, want) {
		for i := range got {
			t.Logf("%q", got[i])
		}
		t.Error("differs")
	}
	if got := DisassembleClassic(make([]byte, 8*(cbpfMax+9)+3)); len(got) != cbpfMax {
		t.Errorf("%d lines", len(got))
	}
}

func FuzzDisassembleClassic(f *testing.F) {
	f.Add(cbpfCode([4]uint32{0x15, 255, 255, 1}, [4]uint32{0xffff, 0, 0, 0xffffffff}))
	f.Fuzz(func(t *testing.T, code []byte) {
		if n := len(DisassembleClassic(code)); n != min(len(code)/8, cbpfMax) {
			t.Errorf("%d lines of %d bytes", n, len(code))
		}
	})
}
