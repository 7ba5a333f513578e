package planted

import (
	"errors"
	"fmt"

	"github.com/outsight-vmi/outsight/trace/plugin"
)

// maxStrings bounds the strings of one vector, and maxPairs the pieces of one buffer: programs of BPF count the turns of a loop
// in advance. What is beyond is marked as cut.
const (
	maxStrings = 32
	maxPairs   = 8
)

// registers are where struct pt_regs has them.
var registers = map[string]int32{"rsp": regSP}

// Of struct pt_regs, unchanged since 2.6.
const (
	regBP = 32
	regBX = 40
	regR8 = 72
	regR9 = 64
	regRT = 56 // R10
	regAX = 80
	regCX = 88
	regDX = 96
	regSI = 104
	regDI = 112
	regNr = 120
	regIP = 128
	regSP = 152
)

var errTranslate = errors.New("BPF has nothing for it")

// slot is where a slot lies on the stack.
func slot(n uint8) int32 { return stackSlots - 8*int32(n) }

// sizeOf is how many bytes the items of a program may take.
func sizeOf(list []plugin.Instruction, limit uint32) (n uint32) {
	for _, i := range list {
		most := min(i.Arg, limit)
		switch i.Op {
		case plugin.OpCopy, plugin.OpString:
			n += 16 + most
		case plugin.OpStrings:
			n += uint32(min(i.Imm, maxStrings)+1) * (16 + most)
		case plugin.OpGather:
			n += 16 + 2*most // the verifier sees that much
		}
	}
	return n
}

// translate writes a program for the machine of [plugin.Assembler] as BPF. R6 has the registers of the system call. Items are
// not longer than limit. It goes on behind itself.
func (w *writer) translate(list []plugin.Instruction, limit uint32) error {
	end := w.label()
	at := make([]label, len(list)+1)
	at[len(list)] = end
	for _, i := range list {
		if i.Jump && at[i.Arg] == 0 {
			at[i.Arg] = w.label()
		}
	}
	for n, i := range list {
		if at[n] != 0 {
			w.set(at[n])
		}
		to := label(0)
		if i.Jump {
			to = at[i.Arg]
		}
		if err := w.one(i, to, end, limit); err != nil {
			return fmt.Errorf("instruction %d: %w", n, err)
		}
	}
	w.set(end)
	return nil
}

var compares = map[plugin.Op]uint8{
	plugin.OpEqual: jmpEqual, plugin.OpDiffer: jmpDiffer, plugin.OpLess: jmpLess, plugin.OpMore: jmpMore, plugin.OpAny: jmpAny,
}

func (w *writer) one(i plugin.Instruction, to, end label, limit uint32) error {
	dst, src := slot(i.Dst), slot(i.Src)
	binary := func(op uint8, v uint64) {
		w.load(r1, fp, src, 8)
		w.aluImm(op, r1, v)
		w.store(fp, dst, r1, 8)
	}
	switch i.Op {
	case plugin.OpEnd:
		w.jump(end)
	case plugin.OpImm:
		w.imm(r1, i.Imm)
		w.store(fp, dst, r1, 8)
	case plugin.OpReg:
		off, ok := registers[i.Name]
		if !ok {
			return fmt.Errorf("%w: register %s", errTranslate, i.Name)
		}
		w.load(r1, r6, off, 8)
		w.store(fp, dst, r1, 8)
	case plugin.OpAdd:
		binary(aluAdd, i.Imm)
	case plugin.OpAnd:
		binary(aluAnd, i.Imm)
	case plugin.OpMul:
		binary(aluMul, i.Imm)
	case plugin.OpShl:
		binary(aluShl, uint64(i.Arg))
	case plugin.OpShr:
		binary(aluShr, uint64(i.Arg))
	case plugin.OpAddSlot:
		w.load(r1, fp, dst, 8)
		w.load(r2, fp, src, 8)
		w.aluReg(aluAdd, r1, r2)
		w.store(fp, dst, r1, 8)
	case plugin.OpFaulted:
		w.load(r1, fp, stackFault, 8)
		w.store(fp, dst, r1, 8)
	case plugin.OpLoad:
		w.load(r3, fp, src, 8)
		w.aluImm(aluAdd, r3, i.Imm)
		ok := w.label()
		w.userWord(i.Size, ok)
		w.storeImm(fp, dst, 0, 8)
		if to != 0 {
			w.jump(to)
			w.set(ok)
			w.load(r1, fp, stackWord, i.Size)
			w.store(fp, dst, r1, 8)
			return nil
		}
		done := w.label()
		w.jump(done)
		w.set(ok)
		w.load(r1, fp, stackWord, i.Size)
		w.store(fp, dst, r1, 8)
		w.set(done)
	case plugin.OpCopy:
		w.load(r1, fp, dst, 8)
		w.load(r3, fp, src, 8)
		w.copy(i.Size, min(i.Arg, limit))
	case plugin.OpString:
		w.load(r3, fp, src, 8)
		w.string(i.Size, min(i.Arg, limit))
	case plugin.OpStrings:
		w.vector(i, min(i.Arg, limit))
	case plugin.OpGather:
		w.gather(i, min(i.Arg, limit))
	case plugin.OpJump:
		w.jump(to)
	case plugin.OpEqual, plugin.OpDiffer, plugin.OpLess, plugin.OpMore, plugin.OpAny:
		w.load(r1, fp, src, 8)
		w.jumpIf(compares[i.Op], r1, i.Imm, to)
	case plugin.OpSame:
		w.load(r1, fp, dst, 8)
		w.load(r2, fp, src, 8)
		w.jumpReg(jmpEqual, r1, r2, to)
	default:
		return fmt.Errorf("%w: operation %d", errTranslate, i.Op)
	}
	return nil
}

// userWord reads size bytes at the user address in R3 onto the stack, and goes to ok; else it goes on, and what could not be
// read is noted.
func (w *writer) userWord(size uint8, ok label) {
	w.mov(r1, fp)
	w.alu(aluAdd, r1, stackWord)
	w.imm(r2, uint64(size))
	w.call(callReadUser)
	w.jumpIf(jmpEqual, r0, 0, ok)
	w.storeImm(fp, stackFault, 1, 8)
}

// copy adds an item of R1 bytes at the user address in R3.
func (w *writer) copy(tag uint8, limit uint32) {
	w.store(fp, stackWord, r3, 8)
	w.store(fp, stackSum, r1, 8)
	w.run(&w.copies, tag, limit)
}

// copyRoutine adds an item of the bytes at the user address that [stackWord] has, as many as [stackSum] says. If not all can be read,
// then what lies in the same page.
func (w *writer) copyRoutine() {
	whole, cut, read, bad, done := w.label(), w.label(), w.label(), w.label(), w.label()
	w.set(w.copies.entry)
	w.itemOfLimit(0)
	w.load(r1, fp, stackSum, 8)
	w.load(r2, fp, stackLimit, 8)
	w.jumpReg(jmpMore, r1, r2, cut)
	w.jump(read)
	w.set(cut)
	w.mov(r1, r2)
	w.set(read)
	w.store(fp, stackItem, r1, 8)
	w.mov(r2, r1)
	w.mov(r1, r7)
	w.alu(aluAdd, r1, 8)
	w.load(r3, fp, stackWord, 8)
	w.call(callReadUser)
	w.load(r1, fp, stackItem, 8)
	w.jumpIf(jmpEqual, r0, 0, whole)
	w.storeImm(fp, stackFault, 1, 8)
	w.load(r3, fp, stackWord, 8)
	w.mov(r2, r3)
	w.alu(aluAnd, r2, page-1)
	w.imm(r4, page)
	w.aluReg(aluSub, r4, r2)
	w.jumpReg(jmpMore, r4, r1, bad)
	w.load(r1, fp, stackLimit, 8)
	w.jumpReg(jmpMore, r4, r1, bad)
	w.store(fp, stackItem, r4, 8)
	w.mov(r2, r4)
	w.mov(r1, r7)
	w.alu(aluAdd, r1, 8)
	w.call(callReadUser)
	w.jumpIf(jmpDiffer, r0, 0, bad)
	w.load(r1, fp, stackItem, 8)
	w.headOfTag(uint8(plugin.Unreadable))
	w.jump(done)
	w.set(bad)
	w.imm(r1, 0)
	w.headOfTag(uint8(plugin.Unreadable))
	w.jump(done)
	w.set(whole)
	w.load(r2, fp, stackSum, 8)
	w.load(r3, fp, stackLimit, 8)
	long := w.label()
	w.jumpReg(jmpMore, r2, r3, long)
	w.headOfTag(uint8(plugin.Whole))
	w.jump(done)
	w.set(long)
	w.headOfTag(uint8(plugin.Cut))
	w.set(done)
	w.goBack(&w.copies)
}

// string adds an item: the string at the user address in R3, of limit bytes at most.
func (w *writer) string(tag uint8, limit uint32) {
	w.store(fp, stackWord, r3, 8)
	w.run(&w.strings, tag, limit)
}

// stringRoutine adds an item: the string at the user address that [stackWord] has.
func (w *writer) stringRoutine() {
	bad, cut, done, some := w.label(), w.label(), w.label(), w.label()
	w.set(w.strings.entry)
	w.itemOfLimit(2)
	w.mov(r1, r7)
	w.alu(aluAdd, r1, 8)
	w.load(r2, fp, stackLimit, 8)
	w.alu(aluAdd, r2, 2) // the zero, and one more to see whether there is more
	w.load(r3, fp, stackWord, 8)
	w.call(callReadUserStr)
	w.jumps(classJmp|jmpLessS, r0, 0, 0, bad)
	w.mov(r1, r0)
	w.jumpIf(jmpDiffer, r1, 0, some)
	w.imm(r1, 1) // an empty string is 0 bytes with its zero, others are one more than they have (strncpy_from_user_nofault)
	w.set(some)
	w.alu(aluSub, r1, 1)
	w.load(r2, fp, stackLimit, 8)
	w.jumpReg(jmpMore, r1, r2, cut)
	w.headOfTag(uint8(plugin.Whole))
	w.jump(done)
	w.set(cut)
	w.mov(r1, r2)
	w.headOfTag(uint8(plugin.Cut))
	w.jump(done)
	w.set(bad)
	w.storeImm(fp, stackFault, 1, 8)
	w.imm(r1, 0)
	w.headOfTag(uint8(plugin.Unreadable))
	w.set(done)
	w.goBack(&w.strings)
}

// mark adds an empty item.
func (w *writer) mark(tag, status uint8) {
	w.item(0)
	w.imm(r1, 0)
	w.head(tag, status, false)
}

// vector adds an item for each string of a vector.
func (w *writer) vector(i plugin.Instruction, limit uint32) {
	most := min(i.Imm, maxStrings)
	turn, ok, done, bad := w.label(), w.label(), w.label(), w.label()
	w.storeImm(fp, stackTurn, 0, 8)
	w.set(turn)
	w.load(r3, fp, stackTurn, 8)
	w.alu(aluMul, r3, int32(i.Dst))
	w.load(r1, fp, slot(i.Src), 8)
	w.aluReg(aluAdd, r3, r1)
	w.userWord(i.Dst, ok)
	w.jump(bad)
	w.set(ok)
	w.load(r3, fp, stackWord, i.Dst)
	w.jumpIf(jmpEqual, r3, 0, done)
	more := w.label()
	w.load(r1, fp, stackTurn, 8)
	w.jumpIf(jmpLess, r1, most, more)
	w.mark(i.Size, uint8(plugin.Cut))
	w.jump(done)
	w.set(more)
	w.alu(aluAdd, r1, 1)
	w.store(fp, stackTurn, r1, 8)
	w.string(i.Size, limit)
	w.jump(turn)
	w.set(bad)
	w.mark(i.Size, uint8(plugin.Unreadable))
	w.set(done)
}

// gather adds an item: the bytes that pairs of pointer and length lead to.
func (w *writer) gather(i plugin.Instruction, limit uint32) {
	width := uint8(i.Imm)
	turn, ok, ok2, done, bad, cut, end := w.label(), w.label(), w.label(), w.label(), w.label(), w.label(), w.label()
	w.item(2 * limit)
	w.storeImm(fp, stackTurn, 0, 8)
	w.storeImm(fp, stackSum, 0, 8)
	w.set(turn)
	w.load(r1, fp, stackTurn, 8)
	w.load(r2, fp, slot(i.Dst), 8)
	w.jumpReg(jmpEqual, r1, r2, done)
	w.jumpReg(jmpMore, r1, r2, done)
	w.jumpIf(jmpEqual, r1, maxPairs, cut)
	w.load(r3, fp, slot(i.Src), 8)
	w.alu(aluMul, r1, 2*int32(width))
	w.aluReg(aluAdd, r3, r1)
	w.store(fp, stackItem, r3, 8)
	w.alu(aluAdd, r3, int32(width))
	w.userWord(width, ok)
	w.jump(bad)
	w.set(ok)
	w.load(r1, fp, stackWord, width)
	w.load(r3, fp, stackItem, 8)
	w.store(fp, stackItem, r1, 8) // its length
	w.userWord(width, ok2)
	w.jump(bad)
	w.set(ok2)
	w.load(r3, fp, stackWord, width)
	w.load(r2, fp, stackItem, 8)
	fits := w.label()
	w.jumpIf(jmpLess, r2, uint64(limit)+1, fits)
	w.imm(r2, uint64(limit)+1) // so that it shows as cut
	w.set(fits)
	w.load(r4, fp, stackSum, 8)
	w.jumpIf(jmpMore, r4, uint64(limit), cut)
	w.mov(r5, r4)
	w.aluReg(aluAdd, r5, r2)
	w.store(fp, stackItem, r5, 8)
	short := w.label()
	w.jumpIf(jmpLess, r2, uint64(limit), short)
	w.imm(r2, uint64(limit))
	w.set(short)
	w.mov(r1, r7)
	w.alu(aluAdd, r1, 8)
	w.aluReg(aluAdd, r1, r4)
	w.call(callReadUser)
	w.jumpIf(jmpDiffer, r0, 0, bad)
	w.load(r1, fp, stackItem, 8)
	w.jumpIf(jmpMore, r1, uint64(limit), cut)
	w.store(fp, stackSum, r1, 8)
	w.load(r1, fp, stackTurn, 8)
	w.alu(aluAdd, r1, 1)
	w.store(fp, stackTurn, r1, 8)
	w.jump(turn)
	w.set(cut)
	w.imm(r1, uint64(limit))
	w.load(r2, fp, stackSum, 8)
	// By the number of pairs, not of bytes.
	less := w.label()
	w.load(r3, fp, stackTurn, 8)
	w.jumpIf(jmpDiffer, r3, maxPairs, less)
	w.mov(r1, r2)
	w.set(less)
	w.jumpIf(jmpMore, r1, uint64(limit), bad)
	w.head(i.Size, uint8(plugin.Cut), false)
	w.jump(end)
	w.set(bad)
	w.storeImm(fp, stackFault, 1, 8)
	w.load(r1, fp, stackSum, 8)
	unknown := w.label()
	w.jumpIf(jmpMore, r1, uint64(limit), unknown)
	w.head(i.Size, uint8(plugin.Unreadable), false)
	w.jump(end)
	w.set(unknown)
	w.imm(r1, 0)
	w.head(i.Size, uint8(plugin.Unreadable), false)
	w.jump(end)
	w.set(done)
	w.load(r1, fp, stackSum, 8)
	w.jumpIf(jmpMore, r1, uint64(limit), unknown)
	w.head(i.Size, uint8(plugin.Whole), false)
	w.set(end)
}
