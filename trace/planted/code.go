package planted

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// Registers of BPF. R6 to R9 survive calls.
const (
	r0 = iota
	r1
	r2
	r3
	r4
	r5
	r6
	r7
	r8
	r9
	fp
)

// Operations, as in include/uapi/linux/bpf_common.h and bpf.h.
const (
	aluAdd = 0x00
	aluSub = 0x10
	aluMul = 0x20
	aluAnd = 0x50
	aluShl = 0x60
	aluShr = 0x70
	aluMov = 0xb0

	jmpAlways  = 0x00
	jmpEqual   = 0x10
	jmpMore    = 0x20 // unsigned
	jmpAny     = 0x40
	jmpDiffer  = 0x50
	jmpLess    = 0xa0 // unsigned
	jmpLessS   = 0xc0 // signed
	jmpCall    = 0x80
	jmpExit    = 0x90
	fromReg    = 0x08
	classAlu64 = 0x07
	classJmp   = 0x05
	classLdx   = 0x61
	classStx   = 0x63
	classSt    = 0x62
	atomic64   = 0xdb // BPF_STX | BPF_ATOMIC | BPF_DW

	atomicFetchAdd = 0x01
	atomicExchange = 0xf1 // compare-exchange with R0
)

// Functions that programs of this kind may call on every kernel, lockdown or not.
const (
	callMapLookup   = 1
	callTime        = 5
	callTail        = 12
	callProcessor   = 8
	callIDs         = 14
	callReadUser    = 112
	callReadText    = 115 // of the kernel's memory: not with lockdown=confidentiality
	callReadUserStr = 114
	callTask        = 158
)

type label int

type instruction struct {
	op, regs uint8
	off      int16
	imm      int32
	to       label // 0: none
}

// code is a program that is being written.
type code struct {
	list   []instruction
	labels []int // by label - 1; -1: not set
}

func (c *code) label() label {
	c.labels = append(c.labels, -1)
	return label(len(c.labels))
}

func (c *code) set(l label) { c.labels[l-1] = len(c.list) }

func (c *code) add(op uint8, dst, src uint8, off int16, imm int32) {
	c.list = append(c.list, instruction{op: op, regs: dst | src<<4, off: off, imm: imm})
}

// alu does dst = dst op v.
func (c *code) alu(op, dst uint8, v int32) { c.add(classAlu64|op, dst, 0, 0, v) }

// aluReg does dst = dst op src.
func (c *code) aluReg(op, dst, src uint8) { c.add(classAlu64|fromReg|op, dst, src, 0, 0) }

func (c *code) mov(dst, src uint8) { c.aluReg(aluMov, dst, src) }

// imm sets a register.
func (c *code) imm(dst uint8, v uint64) {
	if int64(v) == int64(int32(v)) {
		c.alu(aluMov, dst, int32(v))
		return
	}
	c.add(0x18, dst, 0, 0, int32(v))
	c.add(0, 0, 0, 0, int32(v>>32))
}

// aluImm does dst = dst op v with v of 64 bits; R2 is changed where it does not fit into 32.
func (c *code) aluImm(op, dst uint8, v uint64) {
	if int64(v) == int64(int32(v)) {
		c.alu(op, dst, int32(v))
		return
	}
	c.imm(r2, v)
	c.aluReg(op, dst, r2)
}

var widths = map[uint8]uint8{1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}

func (c *code) load(dst, src uint8, off int32, size uint8) {
	c.add(classLdx|widths[size], dst, src, int16(off), 0)
}

func (c *code) store(dst uint8, off int32, src, size uint8) {
	c.add(classStx|widths[size], dst, src, int16(off), 0)
}

func (c *code) storeImm(dst uint8, off, v int32, size uint8) {
	c.add(classSt|widths[size], dst, 0, int16(off), v)
}

func (c *code) call(function int32) { c.add(classJmp|jmpCall, 0, 0, 0, function) }

func (c *code) exit() {
	c.imm(r0, 0)
	c.add(classJmp|jmpExit, 0, 0, 0, 0)
}

func (c *code) jump(l label) { c.jumps(classJmp|jmpAlways, 0, 0, 0, l) }

func (c *code) jumps(op, dst, src uint8, imm int32, l label) {
	c.add(op, dst, src, 0, imm)
	c.list[len(c.list)-1].to = l
}

// jumpIf goes to l where a register compares with v; R2 is changed where v does not fit into 32 bits.
func (c *code) jumpIf(op, reg uint8, v uint64, l label) {
	if int64(v) == int64(int32(v)) {
		c.jumps(classJmp|op, reg, 0, int32(v), l)
		return
	}
	c.imm(r2, v)
	c.jumps(classJmp|fromReg|op, reg, r2, 0, l)
}

func (c *code) jumpReg(op, reg, with uint8, l label) {
	c.jumps(classJmp|fromReg|op, reg, with, 0, l)
}

// ring puts the address of the ring's map into a register: the first map of fd_array (BPF_PSEUDO_MAP_IDX, 5.14).
func (c *code) ring(dst uint8) { c.mapAt(dst, 0) }

// mapAt puts the address of a map of fd_array into a register.
func (c *code) mapAt(dst uint8, index int32) {
	c.add(0x18, dst, 5, 0, index)
	c.add(0, 0, 0, 0, 0)
}

// branch is a range of numbers that lead to a label.
type branch struct {
	from, to uint32 // inclusive
	label    label
}

// dispatch goes to the label of the number in a register, or to other. The branches are in ascending order.
func (c *code) dispatch(reg uint8, branches []branch, other label) {
	// What lies between is a branch, too.
	var all []branch
	next := uint32(0)
	for _, b := range branches {
		if b.from > next {
			all = append(all, branch{next, b.from - 1, other})
		}
		if n := len(all); n > 0 && all[n-1].label == b.label && all[n-1].to+1 == b.from {
			all[n-1].to = b.to
		} else {
			all = append(all, b)
		}
		next = b.to + 1
	}
	c.split(reg, append(all, branch{next, math.MaxUint32, other}))
}

func (c *code) split(reg uint8, all []branch) {
	if len(all) == 1 {
		c.jump(all[0].label)
		return
	}
	half := len(all) / 2
	right := c.label()
	if len(all)-half == 1 {
		right = all[half].label
	}
	c.jumpIf(jmpMore, reg, uint64(all[half-1].to), right)
	c.split(reg, all[:half])
	if len(all)-half > 1 {
		c.set(right)
		c.split(reg, all[half:])
	}
}

// binary is the program as the kernel takes it.
func (c *code) binary() ([]byte, error) {
	b := make([]byte, 0, 8*len(c.list))
	for n, i := range c.list {
		if i.to != 0 {
			at := c.labels[i.to-1]
			off := at - n - 1
			if at < 0 || off != int(int16(off)) {
				return nil, fmt.Errorf("instruction %d jumps to %d, which is too far or nowhere", n, at)
			}
			i.off = int16(off)
		}
		b = append(b, i.op, i.regs)
		b = binary.LittleEndian.AppendUint16(b, uint16(i.off))
		b = binary.LittleEndian.AppendUint32(b, uint32(i.imm))
	}
	return b, nil
}

// without drops what nothing leads to: the verifier refuses it.
func (c *code) without() {
	live := make([]bool, len(c.list))
	work := []int{0}
	for len(work) > 0 {
		n := work[len(work)-1]
		work = work[:len(work)-1]
		for n < len(c.list) && !live[n] {
			live[n] = true
			i := c.list[n]
			if i.op == 0x18 {
				live[n+1] = true
				n += 2
				continue
			}
			if i.to != 0 {
				work = append(work, c.labels[i.to-1])
			}
			if i.op == classJmp|jmpAlways || i.op == classJmp|jmpExit {
				break
			}
			n++
		}
	}
	at := make([]int, len(c.list)+1)
	kept := c.list[:0:0]
	for n, i := range c.list {
		at[n] = len(kept)
		if live[n] {
			kept = append(kept, i)
		}
	}
	at[len(c.list)] = len(kept)
	for l, n := range c.labels {
		if n >= 0 {
			c.labels[l] = at[n]
		}
	}
	c.list = slices.Clip(kept)
}
