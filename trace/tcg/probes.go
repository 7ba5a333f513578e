package tcg

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// What records are marked with.
const (
	idEntry  = 1 // a system call begins
	idReturn = 2 // its function has returned
	idDenied = 3 // seccomp has judged it
	idExit   = 4 // the kernel's part of it is over: what it wrote is read again
	idWhole  = 5 // it has returned, and has no record of its entry: see [WholeID]
)

// The words that a record of each kind begins with. Arguments follow those of an entry, and
// those that pieces were fetched by follow those of a return.
const (
	wordTask   = 0
	wordIDs    = 1 // PID << 32 | TID, in the kernel's words tgid and pid
	wordCall   = 2 // number | ABI << 32
	wordStamp  = 3 // of the entry: number of the vCPU << 56 | a count of its own
	wordBorn   = 4 // when the task was started, in nanoseconds since boot
	wordPC     = 5 // of an entry: address of the instruction
	wordResult = 5 // of a return
	headWords  = 6
)

// What a vCPU remembers of the last entry on it, until it returns: the words of a record first, in their order.
const (
	memTask  = 0  // 0: nothing
	memArgs  = 5  // and the next five
	memFault = 11 // whether something could not be read then
	memCount = 12
	memGS    = 13 // the kernel's GS base: 0: not known
	memWords = 5  // task, IDs, call, stamp, when it was started
)

// Slots that programs use.
const (
	sTask = plugin.Slot(iota) // the words of a record, in their order
	sIDs
	sCall
	sStamp
	sBorn
	sPC
	sResult = sPC // of a return
	sGS     = plugin.Slot(iota - 1)
	sX
	sY
	sZ
	sNumber
	sFault
	sArgs // and the next five
)

// abi64 and abi32 are in a record's call, above the number.
const (
	abi64 = 0
	abi32 = 1
)

var registers64 = [6]string{"rdi", "rsi", "rdx", "r10", "r8", "r9"}

// regs are where the entry code saves registers (struct pt_regs).
const (
	regR10 = 56
	regR9  = 64
	regR8  = 72
	regDX  = 96
	regSI  = 104
	regDI  = 112
	regNr  = 120
	regAX  = 80
	regBX  = 40
	regBP  = 32
	regCX  = 88
	regCS  = 136
)

var (
	saved64 = [6]int64{regDI, regSI, regDX, regR10, regR8, regR9}
	saved32 = [6]int64{regBX, regCX, regDX, regSI, regDI, regBP}
)

// userCS64 is the code segment of 64-bit processes (__USER_CS).
const userCS64 = 0x33

// compiler writes the programs of system calls.
type compiler struct {
	*plugin.Assembler
	o     layout
	keep  [2][]uint32 // numbers of system calls that are wanted, by ABI; the others are dropped in the plugin
	aside [2][]uint32 // of those, the ones that nobody asked for
	pids  []uint32    // of the processes that are wanted; empty: all
	calls [2][]*syscall.Call
	// refusable are those whose refusal is an event.
	refusable [2][]*syscall.Call
	limit     uint32 // of a user's bytes
	hold      *Hold
	files     *fileLayout // for answers; nil: nobody asks for them
	sockets   *fileLayout // for the protocols of sockets; nil: not known
	brief     bool        // of an event of a door only who the process is
	gates     bool        // the plugin has them, and some calls are not wanted
	// compat is where the program of 32-bit calls begins, for those by the instruction of 64-bit ones.
	compat plugin.Label
}

// args is how many arguments a call has; -1: it is not known.
func (c *compiler) args(abi, number int) int {
	if number >= len(c.calls[abi]) || c.calls[abi][number] == nil {
		return -1
	}
	return min(len(c.calls[abi][number].Args), 6)
}

// program writes all of it.
func (c *compiler) program() {
	gated := uint32(0)
	if c.gates = c.gates && c.o.swtch != 0 && (c.keep[abi64] != nil || len(c.pids) > 0); c.gates {
		gated = plugin.Gated
	}
	c.compat = c.Label()
	c.entry(abi64, plugin.Probe{Where: plugin.AtSyscall, Arg: plugin.Syscall, ID: idEntry})
	c.entry(abi32, plugin.Probe{Where: plugin.AtSyscall, Arg: plugin.Int80 | plugin.Sysenter, ID: idEntry})
	if c.gates {
		c.Also(plugin.Probe{Where: plugin.AtAddress, Arg: plugin.Opens, Address: uint64(c.o.swtch)})
	}
	at := plugin.Probe{Where: plugin.AtAddress, Arg: gated, ID: idReturn}
	c.each(at, c.o.returns, func() { c.result(returned) })
	c.each(at, c.o.refused, func() { c.result(refused) })
	at.ID = idDenied
	c.each(at, c.o.denied, func() { c.result(denied) })
	if at.ID = idExit; c.files != nil {
		c.each(at, c.o.exits, c.exit)
	}
	if c.o.migrate != 0 {
		// A task that is moved to another CPU while it is in a call is forgotten on the one where it was.
		c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: uint64(c.o.migrate)})
		c.Reg(sTask, "rdi")
		c.Forget(memTask, sTask)
		c.Drop()
	}
}

// each writes one program for all sites.
func (c *compiler) each(at plugin.Probe, sites []virt.Addr, body func()) {
	for i, site := range sites {
		if at.Address = uint64(site); i > 0 {
			c.Also(at)
			continue
		}
		c.Probe(at)
		body()
	}
}

// task finds the current task, from a GS base of the kernel's in sGS.
func (c *compiler) task() {
	drop, ok := c.Label(), c.Label()
	c.Load(sTask, sGS, int64(c.o.current), 8, drop)
	c.Jump(ok)
	c.Set(drop)
	c.Drop()
	c.Set(ok)
}

// gs puts the kernel's GS base into sGS, which is in a register of this name here. It stays the same on each vCPU,
// and a register takes longer to read than all else.
func (c *compiler) gs(register string) {
	if c.o.nested { // what another kernel has in it is its own
		c.Reg(sGS, register)
		return
	}
	known := c.Label()
	c.Recall(sGS, memGS)
	c.If(sGS, "!=", 0, known)
	c.Reg(sGS, register)
	c.If(sGS, "<", 1<<63, known)
	c.Remember(memGS, sGS)
	c.Set(known)
}

// who finds out who the task is, and goes to other if it is nobody who was asked for.
func (c *compiler) who(other plugin.Label) {
	if len(c.pids) == 0 && c.o.tgid == c.o.pid+4 {
		c.Load(sIDs, sTask, int64(c.o.pid), 8, other)
		c.Load(sBorn, sTask, int64(c.o.started), 8, other)
		return
	}
	c.Load(sX, sTask, int64(c.o.pid), 4, other)
	c.Load(sIDs, sTask, int64(c.o.tgid), 4, other)
	if len(c.pids) > 0 {
		wanted := c.Label()
		for _, pid := range c.pids {
			c.If(sIDs, "==", uint64(pid), wanted)
		}
		c.Jump(other)
		c.Set(wanted)
	}
	c.Shl(sIDs, sIDs, 32)
	c.AddSlot(sIDs, sX)
	c.Load(sBorn, sTask, int64(c.o.started), 8, other)
}

// entry writes the program of the instruction that makes a system call.
func (c *compiler) entry(abi int, p plugin.Probe) {
	c.Probe(p)
	c.Reg(sNumber, "rax")
	c.And(sNumber, sNumber, 0xffffffff)
	other := c.Label()
	c.Ctx(sPC, plugin.CtxPC)
	if abi == abi64 {
		c.wide()
	} else {
		c.Set(c.compat)
	}
	c.wanted(abi, other)
	c.gs("k_gs_base")
	c.task()
	c.who(other)
	c.Add(sCall, sNumber, uint64(abi)<<32)
	// A number for this entry, by which its return is known again.
	counted := c.Label()
	c.Recall(sStamp, memCount)
	c.If(sStamp, "!=", 0, counted)
	c.Ctx(sStamp, plugin.CtxVCPU)
	c.Shl(sStamp, sStamp, 56)
	c.Set(counted)
	c.Add(sStamp, sStamp, 1)
	c.Remember(memCount, sStamp)
	c.PutAll(sTask, headWords)
	c.RememberAll(memTask, sTask, memWords)
	if c.gates {
		c.Gate(true)
	}
	if abi == abi32 {
		c.arguments32()
	}
	c.branch(abi, func(number int) {
		n := 6
		if number >= 0 {
			n = c.args(abi, number)
			c.setAside(abi, number)
		}
		for i := range n {
			if abi == abi64 {
				c.Reg(arg(i), registers64[i])
			}
			if i == 0 && c.usesFile(abi, number) {
				c.file(c.calls[abi][number].Name, other)
			}
		}
		if n > 0 {
			c.PutAll(sArgs, n)
			c.RememberAll(memArgs, sArgs, n)
		}
		if c.usesFile(abi, number) {
			c.Put(sFile)
			c.Put(sPosition)
		}
		if number >= 0 {
			if c.sendsOrReceives(abi, number) {
				c.netlinkSocket()
				c.socket()
			}
			c.fetch(abi, number)
			c.fetchStack(abi, number)
		}
		c.Faulted(sFault)
		c.Remember(memFault, sFault)
		if number >= 0 && c.hold.holds(c.calls[abi][number].Name) {
			c.Hold(uint32(c.hold.Limit.Microseconds()), c.hold.Stop)
		}
		c.End()
	})
	c.Set(other)
	if c.gates {
		// Its return is spared, unless another task comes on this vCPU meanwhile: then it is known by the task's stack.
		c.Imm(sX, 0)
		c.Remember(memTask, sX)
		c.Gate(false)
		c.Drop()
		return
	}
	// Its return is not wanted either: that is seen there without a look at the task's stack.
	c.gs("k_gs_base")
	c.task()
	c.Add(sX, sTask, 1)
	c.Remember(memTask, sX)
	c.Drop()
}

// wanted goes to other if the call with the number in sNumber was not asked for.
func (c *compiler) wanted(abi int, other plugin.Label) {
	if c.keep[abi] == nil {
		return
	}
	ok := c.Label()
	c.IfIn(sNumber, c.keep[abi], ok)
	c.Jump(other)
	c.Set(ok)
}

// branch writes one block for each number that is wanted, and one for all others (-1).
func (c *compiler) branch(abi int, block func(number int)) {
	labels := make([]plugin.Label, maxNumber)
	for n := range labels {
		if c.args(abi, n) >= 0 {
			labels[n] = c.Label()
		}
	}
	c.Switch(sNumber, labels)
	block(-1)
	for n, l := range labels {
		if l != 0 {
			c.Set(l)
			block(n)
		}
	}
}

// setAside keeps the loss of a call's record from being counted, unless somebody asked for the call.
func (c *compiler) setAside(abi, number int) {
	if slices.Contains(c.aside[abi], uint32(number)) {
		c.Aside()
	}
}

// maxNumber is more than the number of any system call.
const maxNumber = 512

// How a call has its result.
const (
	returned = iota // its function has returned it
	refused         // there is no such call
	denied          // seccomp has judged it: only what it denied is of interest, whose result is in the saved registers
)

// result writes the program of a place where a call has its result.
func (c *compiler) result(how int) {
	if how == denied {
		no := c.Label()
		c.Reg(sResult, "rax")
		c.And(sX, sResult, 0xffffffff)
		c.If(sX, "==", 0xffffffff, no) // -1
		c.Drop()
		c.Set(no)
	}
	c.gs("gs_base")
	c.task()
	known, emit, drop := c.Label(), c.Label(), c.Label()
	c.Recall(sX, memTask)
	c.IfSame(sX, sTask, known)
	c.Add(sY, sTask, 1)
	c.Imm(sZ, 0)
	c.Remember(memTask, sZ)
	c.IfSame(sX, sY, drop)

	// The task has slept since, and another was here: the registers that the entry code saved have it. What it slept
	// for may have been a page of its arguments.
	c.Remember(memTask, sX)
	c.Imm(sFault, 1)
	c.who(drop)
	c.Load(sY, sTask, int64(c.o.stack), 8, drop)
	c.Add(sY, sY, c.o.regs)
	c.Load(sNumber, sY, regNr, 8, drop)
	c.And(sNumber, sNumber, 0xffffffff)
	old := c.Label()
	c.Load(sX, sY, regCS, 8, drop)
	c.If(sX, "!=", userCS64, old)
	for abi, saved := range [][6]int64{saved64, saved32} {
		if abi == abi32 {
			c.Set(old)
		}
		c.restored(abi)
		c.wanted(abi, drop)
		for i, off := range saved {
			c.Load(sArgs+plugin.Slot(i), sY, off, 8, drop)
			if abi == abi32 {
				c.And(sArgs+plugin.Slot(i), sArgs+plugin.Slot(i), 0xffffffff)
			}
		}
		c.Add(sCall, sNumber, uint64(abi)<<32)
		c.Jump(emit)
	}

	c.Set(known)
	c.RecallAll(sTask, memTask, memWords)
	c.RecallAll(sArgs, memArgs, 6)
	c.Recall(sFault, memFault)
	c.Imm(sX, 0)
	c.Remember(memTask, sX)
	c.And(sNumber, sCall, 0xffffffff)
	c.Jump(emit)
	c.Set(drop)
	c.Drop()
	c.Set(emit)
	switch how {
	case refused:
		c.Imm(sResult, ^uint64(unix.ENOSYS-1))
		c.PutAll(sTask, headWords)
		c.End()
		return
	case denied:
		c.denied()
		return
	}
	c.Reg(sResult, "rax")
	c.PutAll(sTask, headWords)
	compat := c.Label()
	c.Shr(sX, sCall, 32)
	c.If(sX, "==", abi32, compat)
	for abi := range 2 {
		if abi == abi32 {
			c.Set(compat)
		}
		c.branch(abi, func(number int) {
			if number < 0 {
				c.End()
				return
			}
			c.setAside(abi, number)
			if !c.usesFile(abi, number) {
				c.fetchBack(abi, number)
				c.End()
				return
			}
			other := c.Label()
			c.file(c.calls[abi][number].Name, other)
			c.putFile()
			c.putNames()
			c.fetchBack(abi, number)
			c.End()
			c.Set(other)
			c.Drop()
		})
	}
}

// restored puts the number of rt_sigreturn in place of the one that it restored: -1, so that nothing is restarted.
func (c *compiler) restored(abi int) {
	for n, call := range c.calls[abi] {
		if call == nil || call.Name != "rt_sigreturn" {
			continue
		}
		other := c.Label()
		c.If(sNumber, "!=", 0xffffffff, other)
		c.Imm(sNumber, uint64(n))
		c.Set(other)
	}
}

// denied completes the record of a call that seccomp denied: its result is in the saved registers.
func (c *compiler) denied() {
	aside, asked := c.Label(), c.Label()
	for abi, numbers := range c.aside {
		for _, n := range numbers {
			c.If(sCall, "==", uint64(abi)<<32+uint64(n), aside)
		}
	}
	c.Jump(asked)
	c.Set(aside)
	c.Aside()
	c.Set(asked)
	c.Load(sY, sTask, int64(c.o.stack), 8, 0)
	c.Add(sY, sY, c.o.regs)
	c.Load(sResult, sY, regAX, 8, 0)
	c.PutAll(sTask, headWords)
	c.End()
}
