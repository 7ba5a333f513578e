package tcg

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
)

// maxLogDepth is how many folders a log may lie below /var/log.
const maxLogDepth = 6

// maxAboveVar is how many folders may lie above var: a subvolume of btrfs that is the root of a distribution (@ of openSUSE,
// root of Fedora) has its dentries below the root of all subvolumes.
const maxAboveVar = 2

// ifNamed goes on at l if the dentry in a slot has this name. sName and sX are used.
func (c *compiler) ifNamed(o *doorLayout, dentry plugin.Slot, name string, l plugin.Label) {
	no := c.Label()
	c.Load(sX, dentry, int64(o.length), 4, no)
	c.If(sX, "!=", uint64(len(name)), no)
	c.Load(sName, dentry, int64(o.name), 8, no)
	rest := []byte(name)
	for at := 0; len(rest) > 0; {
		n := 8
		for n > len(rest) {
			n /= 2
		}
		var word [8]byte
		copy(word[:], rest[:n])
		c.Load(sX, sName, int64(at), uint8(n), no)
		c.If(sX, "!=", binary.LittleEndian.Uint64(word[:]), no)
		rest, at = rest[n:], at+n
	}
	c.Jump(l)
	c.Set(no)
}

// ifLog goes on at l if the dentry in a slot is a log: a file of such a name, or below var/log in the root of a file system or
// [maxAboveVar] folders below it, or below log in the root (of /var's own file system); or in a file system that is mounted at
// such a place. @var and @log are subvolumes for these folders. What is below a container's image on the host has its path from there,
// which is longer.
func (c *compiler) ifLog(o *doorLayout, dentry plugin.Slot, l plugin.Label) {
	no := c.Label()
	for _, name := range trace.LogNames {
		c.ifNamed(o, dentry, name, l)
	}
	c.Load(sD, dentry, int64(o.above), 8, no)
	c.IfSame(sD, dentry, no)
	for range maxLogMounts {
		root := c.Label()
		c.ifBelowLog(o, l, root)
		c.Jump(no)
		c.Set(root)
		c.mountOf(o)
		c.If(sE, "==", 0, no)
		c.Load(sD, sE, int64(o.mountPoint), 8, no)
	}
	c.ifBelowLog(o, l, no)
	c.Set(no)
}

// maxLogMounts is how many file systems are climbed: /var/log/audit may have one of its own in that of /var/log.
const maxLogMounts = 2

// ifBelowLog goes on at l if the folder in sD is var/log or below it, and at root if it is the root of a file system, or below a root that is
// not far.
func (c *compiler) ifBelowLog(o *doorLayout, l, root plugin.Label) {
	no := c.Label()
	for range maxLogDepth {
		other, found, folder := c.Label(), c.Label(), c.Label()
		c.Load(sE, sD, int64(o.above), 8, no)
		c.IfSame(sE, sD, root)
		c.ifNamed(o, sD, "log", found)
		c.ifNamed(o, sD, "@log", found)
		c.Jump(other)
		c.Set(found)
		c.Load(sF, sE, int64(o.above), 8, no)
		c.IfSame(sE, sF, l) // /log of /var
		c.ifNamed(o, sE, "var", folder)
		c.ifNamed(o, sE, "@var", folder)
		c.Jump(other)
		c.Set(folder)
		for range 1 + maxAboveVar {
			c.Load(sE, sF, int64(o.above), 8, no)
			c.IfSame(sE, sF, l)
			c.Add(sF, sE, 0)
		}
		c.Load(sE, sD, int64(o.above), 8, no)
		c.Set(other)
		c.Add(sD, sE, 0)
	}
	c.Set(no)
}

// maxMountsOf bounds the mounts of one file system that are looked at: each mount namespace has its own.
const maxMountsOf = 32

// mountOf puts the struct mount of the file system whose root is in sD into sE: 0 if that is not known. Of several it is the oldest one that
// shows all of it: those of other namespaces are copies, or come later. sF, sX and sY are changed.
func (c *compiler) mountOf(o *doorLayout) {
	end := c.Label()
	c.Imm(sE, 0)
	c.Load(sF, sD, int64(o.super), 8, end)
	c.Add(sY, sF, uint64(o.mounts))
	c.Load(sF, sY, 0, 8, end)
	for range maxMountsOf {
		next, whole := c.Label(), c.Label()
		if o.mountList {
			c.IfSame(sF, sY, end)
			c.Add(sF, sF, -uint64(o.instance))
		} else {
			c.If(sF, "==", 0, end) // the newest one comes first
		}
		c.Load(sX, sF, int64(o.mount+o.root), 8, end)
		c.IfSame(sX, sD, whole)
		c.Jump(next)
		c.Set(whole)
		// What is mounted nowhere is its own parent.
		c.Load(sX, sF, int64(o.mountParent), 8, end)
		c.IfSame(sX, sF, next)
		c.Add(sE, sF, 0)
		if o.mountList {
			c.Jump(end)
		}
		c.Set(next)
		c.Load(sF, sF, int64(o.instance), 8, end)
	}
	c.Set(end)
}

// regular goes on at l if the dentry in a slot is not that of a regular file.
func (c *compiler) regular(o *doorLayout, dentry plugin.Slot, l plugin.Label) {
	c.Load(sB, dentry, int64(o.inode), 8, l)
	c.If(sB, "==", 0, l)
	c.Load(sX, sB, int64(o.mode), 2, l)
	c.And(sX, sX, 0xf000)
	c.If(sX, "!=", 0x8000, l)
}

// logRecord puts the words of a record of a log: the dentry in sA, and its inode in sB. Where its file system is mounted is in sD then, as
// a struct vfsmount, or 0: then the reader has to find out by the super_block.
func (c *compiler) logRecord(o *doorLayout) {
	root, none := c.Label(), c.Label()
	c.Add(sD, sA, 0)
	for range maxDoorNames {
		c.Load(sE, sD, int64(o.above), 8, none)
		c.IfSame(sE, sD, root)
		c.Add(sD, sE, 0)
	}
	c.Set(none)
	c.Set(root)
	c.mountOf(o)
	c.Load(sF, sA, int64(o.super), 8, 0)
	unknown := c.Label()
	c.Imm(sD, 0)
	c.If(sE, "==", 0, unknown)
	c.Add(sD, sE, uint64(o.mount))
	c.Imm(sF, 0)
	c.Set(unknown)
	c.doorHead(o)
	c.Put(sF)
	c.Load(sX, sB, int64(o.size), 8, 0)
	c.Put(sX)
	c.Load(sX, sB, int64(o.links), 4, 0)
	c.Put(sX)
	c.Put(sMatch)
}

// doorDelete is d_delete(struct dentry *): its name has just been taken away.
func (c *compiler) doorDelete(o *doorLayout) {
	drop, ok := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.regular(o, sA, drop)
	c.ifLog(o, sA, ok)
	c.doorNone(drop)
	c.Set(ok)
	c.logRecord(o)
	c.logPath(o, sA, tagPath)
	c.doorTail(o)
}

func (c *compiler) logPath(o *doorLayout, dentry plugin.Slot, tag uint8) {
	c.Add(sC, dentry, 0)
	c.Add(sMnt, sD, 0)
	c.doorPath(o, tag)
}

// Which of two names is a log.
const (
	logOld = 1 // the one that a file had
	logNew = 2 // the one that it gets, and another had
)

// doorRename is d_move(struct dentry *, struct dentry *target): the file is about to get the place of the target, which
// it replaces if there is one; and d_exchange of two.
func (c *compiler) doorRename(o *doorLayout) {
	drop, old, target, ok := c.Label(), c.Label(), c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Reg(sMnt, "rsi") // not needed until paths are
	c.regular(o, sA, drop)
	c.ifLog(o, sA, old)
	c.Load(sX, sMnt, int64(o.inode), 8, drop)
	c.If(sX, "==", 0, drop)
	c.ifLog(o, sMnt, target)
	c.doorNone(drop)
	c.Set(old)
	c.Imm(sMatch, logOld)
	c.Jump(ok)
	c.Set(target)
	c.Imm(sMatch, logNew)
	c.Set(ok)
	c.logRecord(o)
	c.logPath(o, sA, tagPath)
	c.Reg(sC, "rsi")
	c.logPath(o, sC, tagOther)
	c.doorTail(o)
}

// doorTruncate is do_truncate(…, struct dentry *, loff_t length, …).
func (c *compiler) doorTruncate(o *doorLayout) {
	drop, ok, shorter := c.Label(), c.Label(), c.Label()
	if o.truncate[0] == "" || o.truncate[1] == "" {
		c.Drop()
		return
	}
	c.Reg(sA, o.truncate[0])
	c.Reg(sMatch, o.truncate[1])
	c.regular(o, sA, drop)
	// Shorter than it is: size + ^length has no carry where not, and neither is negative.
	c.Load(sX, sB, int64(o.size), 8, drop)
	c.Mul(sY, sMatch, 1<<64-1)
	c.AddSlot(sX, sY)
	c.If(sX, "==", 0, drop)
	c.If(sX, "<", 1<<63, shorter)
	c.doorNone(drop)
	c.Set(shorter)
	none := c.Label()
	c.ifLog(o, sA, ok)
	c.doorNone(none)
	c.Set(ok)
	c.logRecord(o)
	c.logPath(o, sA, tagPath)
	c.doorTail(o)
}
