package plugin

import (
	"errors"
	"fmt"
)

type op uint8

const (
	opEnd op = iota
	opDrop
	opImm
	opReg
	opCtx
	opAdd
	opAdds
	opAnd
	opShl
	opShr
	opMul
	opFaulted
	opLoad
	opPut
	opPutn
	opCopy
	opStr
	opStrv
	opVec
	opJmp
	opJeq
	opJne
	opJlt
	opJgt
	opJset
	opJsame
	opJbit
	opTable
	opVget
	opVset
	opVgetn
	opVsetn
	opVforget
	opHold
	opGate
	opLast
	opAside
)

type insn struct {
	op             op
	dst, src, size uint8
	arg            uint32
	imm            uint64
	label          Label // 0: arg is a number
}

// Slot is one of the machine's 32 registers of 64 bits. All are zero when a program starts.
type Slot uint8

// Label is a place in the code that jumps lead to. It is made by [Assembler.Label], and
// set once, behind all jumps to it.
type Label int

// Probe is where a program runs.
type Probe struct {
	Where   Where
	Arg     uint32
	Address uint64
	Length  uint64
	ID      uint16 // what its records are marked with
}

// Linear is a virtual range that maps guest-physical memory in one piece, like a kernel's direct map.
type Linear struct {
	Address, Physical, Size uint64
}

// Assembler writes a program of probes. Errors show when it is built.
type Assembler struct {
	probes    []Probe
	entries   []uint32
	code      []insn
	labels    []uint32 // by label - 1; 0: not set
	words     []uint32
	tables    []tableUse
	registers []string
	linears   []Linear
	err       error
}

type tableUse struct {
	at     int
	labels []Label
}

// Probe begins the program of a probe: what follows runs where it stands.
func (a *Assembler) Probe(p Probe) {
	a.probes = append(a.probes, p)
	a.entries = append(a.entries, uint32(len(a.code)))
}

// Also gives the program of the last probe to another place too.
func (a *Assembler) Also(p Probe) {
	if len(a.entries) == 0 {
		a.fail(errors.New("no probe to share a program with"))
		return
	}
	a.probes = append(a.probes, p)
	a.entries = append(a.entries, a.entries[len(a.entries)-1])
}

// Linear lets programs read a virtual range without QEMU's translation.
func (a *Assembler) Linear(l Linear) { a.linears = append(a.linears, l) }

// Label makes a label.
func (a *Assembler) Label() Label {
	a.labels = append(a.labels, 0)
	return Label(len(a.labels))
}

// Set puts a label here.
func (a *Assembler) Set(l Label) {
	if a.labels[l-1] != 0 {
		a.fail(fmt.Errorf("label %d is set twice", l))
	}
	a.labels[l-1] = uint32(len(a.code))
}

// End completes the record.
func (a *Assembler) End() { a.add(insn{op: opEnd}) }

// Drop ends the program without a record.
func (a *Assembler) Drop() { a.add(insn{op: opDrop}) }

// Imm sets dst.
func (a *Assembler) Imm(dst Slot, v uint64) { a.add(insn{op: opImm, dst: uint8(dst), imm: v}) }

// Reg reads a register by the name that QEMU has for it: "rax", "cr3", "k_gs_base".
func (a *Assembler) Reg(dst Slot, name string) {
	a.add(insn{op: opReg, dst: uint8(dst), arg: a.register(name)})
}

func (a *Assembler) register(name string) uint32 {
	for i, r := range a.registers {
		if r == name {
			return uint32(i)
		}
	}
	if len(name) > 15 {
		a.fail(fmt.Errorf("invalid register %q", name))
	}
	a.registers = append(a.registers, name)
	return uint32(len(a.registers) - 1)
}

// Ctx reads a word of the place: [CtxPC] and the others.
func (a *Assembler) Ctx(dst Slot, word int) {
	a.add(insn{op: opCtx, dst: uint8(dst), arg: uint32(word)})
}

// Add sets dst to src + v.
func (a *Assembler) Add(dst, src Slot, v uint64) {
	a.add(insn{op: opAdd, dst: uint8(dst), src: uint8(src), imm: v})
}

// AddSlot adds src to dst.
func (a *Assembler) AddSlot(dst, src Slot) {
	a.add(insn{op: opAdds, dst: uint8(dst), src: uint8(src)})
}

// And sets dst to src & v.
func (a *Assembler) And(dst, src Slot, v uint64) {
	a.add(insn{op: opAnd, dst: uint8(dst), src: uint8(src), imm: v})
}

// Shl sets dst to src << n.
func (a *Assembler) Shl(dst, src Slot, n uint32) {
	a.add(insn{op: opShl, dst: uint8(dst), src: uint8(src), arg: n})
}

// Shr sets dst to src >> n.
func (a *Assembler) Shr(dst, src Slot, n uint32) {
	a.add(insn{op: opShr, dst: uint8(dst), src: uint8(src), arg: n})
}

// Mul sets dst to src * v.
func (a *Assembler) Mul(dst, src Slot, v uint64) {
	a.add(insn{op: opMul, dst: uint8(dst), src: uint8(src), imm: v})
}

// Faulted sets dst to 1 if something could not be read so far, else to 0.
func (a *Assembler) Faulted(dst Slot) { a.add(insn{op: opFaulted, dst: uint8(dst)}) }

// Load reads size bytes at src + off. What cannot be read is 0 and marks the record; if fail is
// not 0 the program goes on there.
func (a *Assembler) Load(dst, src Slot, off int64, size uint8, fail Label) {
	a.add(insn{op: opLoad, dst: uint8(dst), src: uint8(src), size: size, imm: uint64(off), label: fail})
}

// Put adds a word to the record. Words come before items.
func (a *Assembler) Put(src Slot) { a.add(insn{op: opPut, src: uint8(src)}) }

// PutAll adds n words: src and the slots behind it.
func (a *Assembler) PutAll(src Slot, n int) {
	a.block(src, n)
	a.add(insn{op: opPutn, src: uint8(src), arg: uint32(n)})
}

// block checks n slots from s on.
func (a *Assembler) block(s Slot, n int) {
	if n < 1 || int(s)+n > slots {
		a.fail(fmt.Errorf("instruction %d: invalid %d slots from %d", len(a.code), n, s))
	}
}

// Copy adds an item: the bytes at address, as many as length says, up to limit.
func (a *Assembler) Copy(tag uint8, address, length Slot, limit uint32) {
	a.add(insn{op: opCopy, src: uint8(address), dst: uint8(length), size: tag, arg: limit})
}

// String adds an item: the string at address, without its zero.
func (a *Assembler) String(tag uint8, address Slot, limit uint32) {
	a.add(insn{op: opStr, src: uint8(address), size: tag, arg: limit})
}

// Strings adds an item for each string of a vector of pointers of width bytes that ends with a
// null pointer. Where there are more than most, an empty item that is [Cut] follows.
func (a *Assembler) Strings(tag uint8, vector Slot, width uint8, most uint64, limit uint32) {
	a.add(insn{op: opStrv, src: uint8(vector), dst: width, size: tag, arg: limit, imm: most})
}

// Gather adds an item: the bytes of count (pointer, length) pairs of width bytes each.
func (a *Assembler) Gather(tag uint8, vector, count Slot, width uint8, limit uint32) {
	a.add(insn{op: opVec, src: uint8(vector), dst: uint8(count), size: tag, arg: limit, imm: uint64(width)})
}

// Jump goes on at l.
func (a *Assembler) Jump(l Label) { a.add(insn{op: opJmp, label: l}) }

// If goes on at l where src compares with v: "==", "!=", "<", ">" (unsigned), "&" (has a bit of v).
func (a *Assembler) If(src Slot, how string, v uint64, l Label) {
	ops := map[string]op{"==": opJeq, "!=": opJne, "<": opJlt, ">": opJgt, "&": opJset}
	o, ok := ops[how]
	if !ok {
		a.fail(fmt.Errorf("invalid comparison %q", how))
	}
	a.add(insn{op: o, src: uint8(src), imm: v, label: l})
}

// IfSame goes on at l where two slots are equal.
func (a *Assembler) IfSame(x, y Slot, l Label) {
	a.add(insn{op: opJsame, dst: uint8(x), src: uint8(y), label: l})
}

// IfIn goes on at l where src is in set.
func (a *Assembler) IfIn(src Slot, set []uint32, l Label) {
	var bits []uint32
	for _, v := range set {
		for uint32(len(bits)) <= v/32 {
			bits = append(bits, 0)
		}
		bits[v/32] |= 1 << (v % 32)
	}
	a.add(insn{op: opJbit, src: uint8(src), imm: a.data(bits), label: l})
}

// Switch goes on at labels[src], if there is one that is not 0.
func (a *Assembler) Switch(src Slot, labels []Label) {
	at := len(a.words)
	imm := a.data(make([]uint32, len(labels)))
	a.tables = append(a.tables, tableUse{at, labels})
	a.add(insn{op: opTable, src: uint8(src), imm: imm})
}

// data keeps words, and returns how an instruction names them.
func (a *Assembler) data(w []uint32) uint64 {
	at := len(a.words)
	a.words = append(a.words, w...)
	return uint64(len(w))<<32 | uint64(at)
}

// Recall reads one of the vCPU's 32 words that last from one program to the next.
func (a *Assembler) Recall(dst Slot, word uint32) {
	a.add(insn{op: opVget, dst: uint8(dst), arg: word})
}

// Remember writes one.
func (a *Assembler) Remember(word uint32, src Slot) {
	a.add(insn{op: opVset, src: uint8(src), arg: word})
}

// RecallAll reads n of them, into dst and the slots behind it.
func (a *Assembler) RecallAll(dst Slot, word uint32, n int) {
	a.block(dst, n)
	a.add(insn{op: opVgetn, dst: uint8(dst), arg: word, imm: uint64(n)})
}

// RememberAll writes n of them.
func (a *Assembler) RememberAll(word uint32, src Slot, n int) {
	a.block(src, n)
	a.add(insn{op: opVsetn, src: uint8(src), arg: word, imm: uint64(n)})
}

// Gate opens or shuts the gate of the vCPU: [Gated] probes run only while it is open, and an instruction that [Opens]
// opens it again.
func (a *Assembler) Gate(open bool) {
	i := insn{op: opGate}
	if open {
		i.arg = 1
	}
	a.add(i)
}

// Forget makes word 0 on every vCPU that has src there, or src + 1.
func (a *Assembler) Forget(word uint32, src Slot) {
	a.add(insn{op: opVforget, src: uint8(src), arg: word})
}

// Hold makes the vCPU wait for a decision when the record is complete, up to limit
// microseconds. Then it goes on, or, if stop says so, QEMU stops as a whole.
func (a *Assembler) Hold(limit uint32, stop bool) {
	i := insn{op: opHold, arg: limit}
	if stop {
		i.imm = 1
	}
	a.add(i)
}

// Last sets dst to the address of the last 64-bit word that is not zero, of words of them at src, a page at most; to 0
// if all are zero, or could not be read.
func (a *Assembler) Last(dst, src Slot, words uint32) {
	a.add(insn{op: opLast, dst: uint8(dst), src: uint8(src), arg: words})
}

// Aside says that the record is for the monitor alone, and no event that was asked for: if it finds no room, it is
// not counted by [Stream.Lost].
func (a *Assembler) Aside() { a.add(insn{op: opAside}) }

func (a *Assembler) add(i insn) {
	if i.dst >= slots && i.op != opStrv || i.src >= slots {
		a.fail(fmt.Errorf("instruction %d: invalid slot", len(a.code)))
	}
	a.code = append(a.code, i)
}

func (a *Assembler) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// target is where a label leads from an instruction.
func (a *Assembler) target(from int, l Label) (uint32, error) {
	to := a.labels[l-1]
	if int(to) <= from {
		return 0, fmt.Errorf("instruction %d: label %d does not lie ahead", from, l)
	}
	return to, nil
}

// resolve turns labels into numbers.
func (a *Assembler) resolve() error {
	if a.err != nil {
		return a.err
	}
	var err error
	for n := range a.code {
		if l := a.code[n].label; l != 0 {
			if a.code[n].arg, err = a.target(n, l); err != nil {
				return err
			}
		}
	}
	for _, t := range a.tables {
		for i, l := range t.labels {
			if l != 0 {
				a.words[t.at+i] = a.labels[l-1]
			}
		}
	}
	switch {
	case len(a.probes) == 0 || len(a.code) == 0:
		return errors.New("a program without probes")
	case len(a.probes) > maxProbes:
		return fmt.Errorf("%d probes are more than the %d that one program can have", len(a.probes), maxProbes)
	case len(a.code) > maxCode || len(a.registers) > maxRegisters:
		return fmt.Errorf("a program of %d instructions and %d registers is too large", len(a.code), len(a.registers))
	}
	return nil
}

// encode writes the program, with windows as [encodeWindows] made them.
func (a *Assembler) encode(windows []byte, nWindows int) ([]byte, error) {
	if err := a.resolve(); err != nil {
		return nil, fmt.Errorf("assemble probes: %w", err)
	}
	var b []byte
	for _, n := range []int{protocol, len(a.probes), len(a.code), len(a.linears), nWindows, len(a.registers), len(a.words), 0} {
		b = le.AppendUint32(b, uint32(n))
	}
	for i, p := range a.probes {
		b = le.AppendUint32(b, uint32(p.Where))
		b = le.AppendUint32(b, p.Arg)
		b = le.AppendUint64(b, p.Address)
		b = le.AppendUint64(b, p.Length)
		b = le.AppendUint32(b, a.entries[i])
		b = le.AppendUint32(b, uint32(p.ID))
	}
	for _, i := range a.code {
		b = append(b, byte(i.op), i.dst, i.src, i.size)
		b = le.AppendUint32(b, i.arg)
		b = le.AppendUint64(b, i.imm)
	}
	for _, l := range a.linears {
		b = le.AppendUint64(b, l.Address)
		b = le.AppendUint64(b, l.Physical)
		b = le.AppendUint64(b, l.Size)
	}
	b = append(b, windows...)
	for _, w := range a.words {
		b = le.AppendUint32(b, w)
	}
	for _, r := range a.registers {
		var name [16]byte
		copy(name[:], r)
		b = append(b, name[:]...)
	}
	if len(b) > maxProgram {
		return nil, fmt.Errorf("assemble probes: a program of %d bytes is too large", len(b))
	}
	return b, nil
}

// Check says what is wrong with a program.
func (a *Assembler) Check() error { return a.resolve() }
