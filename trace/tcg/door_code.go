package tcg

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// What executable memory without a file behind it is.
const (
	codeAnonymous = iota + 1
	codeHeap
	codeStack
	codeNameless // of a file that has no name: memfd, System V shared memory, one that was deleted
	codeWritten  // a private mapping of a file that the process has written into
)

// codeNames are their names in [trace.Event.Name].
var codeNames = [...]string{
	codeAnonymous: trace.CodeAnonymous, codeHeap: trace.CodeHeap, codeStack: trace.CodeStack, codeNameless: trace.CodeNameless, codeWritten: trace.CodeWritten,
}

// Flags of struct vm_area_struct (include/linux/mm.h).
const (
	vmShared    = 0x8
	vmGrowsDown = 0x100
)

// codeLayout is what doorCode needs.
type codeLayout struct {
	start, end, flags, file, ops, mm, written uint32 // vm_area_struct
	startBrk, brk, exe                        uint32 // mm_struct
	leader, execs                             uint32 // task_struct
}

func (o *codeLayout) resolve(r *kobj.Resolver) {
	const v, m, t = "vm_area_struct", "mm_struct", "task_struct"
	o.start, o.end, o.flags, o.file = r.Offset(v, "vm_start"), r.Offset(v, "vm_end"), r.Offset(v, "vm_flags"), r.Offset(v, "vm_file")
	o.ops, o.mm, o.written = r.Offset(v, "vm_ops"), r.Offset(v, "vm_mm"), r.Offset(v, "anon_vma")
	o.startBrk, o.brk, o.exe = r.Offset(m, "start_brk"), r.Offset(m, "brk"), r.Offset(m, "exe_file")
	o.leader, o.execs = r.Offset(t, "group_leader"), r.Offset(t, "self_exec_id")
}

// memCode is what a vCPU remembers of the last record of code: a process, its program and what the memory is.
const memCode = memGS + 1

// unlessMore goes to l unless x > y, of addresses of user memory. sX is changed.
func (c *compiler) unlessMore(x, y plugin.Slot, l plugin.Label) {
	c.Mul(sX, y, 1<<64-1)
	c.AddSlot(sX, x)
	c.If(sX, "==", 0, l)
	c.If(sX, ">", 1<<63, l)
}

// doorCode is perf_event_mmap(struct vm_area_struct *), which the kernel calls for each mapping that it has made or
// whose protection it has changed: mmap, mprotect, brk, shmat, a stack that grows, and what it maps of a program. Nearly all of them
// cannot be executed. Of one process and program each sort of memory is reported once: compilers at run time change it all the time.
// A vCPU remembers the last that it reported, and the joiner knows the others.
func (c *compiler) doorCode(o *doorLayout) {
	v := &o.code
	drop, file, nameless, ready := c.Label(), c.Label(), c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Load(sB, sA, int64(v.flags), 8, drop)
	c.And(sX, sB, linux.VMExec)
	c.If(sX, "==", 0, drop)
	c.gs("gs_base")
	c.task()
	mine := c.Label()
	c.Load(sD, sA, int64(v.mm), 8, drop)
	c.Load(sX, sTask, int64(o.mm), 8, drop)
	c.IfSame(sX, sD, mine)
	c.doorNone(drop) // another's, into which a debugger writes
	c.Set(mine)
	none := c.Label()
	c.Imm(sE, 0)
	c.Load(sC, sA, int64(v.file), 8, none)
	c.If(sC, "!=", 0, file)
	c.Load(sX, sA, int64(v.ops), 8, none)
	c.If(sX, "!=", 0, none) // the kernel's own: the vDSO, uprobes
	stack, anonymous := c.Label(), c.Label()
	c.And(sX, sB, vmGrowsDown)
	c.If(sX, "!=", 0, stack)
	c.Load(sY, sA, int64(v.end), 8, none)
	c.Load(sZ, sD, int64(v.startBrk), 8, none)
	c.unlessMore(sY, sZ, anonymous)
	c.Load(sY, sA, int64(v.start), 8, none)
	c.Load(sZ, sD, int64(v.brk), 8, none)
	c.unlessMore(sZ, sY, anonymous)
	c.Imm(sMatch, codeHeap)
	c.Jump(ready)
	c.Set(anonymous)
	c.Imm(sMatch, codeAnonymous)
	c.Jump(ready)
	c.Set(stack)
	c.Imm(sMatch, codeStack)
	c.Jump(ready)

	c.Set(file)
	c.Load(sX, sC, int64(o.fileDentry), 8, none)
	c.Load(sE, sX, int64(o.inode), 8, none)
	c.If(sE, "==", 0, none)
	c.Load(sX, sE, int64(o.links), 4, none)
	c.If(sX, "==", 0, nameless)
	c.And(sX, sB, vmShared)
	c.If(sX, "!=", 0, none)
	c.Load(sX, sA, int64(v.written), 8, none)
	c.If(sX, "==", 0, none)
	c.Imm(sMatch, codeWritten)
	c.Jump(ready)
	c.doorNone(none)
	c.Set(nameless)
	c.Imm(sMatch, codeNameless)
	// The program itself is an event of its own kind.
	own, other := c.Label(), c.Label()
	c.Load(sX, sD, int64(v.exe), 8, other)
	c.Load(sX, sX, int64(o.fileDentry), 8, other)
	c.Load(sX, sX, int64(o.inode), 8, other)
	c.IfSame(sX, sE, own)
	c.Jump(other)
	c.doorNone(own)
	c.Set(other)

	c.Set(ready)
	known := c.Label()
	c.Load(sF, sTask, int64(v.leader), 8, known)
	c.Load(sF, sF, int64(c.o.started), 8, known)
	c.Load(sName, sTask, int64(v.execs), 4, known)
	c.Mul(sX, sF, 1099511628211)
	c.AddSlot(sX, sName)
	c.Mul(sX, sX, 1099511628211)
	c.AddSlot(sX, sE)
	c.Add(sX, sX, 1)
	c.Mul(sX, sX, 1099511628211)
	c.AddSlot(sX, sMatch)
	c.Recall(sY, memCode)
	c.IfSame(sX, sY, known)
	c.Remember(memCode, sX)
	c.doorHead(o)
	c.Put(sMatch)
	for _, off := range []uint32{v.start, v.end} {
		c.Load(sX, sA, int64(off), 8, 0)
		c.Put(sX)
	}
	for _, s := range []plugin.Slot{sB, sF, sName, sE} {
		c.Put(s)
	}
	end := c.Label()
	c.If(sC, "==", 0, end)
	c.Load(sMnt, sC, int64(o.fileMnt), 8, end)
	c.Load(sC, sC, int64(o.fileDentry), 8, end)
	c.doorPath(o, tagPath)
	c.Set(end)
	c.doorTail(o)
	c.doorNone(known)
}

// codeKey is what is reported once.
type codeKey struct {
	pid   int32
	born  uint64 // of its first thread
	execs uint64 // programs that it has run
	sort  uint64
	inode uint64
}

// maxCodes bounds the codes that are known: then all are forgotten, and reported once more.
const maxCodes = 1 << 16

func (j *joiner) doorCode(e *trace.Event, r *doorRecord) {
	sort, start, end, flags := r.word(0), r.word(1), r.word(2), r.word(3)
	key := codeKey{pid: int32(r.ids >> 32), born: r.word(4), execs: r.word(5), sort: sort, inode: r.word(6)}
	if j.codes[key] {
		r.drop = true
		return
	}
	if j.codes == nil || len(j.codes) >= maxCodes {
		j.codes = map[codeKey]bool{}
	}
	j.codes[key] = true
	if sort > 0 && sort < uint64(len(codeNames)) {
		e.Name = codeNames[sort]
	}
	switch sort {
	case codeNameless:
		e.Object = r.path(tagPath) + trace.Deleted
	case codeWritten:
		e.Object = r.path(tagPath)
	case codeHeap, codeStack:
		e.Object = "[" + e.Name + "]"
	default:
		e.Object = "[anon]"
	}
	flags &= linux.VMRead | linux.VMWrite | linux.VMExec | vmShared
	if flags&vmShared != 0 {
		flags |= linux.VMMayShare
	}
	e.Args = fmt.Sprintf("at %#x, %d bytes, %s", start, end-start, (&linux.Mapping{Flags: flags}).Perms())
}
