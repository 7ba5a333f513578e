package tcg

import (
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// The words that a record of a door begins with, behind those of every probe, and tags of its items.
const (
	doorParent = probeWords + iota
	doorUser
	doorWords // what follows is the door's own

	tagComm  = 200 // of the task
	tagPath  = 201 // names of a path, the last one first
	tagWhole = 202 // behind them, if they are all
	tagOther = 203 // of another path
	tagOtherWhole
)

// Slots of doors.
const (
	sA = sFile + plugin.Slot(iota)
	sB
	sC
	sD
	sE
	sF
	sMnt
	sName
	sMatch
)

const (
	maxDoorText  = 4096
	maxDoorNames = 24 // of a path
	maxName      = 255
)

// doorHead puts the words that each record of a door begins with.
func (c *compiler) doorHead(o *doorLayout) {
	c.current()
	c.Load(sX, sTask, int64(o.parent), 8, 0)
	c.Load(sX, sX, int64(c.o.tgid), 4, 0)
	c.Put(sX)
	c.Load(sX, sTask, int64(o.cred), 8, 0)
	c.Load(sX, sX, int64(o.ids[0]), 4, 0)
	c.Put(sX)
}

// doorTail puts the name of the task, and ends the record.
func (c *compiler) doorTail(o *doorLayout) {
	c.Add(sX, sTask, uint64(o.comm))
	c.String(tagComm, sX, 16)
	c.End()
}

// doorNone ends a program at l without a record.
func (c *compiler) doorNone(l plugin.Label) {
	c.Set(l)
	c.Drop()
}

// doorExec is finalize_exec(struct linux_binprm *): the new program is complete, and nothing can fail any more. Its
// arguments are where they will stay, in pages that have just been written.
func (c *compiler) doorExec(o *doorLayout) {
	c.doorHead(o)
	c.Reg(sA, "rdi")
	c.Load(sB, sA, int64(o.file), 8, 0)
	c.Load(sC, sB, int64(o.fileDentry), 8, 0)
	c.Load(sMnt, sB, int64(o.fileMnt), 8, 0)
	c.Load(sX, sC, int64(o.inode), 8, 0)
	c.Load(sX, sX, int64(o.links), 4, 0)
	c.Put(sX)
	if c.brief {
		c.doorPath(o, tagPath)
		c.doorTail(o)
		return
	}
	c.Load(sD, sTask, int64(o.mm), 8, 0)
	c.Load(sE, sD, int64(o.argStart), 8, 0)
	c.Load(sF, sD, int64(o.argEnd), 8, 0)
	// Its length is end - start: end + ^start + 1.
	c.Mul(sX, sE, 1<<64-1)
	c.AddSlot(sF, sX)
	c.Put(sF)
	c.Load(sX, sA, int64(o.filename), 8, 0)
	c.String(0, sX, maxDoorText)
	c.Copy(1, sE, sF, maxDoorText)
	c.doorPath(o, tagPath)
	c.doorTail(o)
}

// doorPath adds the names of the path that the dentry in sC and the struct vfsmount in sMnt (0: none, so that the path ends
// with its file system) are. Both slots are changed.
func (c *compiler) doorPath(o *doorLayout, tag uint8) {
	end, whole := c.Label(), c.Label()
	for range maxDoorNames {
		cross, next, top, alone, named := c.Label(), c.Label(), c.Label(), c.Label(), c.Label()
		c.Load(sX, sC, int64(o.above), 8, end)
		c.If(sMnt, "==", 0, top)
		c.Load(sY, sMnt, int64(o.root), 8, end)
		c.IfSame(sY, sC, cross)
		c.IfSame(sX, sC, alone)
		c.Jump(named)
		c.Set(top)
		c.IfSame(sX, sC, whole)
		c.Set(named)
		c.Load(sY, sC, int64(o.name), 8, end)
		c.String(tag, sY, maxName)
		c.Add(sC, sX, 0)
		c.Jump(next)
		c.Set(alone) // it was never in a folder: a memfd
		c.Load(sY, sC, int64(o.name), 8, end)
		c.String(tag, sY, maxName)
		c.Jump(whole)
		c.Set(cross)
		c.Add(sX, sMnt, -uint64(o.mount))
		c.Load(sY, sX, int64(o.mountParent), 8, end)
		c.IfSame(sY, sX, whole)
		c.Load(sC, sX, int64(o.mountPoint), 8, end)
		c.Add(sMnt, sY, uint64(o.mount))
		c.Set(next)
	}
	c.Jump(end)
	c.Set(whole)
	c.Imm(sX, 0)
	c.Copy(tag+1, sX, sX, 1)
	c.Set(end)
}

// doorFork is wake_up_new_task(struct task_struct *).
func (c *compiler) doorFork(o *doorLayout) {
	drop, process := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Load(sB, sA, int64(c.o.tgid), 4, drop)
	c.Load(sX, sA, int64(c.o.pid), 4, drop)
	c.IfSame(sX, sB, process)
	c.doorNone(drop) // a thread
	c.Set(process)
	kernel := c.Label()
	c.Load(sX, sA, int64(o.mm), 8, kernel)
	c.If(sX, "==", 0, kernel)
	c.doorHead(o)
	c.Put(sA)
	c.Put(sB)
	c.Load(sX, sA, int64(c.o.started), 8, 0)
	c.Put(sX)
	c.Load(sX, sA, int64(o.parent), 8, 0)
	c.Load(sX, sX, int64(c.o.tgid), 4, 0)
	c.Put(sX)
	c.Load(sX, sA, int64(o.cred), 8, 0)
	c.Load(sX, sX, int64(o.ids[0]), 4, 0)
	c.Put(sX)
	c.Add(sX, sA, uint64(o.comm))
	c.String(0, sX, 16)
	c.doorTail(o)
	c.doorNone(kernel)
}

// doorExit is acct_collect(long code, int group_dead): each thread that ends, and whether it is its process's last.
func (c *compiler) doorExit(o *doorLayout) {
	thread := c.Label()
	c.Reg(sB, "rsi")
	c.And(sB, sB, 0xffffffff)
	c.If(sB, "==", 0, thread)
	c.doorHead(o)
	c.Reg(sA, "rdi")
	c.And(sA, sA, 0xffffffff)
	c.Load(sB, sTask, int64(o.signal), 8, 0)
	c.Load(sC, sB, int64(o.flags), 4, 0)
	c.Load(sD, sB, int64(o.groupExit), 4, 0)
	c.Load(sE, sTask, int64(o.mm), 8, 0)
	c.If(sE, "==", 0, thread) // of the kernel
	for _, s := range []plugin.Slot{sA, sC, sD} {
		c.Put(s)
	}
	c.doorTail(o)
	c.doorNone(thread)
}

// credWords are what is fetched of a struct cred.
func (o *doorLayout) credWords() (offsets []uint32, sizes []uint8) {
	for _, id := range o.ids {
		offsets, sizes = append(offsets, id), append(sizes, 4)
	}
	for _, set := range []uint32{o.inheritable, o.permitted, o.effective} {
		offsets, sizes = append(offsets, set), append(sizes, 8)
	}
	return offsets, sizes
}

// doorCreds is commit_creds(struct cred *): the task still has its old ones. Each program that is run gets new ones, most
// often the same.
func (c *compiler) doorCreds(o *doorLayout) {
	c.Reg(sA, "rdi")
	c.gs("gs_base")
	c.task()
	emit, drop := c.Label(), c.Label()
	c.Load(sB, sTask, int64(o.cred), 8, drop)
	offsets, sizes := o.credWords()
	offsets, sizes = append(offsets, o.userNS), append(sizes, 8)
	for i, off := range offsets {
		same := c.Label()
		c.Load(sX, sA, int64(off), sizes[i], drop)
		c.Load(sY, sB, int64(off), sizes[i], drop)
		c.IfSame(sX, sY, same)
		c.Jump(emit)
		c.Set(same)
	}
	c.doorNone(drop)
	c.Set(emit)
	c.doorHead(o)
	c.Reg(sX, "rsp")
	c.Load(sX, sX, 0, 8, 0) // who calls
	c.Put(sX)
	offsets, sizes = o.credWords()
	for _, cred := range []plugin.Slot{sB, sA} {
		for i, off := range offsets {
			c.Load(sX, cred, int64(off), sizes[i], 0)
			c.Put(sX)
		}
		c.Load(sX, cred, int64(o.userNS), 8, 0)
		c.Load(sX, sX, int64(o.number), 4, 0)
		c.Put(sX)
	}
	c.doorTail(o)
}

// doorModule is do_init_module(struct module *), and free_module of the same.
func (c *compiler) doorModule(o *doorLayout) {
	c.doorHead(o)
	c.Reg(sA, "rdi")
	c.Imm(sX, 0)
	if o.taints != kobj.NoOffset {
		c.Load(sX, sA, int64(o.taints), 8, 0)
	}
	c.Put(sX)
	c.Put(sA)
	if o.moduleName != kobj.NoOffset {
		c.Add(sX, sA, uint64(o.moduleName))
		c.String(0, sX, 64)
	}
	c.doorTail(o)
}
