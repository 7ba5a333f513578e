package network

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// insn is one instruction of classic BPF.
type insn struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

func assemble(program ...insn) (code []byte) {
	for _, i := range program {
		code = binary.LittleEndian.AppendUint16(code, i.op)
		code = append(code, i.jt, i.jf)
		code = binary.LittleEndian.AppendUint32(code, i.k)
	}
	return code
}

// The operations that the tests use.
const (
	ldh, ldb, ldhX, ldxMSH, jeq, jge, jgt, ret, txa, tax, and, rsh, addX, xor = 0x28, 0x30, 0x48, 0xb1, 0x15, 0x35, 0x25, 0x06, 0x87, 0x07, 0x54, 0x74, 0x0c, 0xa4
)

func TestClassicPaths(t *testing.T) {
	for _, c := range []struct {
		name    string
		program []insn
		want    []string // a path each
	}{
		{"all", []insn{{ret, 0, 0, 0x40000}}, []string{""}},
		{"none", []insn{{ret, 0, 0, 0}}, nil},
		{"UDP with two bytes", []insn{
			{ldh, 0, 0, 12},
			{jeq, 0, 6, 0x800},
			{ldb, 0, 0, 23},
			{jeq, 0, 4, 17},
			{ldxMSH, 0, 0, 14},
			{ldhX, 0, 0, 22},
			{jeq, 0, 1, 0x7255},
			{ret, 0, 0, 0xffff},
			{ret, 0, 0, 0},
		}, []string{"[12:2] == 0x800, [23:1] == 0x11, [iphdr + 22:2] == 0x7255"}},
		{"behind the TCP header", []insn{
			{ldxMSH, 0, 0, 14}, {0x50, 0, 0, 26}, {and, 0, 0, 0xf0}, {rsh, 0, 0, 2}, {addX, 0, 0, 0}, {tax, 0, 0, 0}, {ldhX, 0, 0, 14}, {jeq, 0, 1, 0x5293}, {ret, 0, 0, 1}, {ret, 0, 0, 0},
		}, []string{"[iphdr + tcphdr + 14:2] == 0x5293"}},
		{"one of two", []insn{{ldb, 0, 0, 9}, {jeq, 1, 0, 6}, {jeq, 0, 1, 17}, {ret, 0, 0, 1}, {ret, 0, 0, 0}}, []string{"[9:1] == 0x6", "[9:1] != 0x6, [9:1] == 0x11"}},
		{"by xor", []insn{{ldh, 0, 0, 30}, {xor, 0, 0, 0xffff}, {jeq, 0, 1, 0}, {ret, 0, 0, 1}, {ret, 0, 0, 0}}, []string{"[30:2] == 0xffff"}},
		{"a contradiction", []insn{{ldb, 0, 0, 9}, {jeq, 0, 2, 6}, {jeq, 0, 1, 17}, {ret, 0, 0, 1}, {ret, 0, 0, 0}}, nil},
		{"masked", []insn{{ldb, 0, 0, 0}, {and, 0, 0, 0xf0}, {jeq, 0, 1, 0x40}, {ret, 0, 0, 1}, {ret, 0, 0, 0}}, []string{"[0:1]&0xf0 == 0x40"}},
	} {
		paths, whole := ClassicPaths(assemble(c.program...))
		var got []string
		for _, p := range paths {
			var demands []string
			for _, d := range p {
				demands = append(demands, d.String())
			}
			got = append(got, strings.Join(demands, ", "))
		}
		if !slices.Equal(got, c.want) || !whole {
			t.Errorf("%s: %q, want %q; whole %v", c.name, got, c.want, whole)
		}
	}
}

func TestClassicEqual(t *testing.T) {
	paths, _ := ClassicPaths(assemble(insn{ldh, 0, 0, 40}, insn{jge, 0, 2, 7}, insn{jgt, 1, 0, 7}, insn{ret, 0, 0, 1}, insn{ret, 0, 0, 0}))
	if len(paths) != 1 {
		t.Fatalf("%d paths", len(paths))
	}
	if v, ok := paths[0].Equal(paths[0][0].ClassicLoad); v != 7 || !ok {
		t.Errorf("two comparisons leave %d, %v", v, ok)
	}
}

// TestClassicPathsEnd: a program of branches without number is given up in time.
func TestClassicPathsEnd(t *testing.T) {
	var program []insn
	for i := range uint32(1000) {
		program = append(program, insn{ldb, 0, 0, i}, insn{jeq, 0, 1, 1}, insn{ldb, 0, 0, i + 1})
	}
	paths, whole := ClassicPaths(assemble(append(program, insn{ret, 0, 0, 1})...))
	if whole || len(paths) > maxClassicPaths {
		t.Errorf("%d paths, whole %v", len(paths), whole)
	}
}

func FuzzClassicPaths(f *testing.F) {
	f.Add(assemble(insn{ldxMSH, 0, 0, 14}, insn{ldhX, 0, 0, 22}, insn{jeq, 0, 1, 0x7255}, insn{ret, 0, 0, 1}, insn{ret, 0, 0, 0}))
	f.Add(assemble(insn{5, 0, 0, math.MaxUint32}, insn{ret, 0, 0, 1}))
	f.Fuzz(func(t *testing.T, code []byte) {
		paths, _ := ClassicPaths(code)
		if len(paths) > maxClassicPaths {
			t.Errorf("%d paths", len(paths))
		}
		for _, p := range paths {
			for _, d := range p {
				_ = fmt.Sprint(d)
				p.Equal(d.ClassicLoad)
			}
		}
	})
}
