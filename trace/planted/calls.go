package planted

import (
	"fmt"
	"slices"

	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

const compatStatus = 2 // TS_COMPAT: the call came in by int $0x80 or sysenter, whatever the code segment is

var (
	saved64 = [6]int32{regDI, regSI, regDX, regRT, regR8, regR9}
	saved32 = [6]int32{regBX, regCX, regDX, regSI, regDI, regBP}
)

// maxNumber is more than the number of any system call.
const maxNumber = 512

// callCompiler writes the two programs of system calls.
type callCompiler struct {
	o     *layout
	calls *tcg.Calls
	area  uint32
	pids  []int32
	// only has the calls, by ABI, that functions do to which the programs are attached; nil: they are attached where all calls begin and
	// return.
	only *[2][]uint32
}

// numbers are the numbers of an ABI's calls, in ascending order.
func (c *callCompiler) numbers(abi syscall.ABI) (ns []uint32) {
	ns = c.calls.Numbers(abi)
	if c.only != nil {
		ns = slices.DeleteFunc(ns, func(n uint32) bool { return !slices.Contains(c.only[abi], n) })
	}
	return ns
}

// program is sys_enter(struct pt_regs *, long id), or sys_exit(struct pt_regs *, long ret); of a function that does a call, what it is called
// with, and has returned: (struct pt_regs *), and (struct pt_regs *, long ret).
func (c *callCompiler) program(entry bool) (*writer, error) {
	o := c.o
	w := newWriter(c.area, maxRecord)
	w.load(r6, r1, 0, 8)
	if !entry || c.only == nil {
		w.load(r7, r1, 8, 8) // the number, or the result
	}
	if !entry {
		w.store(fp, slot(uint8(tcg.SlotResult)), r7, 8)
	}
	if !entry || c.only != nil {
		w.load(r7, r6, regNr, 8)
	}
	w.alu(aluShl, r7, 32)
	w.alu(aluShr, r7, 32)
	if !entry {
		// rt_sigreturn has put another's number into its place, or -1, so that nothing is restarted.
		other := w.label()
		w.imm(r1, 0xffffffff)
		w.jumpReg(jmpDiffer, r7, r1, other)
		w.imm(r7, sigreturn64)
		w.set(other)
	}
	c.filter(w)
	w.call(callTask)
	w.mov(r8, r0)
	w.store(fp, stackTask, r8, 8)
	c.processes(w)
	w.load(r1, r8, o.status, 4)
	compat, known, whole := w.label(), w.label(), w.label()
	if !entry {
		w.storeImm(fp, stackWhole, 0, 8)
	}
	w.jumpIf(jmpAny, r1, compatStatus, compat)
	for _, abi := range []syscall.ABI{syscall.ABI64, syscall.ABI32} {
		if abi == syscall.ABI32 {
			w.set(compat)
		}
		c.wanted(w, abi, entry)
		one, next := whole, w.label()
		if !entry {
			one = w.label()
		}
		if c.all() {
			if err := c.split(w, abi, one); err != nil {
				return nil, err
			}
		}
		w.jump(next)
		if !entry {
			w.set(one)
			w.storeImm(fp, stackWhole, 1, 8)
		}
		w.set(next)
		if abi == syscall.ABI32 {
			w.imm(r1, 1<<32)
			w.aluReg(aluAdd, r7, r1)
		}
		w.jump(known)
	}
	if entry {
		w.set(whole)
		c.brief(w)
	}
	w.set(known)
	w.store(fp, stackCall, r7, 8)
	words := tcg.CallWords
	id := uint16(tcg.ReturnID)
	if entry {
		words, id = words+6, tcg.EntryID
	}
	w.begin(id, words)
	c.head(w, entry)
	if err := c.fetch(w, entry); err != nil {
		return nil, err
	}
	return w, nil
}

const sigreturn64 = 15

// filter ends the program of a call whose number no ABI wants, before anything else is looked at.
func (c *callCompiler) filter(w *writer) {
	if c.all() {
		return
	}
	w.member(r7, append(c.numbers(syscall.ABI64), c.numbers(syscall.ABI32)...), w.out)
}

// member goes on if the number in a register is in a set, else to no. R1 and R2 are changed.
func (w *writer) member(reg uint8, set []uint32, no label) {
	var bits [maxNumber / 64]uint64
	for _, n := range set {
		if n < maxNumber {
			bits[n/64] |= 1 << (n % 64)
		}
	}
	test := w.label()
	var branches []branch
	var masks []uint64
	for i, mask := range bits {
		if mask != 0 {
			branches = append(branches, branch{uint32(64 * i), uint32(64*i + 63), w.label()})
			masks = append(masks, mask)
		}
	}
	w.dispatch(reg, branches, no)
	for i, b := range branches {
		w.set(b.label)
		w.imm(r1, masks[i])
		w.jump(test)
	}
	w.set(test)
	w.mov(r2, reg)
	w.alu(aluAnd, r2, 63)
	w.aluReg(aluShr, r1, r2)
	ok := w.label()
	w.jumpIf(jmpAny, r1, 1, ok)
	w.jump(no)
	w.set(ok)
}

// whole says whether a call has no record of its entry when all calls are wanted: nothing is fetched then, and what its arguments are
// is known when it returns, too.
func (c *callCompiler) whole(abi syscall.ABI, n uint32) (bool, error) {
	list, err := c.calls.Entry(abi, n)
	return c.all() && len(list) == 0 && c.calls.Returns(abi, n), err
}

// split goes to whole for calls of an ABI that have no record of their entry. So has one whose number is not known.
func (c *callCompiler) split(w *writer, abi syscall.ABI, whole label) error {
	var others []uint32
	for _, n := range c.numbers(abi) {
		is, err := c.whole(abi, n)
		if err != nil {
			return err
		}
		if !is {
			others = append(others, n)
		}
	}
	w.member(r7, others, whole)
	return nil
}

// brief notes that a call has begun, without a record.
func (c *callCompiler) brief(w *writer) {
	w.element()
	w.mov(r7, r0)
	w.store(r7, controlTask, r8, 8)
	w.load(r3, r8, c.o.voluntary, 8)
	w.load(r1, r8, c.o.involuntary, 8)
	w.aluReg(aluAdd, r3, r1)
	w.store(r7, controlSwitches, r3, 8)
	w.storeImm(r7, controlStamp, 0, 8)
	w.storeImm(r7, controlFault, 0, 8)
	w.call(callTime)
	w.store(r7, controlBegan, r0, 8)
	w.jump(w.out)
}

// all says whether every call is wanted, also one of a number that is not known.
func (c *callCompiler) all() bool { return c.calls.All() }

// processes ends the program of a process that is not wanted.
func (c *callCompiler) processes(w *writer) {
	if len(c.pids) == 0 {
		return
	}
	ok := w.label()
	w.load(r1, r8, c.o.tgid, 4)
	for _, pid := range c.pids {
		w.jumpIf(jmpEqual, r1, uint64(uint32(pid)), ok)
	}
	w.jump(w.out)
	w.set(ok)
}

// wanted ends the program of a call that is not wanted in its ABI.
func (c *callCompiler) wanted(w *writer, abi syscall.ABI, entry bool) {
	var branches []branch
	ok := w.label()
	if !entry { // the child of a fork returns where it began: no call of its own
		born := w.label()
		var forks []branch
		for _, n := range c.numbers(abi) {
			if slices.Contains([]string{"fork", "vfork", "clone", "clone3"}, c.calls.Name(abi, n)) {
				forks = append(forks, branch{n, n, born})
			}
		}
		if len(forks) > 0 {
			parent := w.label()
			w.dispatch(r7, forks, parent)
			w.set(born)
			w.load(r1, fp, slot(uint8(tcg.SlotResult)), 8)
			w.jumpIf(jmpEqual, r1, 0, w.out)
			w.set(parent)
		}
	}
	if c.all() {
		return
	}
	for _, n := range c.numbers(abi) {
		branches = append(branches, branch{n, n, ok})
	}
	w.dispatch(r7, branches, w.out)
	w.set(ok)
}

// head writes the words of the record. The task is in R8 until the first item.
func (c *callCompiler) head(w *writer, entry bool) {
	o := c.o
	w.load(r8, fp, stackTask, 8)
	w.word(0, r8)
	w.call(callIDs)
	w.word(1, r0)
	w.load(r1, fp, stackCall, 8)
	w.word(2, r1)
	w.load(r1, r8, o.started, 8)
	w.word(4, r1)
	w.load(r3, r8, o.voluntary, 8)
	w.load(r1, r8, o.involuntary, 8)
	w.aluReg(aluAdd, r3, r1)
	w.load(r7, fp, stackElement, 8)
	if entry {
		// A number that the return has again, unless the task is switched away from meanwhile.
		w.load(r1, r9, recordSequence, 8)
		w.alu(aluAdd, r1, 1)
		w.alu(aluShl, r1, 8)
		w.load(r2, fp, stackKey, 4)
		w.alu(aluAnd, r2, 0xff)
		w.aluReg(aluAdd, r1, r2)
		w.word(3, r1)
		w.store(r7, controlStamp, r1, 8)
		w.store(r7, controlTask, r8, 8)
		w.store(r7, controlSwitches, r3, 8)
		w.storeImm(r7, controlFault, 0, 8)
		w.storeImm(fp, stackFault, 0, 8)
		w.load(r1, r6, regIP, 8)
		w.word(5, r1)
	} else {
		slept, done := w.label(), w.label()
		w.imm(r4, 0) // when it began
		w.load(r1, r7, controlTask, 8)
		w.jumpReg(jmpDiffer, r1, r8, slept)
		w.storeImm(r7, controlTask, 0, 8)
		w.load(r1, r7, controlSwitches, 8)
		w.jumpReg(jmpDiffer, r1, r3, slept)
		w.load(r1, r7, controlStamp, 8)
		w.word(3, r1)
		w.load(r1, r7, controlFault, 8)
		w.store(fp, stackFault, r1, 8)
		w.load(r4, r7, controlBegan, 8)
		w.jump(done)
		w.set(slept)
		w.imm(r1, 0)
		w.word(3, r1)
		// What it slept for may have been a page of its arguments.
		w.storeImm(fp, stackFault, 1, 8)
		w.set(done)
		w.load(r1, fp, slot(uint8(tcg.SlotResult)), 8)
		w.word(5, r1)
		if c.all() {
			part := w.label()
			w.load(r1, fp, stackWhole, 8)
			w.jumpIf(jmpEqual, r1, 0, part)
			w.word(tcg.WholeWords-1, r4)
			w.storeImm(r9, recordProbe, tcg.WholeID, 4)
			w.storeImm(r9, recordWords, tcg.WholeWords, 4)
			w.storeImm(r9, recordLength, recordHead+8*tcg.WholeWords, 4)
			w.set(part)
		}
	}
	compat, done := w.label(), w.label()
	w.load(r1, r8, o.status, 4)
	w.jumpIf(jmpAny, r1, compatStatus, compat)
	for i := range 6 {
		w.load(r1, r6, saved64[i], 8)
		c.argument(w, entry, i)
	}
	w.jump(done)
	w.set(compat)
	for i := range 6 {
		w.load(r1, r6, saved32[i], 4)
		c.argument(w, entry, i)
	}
	w.set(done)
}

func (c *callCompiler) argument(w *writer, entry bool, i int) {
	w.store(fp, slot(uint8(tcg.SlotArgs)+uint8(i)), r1, 8)
	if entry || c.all() { // of a return that is not whole, what comes next has this place
		w.word(tcg.CallWords+i, r1)
	}
}

// fetch writes what is fetched of each call, and completes the record.
func (c *callCompiler) fetch(w *writer, entry bool) error {
	done := w.label()
	if entry {
		if err := c.each(w, done, c.calls.Entry); err != nil {
			return err
		}
		w.set(done)
		w.load(r1, fp, stackFault, 8)
		w.load(r7, fp, stackElement, 8)
		w.store(r7, controlFault, r1, 8)
		w.finish()
		return nil
	}
	read := w.label()
	w.load(r1, fp, stackFault, 8)
	w.jumpIf(jmpEqual, r1, 0, read)
	if err := c.each(w, read, c.calls.Again); err != nil {
		return err
	}
	w.set(read)
	if err := c.each(w, done, c.calls.Return); err != nil {
		return err
	}
	w.set(done)
	w.finish()
	return nil
}

// each writes programs of calls, once for all calls of which they are the same. All lead to done.
func (c *callCompiler) each(w *writer, done label, of func(syscall.ABI, uint32) ([]plugin.Instruction, error)) error {
	type body struct {
		label label
		list  []plugin.Instruction
	}
	var bodies []*body
	known := map[string]*body{}
	var branches [2][]branch
	used := map[uint8]bool{}
	for _, abi := range []syscall.ABI{syscall.ABI64, syscall.ABI32} {
		for _, n := range c.numbers(abi) {
			list, err := of(abi, n)
			if err != nil {
				return fmt.Errorf("%s: %w", c.calls.Name(abi, n), err)
			}
			if len(list) == 0 {
				continue
			}
			key := fmt.Sprint(list)
			b := known[key]
			if b == nil {
				b = &body{w.label(), list}
				known[key] = b
				bodies = append(bodies, b)
				for _, i := range list {
					used[i.Dst], used[i.Src] = true, true
				}
			}
			branches[abi] = append(branches[abi], branch{n, n, b.label})
		}
	}
	// What a program may read before it has written it is 0.
	for s := uint8(0); s < plugin.Slots; s++ {
		if used[s] && s != uint8(tcg.SlotResult) && (s < uint8(tcg.SlotArgs) || s >= uint8(tcg.SlotArgs)+6) {
			w.storeImm(fp, slot(s), 0, 8)
		}
	}
	old := w.label()
	w.load(r1, fp, stackCall, 8)
	w.mov(r2, r1)
	w.alu(aluShr, r2, 32)
	w.jumpIf(jmpDiffer, r2, 0, old)
	w.dispatch(r1, branches[syscall.ABI64], done)
	w.set(old)
	w.alu(aluShl, r1, 32)
	w.alu(aluShr, r1, 32)
	w.dispatch(r1, branches[syscall.ABI32], done)
	for _, b := range bodies {
		w.set(b.label)
		limit := uint32(maxText)
		for sizeOf(b.list, limit) > maxRecord-512 {
			limit /= 2
		}
		if err := w.translate(b.list, limit); err != nil {
			return err
		}
		w.jump(done)
	}
	return nil
}
