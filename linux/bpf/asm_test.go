package bpf

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/asm"
)

// TestDisassemble writes down what another assembler made.
func TestDisassemble(t *testing.T) {
	code := asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm32(asm.R2, -7),
		asm.LoadImm(asm.R3, 0x1122334455667788, asm.DWord),
		asm.LoadMem(asm.R4, asm.R1, -8, asm.Half),
		asm.StoreMem(asm.R10, -16, asm.R4, asm.DWord),
		asm.StoreImm(asm.R10, -4, 9, asm.Byte),
		asm.RSh.Imm(asm.R4, 3),
		asm.AddAtomic.Mem(asm.R10, asm.R4, asm.DWord, -16),
		asm.JSGT.Imm(asm.R4, 5, "out"),
		asm.JNE.Reg32(asm.R4, asm.R3, "out"),
		asm.FnGetCurrentPidTgid.Call(),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.Return().WithSymbol("out"),
	}
	var raw strings.Builder
	if err := code.Marshal(&raw, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	got := Disassemble([]byte(raw.String()), func(off int32) string {
		if off == 14 {
			return "bpf_get_current_pid_tgid"
		}
		return ""
	})
	want := []string{
		"0: r0 = 0", "1: r6 = r1", "2: w2 = -7", "3: r3 = 0x1122334455667788 ll",
		"5: r4 = *(u16 *)(r1 -8)", "6: *(u64 *)(r10 -16) = r4", "7: *(u8 *)(r10 -4) = 9",
		"8: r4 >>= 3", "9: lock *(u64 *)(r10 -16) += r4", "10: if r4 s> 5 goto 14",
		"11: if w4 != w3 goto 14", "12: call bpf_get_current_pid_tgid", "13: r4 = be16 r4", "14: exit",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// FuzzDisassemble writes anything down, a line for each instruction or pair.
func FuzzDisassemble(f *testing.F) {
	f.Add([]byte{0x18, 0x13, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x18, 0, 0, 0, 0, 0, 0, 0, 0xc4})
	f.Fuzz(func(t *testing.T, code []byte) {
		lines := Disassemble(code, nil)
		if n := len(code) / 8; len(lines) > n || len(lines) < n/2 {
			t.Fatalf("%d lines of %d instructions", len(lines), n)
		}
		for _, l := range lines {
			if strings.ContainsAny(l, "\n\x1b%!") && !strings.Contains(l, "!=") && !strings.Contains(l, "%=") {
				t.Fatalf("badly formed: %q", l)
			}
		}
	})
}
