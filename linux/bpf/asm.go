package bpf

import (
	"encoding/binary"
	"fmt"
)

// aluOps, jumpOps and sizes are the names of operations by their bits of an opcode.
var (
	aluOps  = [16]string{"+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "end", "", ""}
	jumpOps = [16]string{"goto", "==", ">", ">=", "&", "!=", "s>", "s>=", "call", "exit", "<", "<=", "s<", "s<=", "may_goto", "tail_call"}
	sizes   = [4]string{"u32", "u16", "u8", "u64"}
)

// Disassemble writes BPF instructions down, 8 bytes each, in the pseudo C of the
// kernel's verifier. A 64-bit constant takes two of them and one line. symbol names
// the kernel function at a distance from __bpf_call_base, in bytes, or gives ""; it
// may be nil.
func Disassemble(code []byte, symbol func(offset int32) string) []string {
	lines := make([]string, 0, len(code)/8)
	for pc := 0; 8*pc+8 <= len(code); pc++ {
		i := decode(code[8*pc:])
		text := i.text(pc, symbol)
		if i.op == opLoad64 {
			if 8*pc+16 <= len(code) {
				low, high := uint32(i.imm), binary.LittleEndian.Uint32(code[8*pc+12:])
				text = fmt.Sprintf("r%d = %#x ll", i.dst, uint64(high)<<32|uint64(low))
				lines = append(lines, fmt.Sprintf("%d: %s", pc, text))
				pc++
				continue
			}
			text = "cut short"
		}
		lines = append(lines, fmt.Sprintf("%d: %s", pc, text))
	}
	return lines
}

const opLoad64 = 0x18

// insn is one instruction (struct bpf_insn).
type insn struct {
	op, dst, src uint8
	off          int16
	imm          int32
}

func decode(b []byte) insn {
	return insn{
		b[0], b[1] & 15, b[1] >> 4,
		int16(binary.LittleEndian.Uint16(b[2:])), int32(binary.LittleEndian.Uint32(b[4:])),
	}
}

func (i insn) text(pc int, symbol func(int32) string) string {
	switch class := i.op & 7; class {
	case 0: // BPF_LD
		if mode := i.op >> 5; mode == 1 || mode == 2 { // BPF_ABS, BPF_IND
			reg := ""
			if mode == 2 {
				reg = fmt.Sprintf(" + r%d", i.src)
			}
			return fmt.Sprintf("r0 = *(%s *)skb[%d%s]", i.size(), i.imm, reg)
		}
	case 1: // BPF_LDX
		sign := ""
		switch i.op >> 5 {
		case 3, 1: // BPF_MEM, BPF_PROBE_MEM
		case 4, 2: // BPF_MEMSX, BPF_PROBE_MEMSX
			sign = "s"
		default:
			return i.raw()
		}
		size := i.size()
		if sign != "" {
			size = "s" + size[1:]
		}
		return fmt.Sprintf("r%d = *(%s *)(r%d %+d)", i.dst, size, i.src, i.off)
	case 2: // BPF_ST
		if i.op>>5 == 3 {
			return fmt.Sprintf("*(%s *)(r%d %+d) = %d", i.size(), i.dst, i.off, i.imm)
		}
	case 3: // BPF_STX
		switch i.op >> 5 {
		case 3:
			return fmt.Sprintf("*(%s *)(r%d %+d) = r%d", i.size(), i.dst, i.off, i.src)
		case 6: // BPF_ATOMIC
			return i.atomic()
		}
	case 4, 7: // BPF_ALU, BPF_ALU64
		return i.alu(class == 7)
	case 5, 6: // BPF_JMP, BPF_JMP32
		return i.jump(pc, class == 5, symbol)
	}
	return i.raw()
}

func (i insn) raw() string {
	return fmt.Sprintf("op %#02x r%d, r%d, %+d, %#x", i.op, i.dst, i.src, i.off, uint32(i.imm))
}

func (i insn) size() string { return sizes[i.op>>3&3] }

func (i insn) atomic() string {
	place := fmt.Sprintf("(%s *)(r%d %+d)", i.size(), i.dst, i.off)
	switch i.imm {
	case 0x00, 0x40, 0x50, 0xa0:
		return fmt.Sprintf("lock *%s %s r%d", place, aluOps[i.imm>>4], i.src)
	case 0x01, 0x41, 0x51, 0xa1:
		return fmt.Sprintf("r%d = atomic_fetch(%s %s r%d)", i.src, place, aluOps[i.imm>>4], i.src)
	case 0xe1:
		return fmt.Sprintf("r%d = xchg(%s, r%d)", i.src, place, i.src)
	case 0xf1:
		return fmt.Sprintf("r0 = cmpxchg(%s, r0, r%d)", place, i.src)
	}
	return i.raw()
}

func (i insn) alu(wide bool) string {
	reg := "r"
	if !wide {
		reg = "w"
	}
	op := aluOps[i.op>>4]
	operand := fmt.Sprintf("%s%d", reg, i.src)
	if i.op&8 == 0 {
		operand = fmt.Sprint(i.imm)
	}
	switch op {
	case "":
		return i.raw()
	case "neg":
		return fmt.Sprintf("%s%d = -%s%d", reg, i.dst, reg, i.dst)
	case "end":
		order := "le"
		if i.op&8 != 0 {
			order = "be"
		}
		if wide {
			order = "bswap"
		}
		return fmt.Sprintf("r%d = %s%d r%d", i.dst, order, i.imm, i.dst)
	case "=":
		if i.op&8 != 0 && (i.off == 8 || i.off == 16 || i.off == 32) {
			return fmt.Sprintf("%s%d = (s%d)%s", reg, i.dst, i.off, operand)
		}
	case "/=", "%=":
		if i.off == 1 {
			op = "s" + op
		}
	}
	return fmt.Sprintf("%s%d %s %s", reg, i.dst, op, operand)
}

func (i insn) jump(pc int, wide bool, symbol func(int32) string) string {
	const kernelFunction, ownFunction = 2, 1 // BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_CALL
	op := jumpOps[i.op>>4]
	to := pc + 1 + int(i.off)
	switch op {
	case "goto":
		if !wide {
			to = pc + 1 + int(i.imm)
		}
		return fmt.Sprintf("goto %d", to)
	case "call":
		switch {
		case i.src == ownFunction:
			return fmt.Sprintf("call pc%+d", i.imm)
		case i.op&8 != 0:
			return fmt.Sprintf("call r%d", i.dst)
		case symbol != nil:
			if name := symbol(i.imm); name != "" {
				return "call " + name
			}
		}
		if i.src == kernelFunction {
			return fmt.Sprintf("call kernel function %d", i.imm)
		}
		return fmt.Sprintf("call %#x", uint32(i.imm))
	case "exit", "tail_call":
		return op
	case "may_goto":
		return fmt.Sprintf("%s %d", op, to)
	}
	reg := "r"
	if !wide {
		reg = "w"
	}
	operand := fmt.Sprintf("%s%d", reg, i.src)
	if i.op&8 == 0 {
		operand = fmt.Sprint(i.imm)
	}
	return fmt.Sprintf("if %s%d %s %s goto %d", reg, i.dst, op, operand, to)
}
