package planted

// Places on the stack of a program.
const (
	stackKey      = -8
	stackPosition = -16
	stackElement  = -24
	stackFault    = -32
	stackWord     = -40 // what was loaded last
	stackTurn     = -48 // of a loop
	stackItem     = -56 // where an item begins that is not complete
	stackSum      = -64
	stackTask     = -72
	stackCall     = -80 // number and ABI of a system call
	stackTag      = -88 // of a routine's item
	stackLimit    = -96
	stackReturn   = -104 // where a routine goes on
	stackWhole    = -112 // 1: the record of a return has all of the call
	stackSlots    = -120 // slot 0; the others lie below
)

// writer is a program that writes a record. R6 is its subject and R7 whatever it likes; R8 is where the next item
// goes, from the record's beginning, which is in R9.
type writer struct {
	code
	area    uint32
	reserve uint32 // for the record
	out     label  // ends the program without a record
	full    label  // completes the record, although more was to come
	copies  routine
	strings routine
}

// routine is code that many places share. BPF has functions, but only for programs that bring type information: so each place has a
// number, by which the routine finds back.
type routine struct {
	entry   label
	returns []label
}

// run goes to a routine, which adds an item of at most limit bytes, and comes back.
func (w *writer) run(r *routine, tag uint8, limit uint32) {
	if r.entry == 0 {
		r.entry = w.label()
	}
	back := w.label()
	w.storeImm(fp, stackTag, int32(tag), 8)
	w.storeImm(fp, stackLimit, int32(limit), 8)
	w.storeImm(fp, stackReturn, int32(len(r.returns)), 8)
	r.returns = append(r.returns, back)
	w.jump(r.entry)
	w.set(back)
}

// goBack ends a routine.
func (w *writer) goBack(r *routine) {
	var branches []branch
	for i, l := range r.returns {
		branches = append(branches, branch{uint32(i), uint32(i), l})
	}
	w.load(r1, fp, stackReturn, 8)
	w.dispatch(r1, branches, w.full)
}

// begin finds the processor's ring and begins a record of so many words.
func (w *writer) begin(probe uint16, words int) {
	w.element()
	w.call(callTime)
	w.store(fp, stackWord, r0, 8)
	w.load(r7, fp, stackElement, 8)
	w.imm(r1, ringMagic)
	w.store(r7, controlMagic, r1, 8)
	w.imm(r1, uint64(w.reserve))
	w.add(atomic64, r7, r1, controlHead, atomicFetchAdd)
	w.store(fp, stackPosition, r1, 8)
	w.mov(r2, r1)
	w.aluImm(aluAnd, r1, uint64(w.area-1))
	w.mov(r9, r7)
	w.alu(aluAdd, r9, page)
	w.aluReg(aluAdd, r9, r1)
	w.storeImm(r9, recordMark, 0, 8) // what lies here may look like one
	shift := int32(0)
	for 1<<shift < w.area/anchors {
		shift++
	}
	w.alu(aluShr, r1, shift)
	w.alu(aluAnd, r1, anchors-1)
	w.alu(aluShl, r1, 3)
	w.aluReg(aluAdd, r1, r7) // verified as an offset into the element
	w.store(r1, controlAnchors, r2, 8)
	w.imm(r1, 1)
	w.add(atomic64, r7, r1, controlCount, atomicFetchAdd)
	w.store(r9, recordSequence, r1, 8)
	w.load(r1, fp, stackWord, 8)
	w.store(r9, recordTime, r1, 8)
	w.imm(r1, uint64(probe)) // and no flags
	w.store(r9, recordProbe, r1, 4)
	w.storeImm(r9, recordWords, int32(words), 4)
	w.storeImm(r9, recordLength, int32(recordHead+8*words), 4)
}

// element puts the address of the processor's element on the stack and into R0.
func (w *writer) element() {
	w.call(callProcessor)
	w.store(fp, stackKey, r0, 4)
	w.ring(r1)
	w.mov(r2, fp)
	w.alu(aluAdd, r2, stackKey)
	w.call(callMapLookup)
	w.jumpIf(jmpEqual, r0, 0, w.out)
	w.store(fp, stackElement, r0, 8)
}

// word stores a register as a word of the record.
func (w *writer) word(i int, src uint8) { w.store(r9, int32(recordHead+8*i), src, 8) }

// next makes R8 + n, which R1 has, the place of the next item. It is kept in the record: then the verifier forgets what it
// knew of it, and all ways to here are one for it.
func (w *writer) next() {
	w.aluReg(aluAdd, r8, r1)
	w.alu(aluAdd, r8, 7)
	w.alu(aluAnd, r8, -8)
	w.store(r9, recordLength, r8, 4)
}

// room bounds R8, so that n bytes fit behind it.
func (w *writer) room(n uint32) {
	w.load(r8, r9, recordLength, 4)
	w.jumpIf(jmpMore, r8, uint64(w.reserve-n), w.full)
}

// item begins an item of at most n bytes: R7 is where it goes.
func (w *writer) item(n uint32) {
	w.room(n + 8)
	w.mov(r7, r9)
	w.aluReg(aluAdd, r7, r8)
}

// itemOfLimit begins an item of at most as many bytes as a routine was asked for.
func (w *writer) itemOfLimit(more int32) {
	w.load(r8, r9, recordLength, 4)
	w.imm(r1, uint64(w.reserve)-8-uint64(more))
	w.load(r2, fp, stackLimit, 8)
	w.aluReg(aluSub, r1, r2)
	w.jumpReg(jmpMore, r8, r1, w.full)
	w.mov(r7, r9)
	w.aluReg(aluAdd, r7, r8)
}

// headOfTag writes the head of a routine's item of which R1 has the length, and ends it.
func (w *writer) headOfTag(status uint8) {
	w.store(r7, 0, r1, 4)
	w.load(r2, fp, stackTag, 8)
	w.alu(aluAdd, r2, int32(status)<<8)
	w.store(r7, 4, r2, 4)
	w.alu(aluAdd, r1, 8)
	w.next()
}

// head writes the head of an item of which R1 has the length, and ends it.
func (w *writer) head(tag uint8, status uint8, trimmed bool) {
	v := uint32(tag) | uint32(status)<<8
	if trimmed {
		v |= 1 << 16 // plugin.Trimmed
	}
	w.store(r7, 0, r1, 4)
	w.storeImm(r7, 4, int32(v), 4)
	w.alu(aluAdd, r1, 8)
	w.next()
}

// constant adds an item of size bytes that lie at r6 + off, in memory whose type the verifier knows.
func (w *writer) constant(tag uint8, off, size int32) {
	w.item(uint32(size))
	for i := int32(0); i < size; {
		n := int32(8)
		for i+n > size {
			n /= 2
		}
		w.load(r1, r6, off+i, uint8(n))
		w.store(r7, 8+i, r1, uint8(n))
		i += n
	}
	w.imm(r1, uint64(size))
	w.head(tag, 0, true)
}

// pointer loads a pointer from src + off, and goes to none if it is null: since 6.3 the verifier wants to know.
func (w *writer) pointer(dst, src uint8, off int32, none label) {
	w.load(dst, src, off, 8)
	w.jumpIf(jmpEqual, dst, 0, none)
}

// finish completes the record.
func (w *writer) finish() {
	w.jump(w.full)
	if w.copies.entry != 0 {
		w.copyRoutine()
	}
	if w.strings.entry != 0 {
		w.stringRoutine()
	}
	w.set(w.full)
	w.load(r8, r9, recordLength, 4)
	w.jumpIf(jmpMore, r8, uint64(w.reserve), w.out) // it never is
	w.load(r7, fp, stackElement, 8)
	w.load(r6, fp, stackPosition, 8)
	w.mov(r0, r6)
	w.alu(aluAdd, r0, int32(w.reserve))
	w.mov(r1, r6)
	w.aluReg(aluAdd, r1, r8)
	w.imm(r2, uint64(w.reserve))
	w.mov(r3, r0)
	other := w.label()
	// What is left is given back, unless another program has begun a record behind it.
	w.add(atomic64, r7, r1, controlHead, atomicExchange)
	w.jumpReg(jmpDiffer, r0, r3, other)
	w.mov(r2, r8)
	w.set(other)
	w.store(r9, recordSpan, r2, 4)
	w.alu(aluAdd, r6, 1)
	w.store(r9, recordMark, r6, 8)
	w.set(w.out)
	w.exit()
}
