package addrspace

import (
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

const (
	pageSize  = phys.PageSize
	userHalf  = 256                   // entries of a root of 4 or 5 levels that map the lower half of addresses
	rootMask  = 0x000f_ffff_ffff_f000 // of CR3: without PCID, LAM, and the bit that keeps the TLB
	frameMask = rootMask              // of an entry: without what the processor and the kernel note in it
	longMode  = 1 << 10               // EFER.LMA: only then roots look so

	// physBase is where programs see guest-physical memory: at addresses that no guest can have.
	physBase = 1 << 60
)

// What a vCPU remembers, behind what trace/tcg's programs remember.
const (
	memRoot    = 16 + iota // that is loaded; 0: not known yet
	memPartner             // the other root of the same space; 0: none so far
	memTop                 // address of its last entry; 0: none
	memFrame               // and what it has
	memOwner               // 1: its owner was reported
	memSuspect             // and the next seven: the last entries of four roots that were left, with what they had
)

const suspects = 4

// Slots that programs use.
const (
	sNew = plugin.Slot(iota)
	sTop
	sFrame
	sOld
	sOldTop
	sOldFrame
	sGone
	sGoneFrame
	sA
	sB
	sX
	sY
	sKind
	sGS
	sTask
	sIDs
	sBorn
	sUID
	sPPID
	sLength
)

// Probes writes the programs that watch address spaces, for [Tracker.Take]. Memory is what the guest has;
// owners is nil as long as nothing is known of its kernel.
func Probes(a *plugin.Assembler, memory phys.Memory, owners *Owners) {
	ranges := memory.Ranges()
	if len(ranges) == 0 {
		return
	}
	a.Linear(plugin.Linear{Address: physBase, Size: uint64(ranges[len(ranges)-1].End)})
	p := program{a}
	p.load()
	p.back(owners)
	p.sleep()
}

type program struct{ *plugin.Assembler }

func (p *program) put(kind uint64, words ...plugin.Slot) {
	p.Imm(sKind, kind)
	p.Put(sKind)
	for _, w := range words {
		p.Put(w)
	}
	p.End()
}

// top finds the last entry of the root in slot root, and what it has; both are 0 if there is none.
func (p *program) top(root, at, frame plugin.Slot) {
	none := p.Label()
	p.Imm(frame, 0)
	p.Add(sY, root, physBase)
	p.Last(at, sY, userHalf)
	p.If(at, "==", 0, none)
	p.Load(frame, at, 0, 8, none)
	p.And(frame, frame, frameMask)
	p.Set(none)
}

func (p *program) clear(word uint32) {
	p.Imm(sX, 0)
	p.Remember(word, sX)
}

// load writes the program of a load of CR3. Most loads come with the system's changes between user and kernel, or
// flush the TLB, and are of no interest.
func (p *program) load() {
	drop, pair, other, long, nothing := p.Label(), p.Label(), p.Label(), p.Label(), p.Label()
	p.Probe(plugin.Probe{Where: plugin.AtControl, Arg: 3, ID: ID})
	p.Ctx(sNew, plugin.CtxValue)
	p.And(sNew, sNew, rootMask)
	p.Recall(sOld, memRoot)
	p.IfSame(sNew, sOld, drop)
	p.Recall(sX, memPartner)
	p.IfSame(sNew, sX, drop)
	p.Reg(sX, "efer")
	p.If(sX, "&", longMode, long)
	p.Drop()
	p.Set(long)
	p.top(sNew, sTop, sFrame)
	p.If(sOld, "==", 0, nothing)
	// A kernel that hides itself from user code (PTI) has two roots for each space, with the same user half.
	p.If(sTop, "==", 0, other)
	p.And(sX, sTop, pageSize-1)
	p.AddSlot(sX, sOld)
	p.Add(sX, sX, physBase)
	p.Load(sX, sX, 0, 8, other)
	p.And(sX, sX, frameMask)
	p.IfSame(sX, sFrame, pair)
	p.Set(other)
	p.top(sOld, sOldTop, sOldFrame)
	p.Set(nothing)
	for k := range uint32(suspects) {
		next, forget := p.Label(), p.Label()
		p.Recall(sA, memSuspect+2*k)
		p.If(sA, "==", 0, next)
		p.And(sX, sA, ^uint64(pageSize-1))
		p.Add(sY, sNew, physBase)
		p.IfSame(sX, sY, forget) // it is loaded again
		p.If(sGone, "!=", 0, next)
		p.Load(sX, sA, 0, 8, forget)
		p.And(sX, sX, frameMask)
		p.Recall(sB, memSuspect+2*k+1)
		p.IfSame(sX, sB, next)
		p.Add(sGone, sA, 0)
		p.Add(sGoneFrame, sB, 0)
		p.Set(forget)
		p.clear(memSuspect + 2*k)
		p.Set(next)
	}
	kept := p.Label()
	p.If(sOldTop, "==", 0, kept)
	for k := uint32(suspects - 1); k > 0; k-- {
		for i := range uint32(2) {
			p.Recall(sX, memSuspect+2*(k-1)+i)
			p.Remember(memSuspect+2*k+i, sX)
		}
	}
	p.Remember(memSuspect, sOldTop)
	p.Remember(memSuspect+1, sOldFrame)
	p.Set(kept)
	p.Remember(memRoot, sNew)
	p.Remember(memTop, sTop)
	p.Remember(memFrame, sFrame)
	p.clear(memPartner)
	p.clear(memOwner)
	p.put(recLoad, sNew, sTop, sFrame, sOld, sOldTop, sOldFrame, sGone, sGoneFrame)
	p.Set(pair)
	p.Remember(memPartner, sNew)
	p.put(recPair, sOld, sNew)
	p.Set(drop)
	p.Drop()
}

// back writes the program of a return from an interrupt. There it is seen that a space has ended whose root was left
// before: what runs another program by exec leaves its old space first, and gives it back then, and returns so.
func (p *program) back(owners *Owners) {
	same, known, long := p.Label(), p.Label(), p.Label()
	p.Probe(plugin.Probe{Where: plugin.AtReturn, ID: ID})
	// What was loaded when the probes came: in a guest that does little it stays so.
	p.Recall(sOld, memRoot)
	p.If(sOld, "!=", 0, known)
	p.Reg(sX, "efer")
	p.If(sX, "&", longMode, long)
	p.Drop()
	p.Set(long)
	p.Reg(sNew, "cr3")
	p.And(sNew, sNew, rootMask)
	p.top(sNew, sTop, sFrame)
	p.Remember(memRoot, sNew)
	p.Remember(memTop, sTop)
	p.Remember(memFrame, sFrame)
	p.put(recLoad, sNew, sTop, sFrame, sOld, sOldTop, sOldFrame, sGone, sGoneFrame)
	p.Set(known)
	p.Recall(sA, memTop)
	p.If(sA, "==", 0, same)
	p.Load(sX, sA, 0, 8, same)
	p.And(sX, sX, frameMask)
	p.Recall(sB, memFrame)
	p.IfSame(sX, sB, same)
	p.Recall(sNew, memRoot)
	p.top(sNew, sTop, sFrame)
	p.Remember(memTop, sTop)
	p.Remember(memFrame, sFrame)
	p.put(recMoved, sNew, sTop, sFrame)
	p.Set(same)
	if owners != nil {
		p.owner(owners)
	}
	for k := range uint32(suspects) {
		next := p.Label()
		p.Recall(sA, memSuspect+2*k)
		p.If(sA, "==", 0, next)
		p.Load(sX, sA, 0, 8, next)
		p.And(sX, sX, frameMask)
		p.Recall(sB, memSuspect+2*k+1)
		p.IfSame(sX, sB, next)
		p.clear(memSuspect + 2*k)
		p.And(sNew, sA, rootMask)
		p.top(sNew, sTop, sFrame)
		p.put(recGone, sA, sB, sTop, sFrame)
		p.Set(next)
	}
	p.Drop()
}

// owner reports once who runs in a space that was loaded: the current task, if the space is its own. A thread
// of the kernel's that uses what happens to be loaded is nobody.
func (p *program) owner(o *Owners) {
	other, kernel, own := p.Label(), p.Label(), p.Label()
	p.Recall(sX, memOwner)
	p.If(sX, "!=", 0, other)
	p.Recall(sNew, memRoot)
	p.If(sNew, "==", 0, other)
	// A return to user code: before, exec has not given the process its new name yet.
	p.Reg(sX, "rsp")
	p.Load(sX, sX, 8, 8, other)
	p.And(sX, sX, 3)
	p.If(sX, "!=", 3, other)
	p.Reg(sGS, "gs_base")
	p.If(sGS, ">", 1<<63-1, kernel)
	p.Reg(sGS, "k_gs_base")
	p.Set(kernel)
	p.Load(sTask, sGS, int64(o.current), 8, other)
	p.Load(sX, sTask, int64(o.mm), 8, other)
	p.If(sX, "==", 0, other)
	p.Load(sX, sX, int64(o.pgd), 8, other)
	p.Add(sY, sNew, o.direct)
	p.IfSame(sX, sY, own)
	p.Recall(sY, memPartner)
	p.Add(sY, sY, o.direct)
	p.IfSame(sX, sY, own)
	p.Jump(other)
	p.Set(own)
	p.Load(sX, sTask, int64(o.flags), 4, other)
	p.If(sX, "&", pfKthread, other)
	p.Load(sIDs, sTask, int64(o.tgid), 4, other)
	p.Shl(sIDs, sIDs, 32)
	p.Load(sX, sTask, int64(o.pid), 4, other)
	p.AddSlot(sIDs, sX)
	p.Load(sBorn, sTask, int64(o.started), 8, other)
	p.Load(sX, sTask, int64(o.cred), 8, other)
	p.Load(sUID, sX, int64(o.uid), 4, other)
	p.Load(sX, sTask, int64(o.parent), 8, other)
	p.Load(sPPID, sX, int64(o.tgid), 4, other)
	p.Imm(sX, 1)
	p.Remember(memOwner, sX)
	p.Imm(sKind, recOwner)
	for _, s := range []plugin.Slot{sKind, sNew, sTask, sIDs, sBorn, sUID, sPPID} {
		p.Put(s)
	}
	p.Add(sX, sTask, uint64(o.comm))
	p.Imm(sLength, commSize)
	p.Copy(0, sX, sLength, commSize)
	p.End()
	p.Set(other)
}

// sleep writes the program of a vCPU that has nothing to do.
func (p *program) sleep() {
	p.Probe(plugin.Probe{Where: plugin.AtSleep, ID: ID})
	p.Ctx(sX, plugin.CtxValue)
	p.put(recSleep, sX)
}
