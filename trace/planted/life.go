package planted

import (
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

const (
	kernelThread = 0x200000 // PF_KTHREAD
	maxText      = 4096     // of the name of a program
	maxArguments = 10 << 10 // of a program, all together: what a record has room for
	maxNames     = 16       // of a path
)

// doorHead writes the words that each record of a door begins with. The current task is in R7 then, and on the stack.
func (w *writer) doorHead(o *layout) {
	w.call(callTask)
	w.mov(r7, r0)
	w.store(fp, stackTask, r7, 8)
	w.word(0, r7)
	w.call(callIDs)
	w.word(1, r0)
	w.imm(r1, 0)
	w.word(2, r1)
	w.load(r1, r7, o.started, 8)
	w.word(3, r1)
	w.parent(o, r7, tcg.DoorWords)
	w.user(o, r7, tcg.DoorWords+1)
}

// parent writes the PID of a task's parent, and user its user.
func (w *writer) parent(o *layout, task uint8, word int) {
	none := w.label()
	w.imm(r2, 0)
	w.pointer(r1, task, o.parent, none)
	w.load(r2, r1, o.tgid, 4)
	w.set(none)
	w.word(word, r2)
}

func (w *writer) user(o *layout, task uint8, word int) {
	none := w.label()
	w.imm(r2, 0)
	w.pointer(r1, task, o.cred, none)
	w.load(r2, r1, o.uid, 4)
	w.set(none)
	w.word(word, r2)
}

// doorTail adds the name of the current task, and completes the record.
func (w *writer) doorTail(o *layout) {
	w.load(r6, fp, stackTask, 8)
	w.constant(tcg.TagComm, o.comm, 16)
	w.finish()
}

// own are the words of a door's own.
const own = tcg.DoorWords + 2

func newWriter(area, reserve uint32) *writer {
	w := &writer{area: area, reserve: reserve}
	w.out, w.full = w.label(), w.label()
	return w
}

// exec is sched_process_exec(struct task_struct *, pid_t, struct linux_binprm *).
func (o *layout) exec(area uint32) *writer {
	w := newWriter(area, maxText+maxArguments+2*16+maxNames*64+512)
	w.load(r6, r1, 16, 8)
	w.begin(tcg.DoorID(trace.KindExec), own+3)
	w.doorHead(o)
	// The links of the file, and which file system its path belongs to.
	none := w.label()
	w.imm(r1, 0)
	for i := range 3 {
		w.word(own+i, r1)
	}
	w.pointer(r1, r6, o.file, none)
	w.pointer(r2, r1, o.fileDentry, none)
	unlinked := w.label()
	w.pointer(r3, r2, o.inode, unlinked)
	w.load(r3, r3, o.links, 4)
	w.word(own, r3)
	w.set(unlinked)
	w.load(r3, r2, o.super, 8)
	w.load(r4, r1, o.fileMnt, 8)
	other, same := w.label(), w.label()
	w.pointer(r5, r7, o.fs, other)
	w.load(r5, r5, o.rootMnt, 8)
	w.jumpReg(jmpEqual, r5, r4, same)
	w.set(other)
	w.word(own+2, r3)
	w.set(same)
	w.set(none)
	// Its name and arguments lie in pages of the new program that have just been written.
	w.load(r3, r6, o.execName, 8)
	w.string(0, maxText)
	bare := w.label()
	w.load(r1, fp, stackTask, 8)
	w.pointer(r1, r1, o.mm, bare)
	w.load(r3, r1, o.argStart, 8)
	w.load(r1, r1, o.argEnd, 8)
	w.aluReg(aluSub, r1, r3)
	w.word(own+1, r1)
	w.copy(1, maxArguments)
	w.set(bare)
	pathless := w.label()
	w.pointer(r1, r6, o.file, pathless)
	w.pointer(r6, r1, o.fileDentry, pathless)
	w.path(o, pathless)
	w.set(pathless)
	w.doorTail(o)
	return w
}

// path adds the names of the path of the dentry in R6, up to the root of its file system. Names that are too long to lie in
// the dentry itself can be read by functions only that lockdown denies.
func (w *writer) path(o *layout, end label) {
	turn, long, named, whole := w.label(), w.label(), w.label(), w.label()
	w.storeImm(fp, stackTurn, 0, 8)
	w.set(turn)
	w.load(r1, r6, o.length, 4)
	w.jumpIf(jmpMore, r1, uint64(o.inlineSize-1), long)
	w.constant(tcg.TagPath, o.inline, o.inlineSize)
	w.jump(named)
	w.set(long)
	w.mark(tcg.TagPath, uint8(plugin.Unreadable))
	w.jump(end)
	w.set(named)
	w.pointer(r7, r6, o.above, end)
	w.jumpReg(jmpEqual, r7, r6, whole) // it has no folder, as that of a memfd
	w.pointer(r1, r7, o.above, end)
	w.jumpReg(jmpEqual, r7, r1, whole)
	w.mov(r6, r7)
	w.load(r1, fp, stackTurn, 8)
	w.alu(aluAdd, r1, 1)
	w.store(fp, stackTurn, r1, 8)
	w.jumpIf(jmpLess, r1, maxNames, turn)
	w.jump(end)
	w.set(whole)
	w.mark(tcg.TagWhole, uint8(plugin.Whole))
}

// fork is sched_process_fork(struct task_struct *parent, struct task_struct *child).
func (o *layout) fork(area uint32) *writer {
	w := newWriter(area, 512)
	w.load(r6, r1, 8, 8)
	w.load(r1, r6, o.flags, 4)
	w.jumpIf(jmpAny, r1, kernelThread, w.out)
	w.load(r1, r6, o.pid, 4)
	w.load(r2, r6, o.tgid, 4)
	w.jumpReg(jmpDiffer, r1, r2, w.out) // a thread
	w.begin(tcg.DoorID(trace.KindFork), own+5)
	w.doorHead(o)
	w.word(own, r6)
	w.load(r1, r6, o.tgid, 4)
	w.word(own+1, r1)
	w.load(r1, r6, o.started, 8)
	w.word(own+2, r1)
	w.parent(o, r6, own+3)
	w.user(o, r6, own+4)
	w.constant(0, o.comm, 16)
	w.doorTail(o)
	return w
}

// quit is sched_process_exit(struct task_struct *): each thread, when its process knows that it is gone.
func (o *layout) quit(area uint32) *writer {
	w := newWriter(area, 512)
	w.load(r6, r1, 0, 8)
	w.load(r1, r6, o.flags, 4)
	w.jumpIf(jmpAny, r1, kernelThread, w.out)
	w.pointer(r1, r6, o.signal, w.out)
	w.load(r1, r1, o.live, 4)
	w.jumpIf(jmpDiffer, r1, 0, w.out) // others go on
	w.begin(tcg.DoorID(trace.KindExit), own+3)
	w.doorHead(o)
	w.load(r1, r6, o.exitCode, 4)
	w.word(own, r1)
	w.load(r6, r6, o.signal, 8)
	none, known := w.label(), w.label()
	w.jumpIf(jmpEqual, r6, 0, none)
	w.load(r1, r6, o.signalFlags, 4)
	w.word(own+1, r1)
	w.load(r1, r6, o.groupExit, 4)
	w.word(own+2, r1)
	w.jump(known)
	w.set(none)
	w.imm(r1, 0)
	w.word(own+1, r1)
	w.word(own+2, r1)
	w.set(known)
	w.doorTail(o)
	return w
}

// module is module_load(struct module *), and module_free of the same.
func (o *layout) module(area uint32, kind trace.Kind) *writer {
	w := newWriter(area, 512)
	w.load(r6, r1, 0, 8)
	w.begin(tcg.DoorID(kind), own+2)
	w.doorHead(o)
	w.load(r1, r6, o.taints, 8)
	w.word(own, r1)
	w.word(own+1, r6)
	w.constant(0, o.moduleName, o.moduleSize)
	w.doorTail(o)
	return w
}

// beat is workqueue_execute_start: the kernel's own work runs in idle guests too, each second at least (vmstat_shepherd).
func beat(area uint32) *writer {
	w := newWriter(area, 512)
	w.element()
	w.mov(r7, r0)
	w.imm(r1, ringMagic)
	w.store(r7, controlMagic, r1, 8)
	w.imm(r1, 1)
	w.add(atomic64, r7, r1, controlBeats, atomicFetchAdd)
	w.call(callTime)
	w.store(r7, controlBeatTime, r0, 8)
	w.set(w.out)
	w.exit()
	return w
}
