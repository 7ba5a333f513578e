package tcg

import (
	"encoding/binary"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/virt"
)

// mountLayout is where doors find what is mounted where.
type mountLayout struct {
	device, namespace, number uint32 // mount, mnt_namespace
	context                   uint32 // fs_context: the root of what is configured
	oldCall                   uint32 // … the byte that says that it is by mount(2); kobj.NoOffset: none does
	oldBit                    uint8
	files, table, slots       uint32 // task_struct, files_struct, fdtable
	path                      uint32 // file
	fs, cwd                   uint32 // task_struct, fs_struct
	superRoot                 uint32 // super_block
}

func (o *mountLayout) resolve(r *kobj.Resolver) {
	o.device, o.namespace, o.number = r.Offset("mount", "mnt_devname"), r.Offset("mount", "mnt_ns"), r.Offset("mnt_namespace", "ns.inum")
	o.context, o.oldCall = r.OptionalOffset("fs_context", "root"), kobj.NoOffset
	if old := r.Optional("fs_context", "oldapi"); old.Present() {
		o.oldCall, o.oldBit = old.Offset+uint32(old.BitOff/8), old.BitOff%8
	}
	o.files, o.table, o.slots = r.Offset("task_struct", "files"), r.Offset("files_struct", "fdt"), r.Offset("fdtable", "fd")
	o.path, o.fs, o.cwd = r.Offset("file", "f_path"), r.Offset("task_struct", "fs"), r.Offset("fs_struct", "pwd")
	o.superRoot = r.Offset("super_block", "s_root")
}

// sSpace has the mount namespace of a door's target, by its number.
const sSpace = sMatch

// mountNamespace puts the number of the namespace of the struct vfsmount in a slot into sSpace: 0 of what is mounted nowhere. It changes sX.
func (c *compiler) mountNamespace(o *doorLayout, mnt plugin.Slot) {
	none := c.Label()
	c.Imm(sSpace, 0)
	c.Add(sX, mnt, -uint64(o.mount))
	c.Load(sX, sX, int64(o.mounting.namespace), 8, none)
	c.If(sX, "==", 0, none)
	c.Load(sSpace, sX, int64(o.mounting.number), 4, none)
	c.Set(none)
}

// namespaceOf is [compiler.mountNamespace] of a struct path.
func (c *compiler) namespaceOf(o *doorLayout, at plugin.Slot) {
	c.Load(sY, at, int64(o.pathMnt), 8, 0)
	c.mountNamespace(o, sY)
}

// doorMount is path_mount(const char *device, struct path *, const char *type, unsigned long flags, void *data).
func (c *compiler) doorMount(o *doorLayout) {
	c.mayMount(o)
	c.Reg(sA, "rsi")
	c.namespaceOf(o, sA)
	c.doorHead(o)
	c.Put(sSpace)
	c.Reg(sX, "rcx")
	c.Put(sX)
	for i, r := range []string{"rdi", "rdx"} {
		none := c.Label()
		c.Reg(sX, r)
		c.If(sX, "==", 0, none)
		c.String(uint8(i), sX, maxDoorText)
		c.Set(none)
	}
	c.doorPathOf(o, sA, tagPath)
	c.doorTail(o)
}

// mayMount ends the program of a task that has no right to mount: it is refused, which is an event of its own.
func (c *compiler) mayMount(o *doorLayout) {
	const admin = 1 << 21 // CAP_SYS_ADMIN
	may, unknown := c.Label(), c.Label()
	c.gs("gs_base")
	c.task()
	c.Load(sX, sTask, int64(o.cred), 8, unknown)
	c.Load(sX, sX, int64(o.effective), 8, unknown)
	c.And(sX, sX, admin)
	c.If(sX, "!=", 0, may)
	c.doorNone(unknown)
	c.Set(may)
}

// doorPathOf adds the names of a struct path.
func (c *compiler) doorPathOf(o *doorLayout, path plugin.Slot, tag uint8) {
	none := c.Label()
	c.Load(sC, path, int64(o.pathDentry), 8, none)
	c.Load(sMnt, path, int64(o.pathMnt), 8, none)
	c.doorPath(o, tag)
	c.Set(none)
}

// Words of a record of security_move_mount behind the namespace.
const (
	moveDetached = 1 + iota // it was mounted nowhere
	moveBound               // where what is mounted is mounted already: a struct mount, or 0
	moveFlags               // of move_mount(2)
)

// doorMoveMount is security_move_mount(const struct path *from, const struct path *to), of move_mount(2): also what fsmount(2) or
// open_tree(2) made, which is mounted nowhere yet.
func (c *compiler) doorMoveMount(o *doorLayout) {
	attached, known := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Reg(sB, "rsi")
	c.namespaceOf(o, sB)
	c.savedFlags(sZ)
	// What is mounted nowhere is its own parent.
	c.Load(sMnt, sA, int64(o.pathMnt), 8, 0)
	c.Add(sName, sMnt, -uint64(o.mount))
	c.Load(sX, sName, int64(o.mountParent), 8, 0)
	c.Imm(sE, 0)
	c.Imm(sF, 0)
	c.IfSame(sX, sName, known)
	c.Jump(attached)
	c.Set(known)
	c.Load(sD, sMnt, int64(o.root), 8, 0)
	c.boundFrom(o)
	c.Imm(sF, 1)
	c.Set(attached)
	c.doorHead(o)
	c.Put(sSpace)
	c.Put(sF)
	c.Put(sE)
	c.Put(sZ)
	c.Load(sX, sName, int64(o.mounting.device), 8, 0)
	c.String(0, sX, maxDoorText)
	c.Load(sX, sMnt, int64(o.mountSuper), 8, 0)
	c.Load(sX, sX, int64(o.superType), 8, 0)
	c.Load(sX, sX, int64(o.typeName), 8, 0)
	c.String(1, sX, 64)
	moved := c.Label()
	c.Load(sC, sA, int64(o.pathDentry), 8, 0)
	c.If(sF, "==", 0, moved)
	// Seen through the mount that shows it: or within its file system, if none does.
	c.Imm(sMnt, 0)
	c.If(sE, "==", 0, moved)
	c.Add(sMnt, sE, uint64(o.mount))
	c.Set(moved)
	c.doorPath(o, tagOther)
	c.doorPathOf(o, sB, tagPath)
	c.doorTail(o)
}

// savedFlags puts the fifth argument of the system call that the entry code saved into a slot. It changes sX.
func (c *compiler) savedFlags(to plugin.Slot) {
	old, end := c.Label(), c.Label()
	c.Imm(to, 0)
	c.gs("gs_base")
	c.task()
	c.Load(sX, sTask, int64(c.o.stack), 8, end)
	c.Add(sX, sX, c.o.regs)
	c.Load(sY, sX, regCS, 8, end)
	c.If(sY, "!=", userCS64, old)
	c.Load(to, sX, saved64[4], 4, end)
	c.Jump(end)
	c.Set(old)
	c.Load(to, sX, saved32[4], 4, end)
	c.Set(end)
}

// boundFrom puts the oldest other mount that shows the dentry in sD, which is the root of the struct mount in sName, into sE: one
// with that root, or else one of the whole file system; 0: there is none, so that it is mounted for the first time. It changes sD, sF, sX and sY.
func (c *compiler) boundFrom(o *doorLayout) {
	end := c.Label()
	for whole := range 2 {
		after := c.Label()
		c.Load(sF, sMnt, int64(o.mountSuper), 8, end)
		if whole == 1 {
			c.Load(sD, sF, int64(o.mounting.superRoot), 8, end)
		}
		c.Add(sY, sF, uint64(o.mounts))
		c.Load(sF, sY, 0, 8, end)
		for range maxMountsOf {
			next, found := c.Label(), c.Label()
			if o.mountList {
				c.IfSame(sF, sY, after)
				c.Add(sF, sF, -uint64(o.instance))
			} else {
				c.If(sF, "==", 0, after) // the newest one comes first
			}
			c.IfSame(sF, sName, next)
			c.Load(sX, sF, int64(o.mount+o.root), 8, end)
			c.IfSame(sX, sD, found)
			c.Jump(next)
			c.Set(found)
			c.Add(sE, sF, 0)
			if o.mountList {
				c.Jump(end)
			}
			c.Set(next)
			c.Load(sF, sF, int64(o.instance), 8, end)
		}
		c.Set(after)
		c.If(sE, "!=", 0, end)
	}
	c.Set(end)
}

// doorUnmount is path_umount(struct path *, int flags).
func (c *compiler) doorUnmount(o *doorLayout) {
	c.mayMount(o)
	c.Reg(sA, "rdi")
	c.namespaceOf(o, sA)
	c.doorHead(o)
	c.Put(sSpace)
	c.Reg(sX, "rsi")
	c.And(sX, sX, 0xffffffff)
	c.Put(sX)
	c.doorPathOf(o, sA, tagPath)
	c.doorTail(o)
}

// doorPivot is security_sb_pivotroot(const struct path *old, const struct path *new): the root moves to the one, and the other becomes it.
func (c *compiler) doorPivot(o *doorLayout) {
	c.Reg(sA, "rdi")
	c.Reg(sB, "rsi")
	c.namespaceOf(o, sB)
	c.doorHead(o)
	c.Put(sSpace)
	c.doorPathOf(o, sB, tagPath)
	c.doorPathOf(o, sA, tagOther)
	c.doorTail(o)
}

// doorConfigure is reconfigure_super(struct fs_context *), of fsconfig(2); mount(2) comes by, too, and was seen before.
func (c *compiler) doorConfigure(o *doorLayout) {
	ours, drop := c.Label(), c.Label()
	if o.mounting.context == kobj.NoOffset || o.mounting.oldCall == kobj.NoOffset {
		c.Drop()
		return
	}
	c.Reg(sA, "rdi")
	c.Load(sX, sA, int64(o.mounting.oldCall), 1, drop)
	c.And(sX, sX, 1<<o.mounting.oldBit)
	c.If(sX, "==", 0, ours)
	c.doorNone(drop)
	c.Set(ours)
	c.Load(sC, sA, int64(o.mounting.context), 8, 0)
	c.Add(sD, sC, 0)
	c.mountOf(o)
	unknown := c.Label()
	c.Imm(sMnt, 0)
	c.Imm(sSpace, 0)
	c.If(sE, "==", 0, unknown)
	c.Add(sMnt, sE, uint64(o.mount))
	c.mountNamespace(o, sMnt)
	c.Set(unknown)
	c.doorHead(o)
	c.Put(sSpace)
	c.doorPath(o, tagPath)
	c.doorTail(o)
}

// attributesAt is where mount_setattr(2) returns.
func attributesAt(s *linux.System, owners *linux.Owners) []virt.Addr {
	return returnsOfCalls(s, owners, "mount_setattr")
}

// tagSpace has the number of the mount namespace of a record of doorAttributes.
const tagSpace = 204

// anonymous are the numbers of mount namespaces of what is mounted nowhere: since 6.18 (MNT_NS_ANON_INO), and before.
var anonymous = []uint64{0xeffffff7, 0}

// doorAttributes is where mount_setattr(2) returns, if it has changed something. Its record is that of a refused call; behind it is where
// its descriptor leads, or the working directory, and the mount namespace that this is in.
func (c *compiler) doorAttributes(o *doorLayout) {
	changed, none := c.Label(), c.Label()
	c.Reg(sA, "rax")
	c.And(sA, sA, 0xffffffff)
	c.If(sA, "==", 0, changed)
	c.Drop()
	c.Set(changed)
	c.savedRegisters(none)
	c.callRecord(o, none, func() {
		m, descriptor, base, end := &o.mounting, c.Label(), c.Label(), c.Label()
		c.And(sX, arg(0), 0xffffffff)
		c.If(sX, "!=", atCWD, descriptor)
		c.Load(sX, sTask, int64(m.fs), 8, end)
		c.Add(sX, sX, uint64(m.cwd))
		c.Jump(base)
		c.Set(descriptor)
		c.Shl(sX, sX, 3)
		c.Load(sY, sTask, int64(m.files), 8, end)
		c.Load(sY, sY, int64(m.table), 8, end)
		c.Load(sY, sY, int64(m.slots), 8, end)
		c.AddSlot(sX, sY)
		c.Load(sX, sX, 0, 8, end)
		c.If(sX, "==", 0, end)
		c.Add(sX, sX, uint64(m.path))
		c.Set(base)
		c.Load(sC, sX, int64(o.pathDentry), 8, end)
		c.Load(sMnt, sX, int64(o.pathMnt), 8, end)
		c.Add(sX, sMnt, -uint64(o.mount))
		c.Load(sX, sX, int64(m.namespace), 8, end)
		c.Add(sX, sX, uint64(m.number))
		c.Imm(sName, 4)
		c.Copy(tagSpace, sX, sName, 4)
		c.doorPath(o, tagPath)
		c.Set(end)
	})
}

// moveBeneath is MOVE_MOUNT_BENEATH, 6.5.
const moveBeneath = 0x200

// atCWD is AT_FDCWD, as an int.
const atCWD = 1<<32 + unix.AT_FDCWD

// spaceOf says in an event in which mount namespace it is, if it is not the first process's.
func (j *joiner) spaceOf(e *trace.Event, inum uint64) {
	if inum != 0 && j.mounts.first != 0 && inum != j.mounts.first {
		e.InNamespace(inum)
	}
}

func (j *joiner) doorMount(e *trace.Event, r *doorRecord) {
	at := r.path(tagPath)
	switch e.Name {
	case "move":
		m := trace.Mounting{
			Source: r.text, Type: r.item(1), Target: at, Moves: true, Detached: r.word(moveDetached) != 0,
			Peers: r.word(moveFlags)&unix.MOVE_MOUNT_SET_GROUP != 0, Beneath: r.word(moveFlags)&moveBeneath != 0,
		}
		if from := r.path(tagOther); m.Detached && r.word(moveBound) == 0 {
			m.Root = from
		} else {
			m.From = from
		}
		e.Mounts(m)
	case "pivot_root":
		e.Object = at
		e.Args = "pivot_root to " + at + ", the old root is at " + r.path(tagOther)
	case "remount":
		e.Object, e.Args = at, "remount "+at
	default:
		e.Mounts(trace.Mounting{Source: r.text, Type: r.item(1), Target: at, Flags: r.word(1)})
	}
	j.spaceOf(e, r.word(0))
}

func (j *joiner) doorUnmount(e *trace.Event, r *doorRecord) {
	e.Object = r.path(tagPath)
	j.spaceOf(e, r.word(0))
}

func (j *joiner) doorAttributes(e *trace.Event, r *doorRecord) {
	e.Name = ""
	j.doorRefused(e, r)
	e.Args, e.Result, e.Returned = e.Name+"("+e.Args+")", "", false
	asked := ""
	if i := slices.IndexFunc(e.Fields, func(f string) bool { return strings.HasPrefix(f, "pathname=") }); i >= 0 {
		asked = strings.Trim(strings.TrimPrefix(e.Fields[i], "pathname="), `"`)
	}
	if e.Object = asked; strings.HasPrefix(asked, "/") {
		return
	}
	e.Object = path.Join(r.path(tagPath), asked)
	if number := []byte(r.item(tagSpace)); len(number) == 4 {
		space := uint64(binary.LittleEndian.Uint32(number))
		r.drop = slices.Contains(anonymous, space) // it is told of when it is mounted
		j.spaceOf(e, space)
	}
}
