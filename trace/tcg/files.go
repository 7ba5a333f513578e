package tcg

import (
	"encoding/binary"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// fileLayout is how a descriptor leads to what is known of its file.
type fileLayout struct {
	files, table, slots                       uint32 // of task_struct, files_struct, fdtable
	inode, position, dentry, private          uint32 // of file
	super, number, magic                      uint32 // of inode, super_block
	name, parent                              uint32 // of dentry
	seqPrivate                                uint32 // of seq_file
	sock, family, protocol, net, protocolSize uint32 // of socket, sock
	hasNet                                    bool   // else the kernel has one network namespace
}

func fileLayoutOf(s *linux.System) (*fileLayout, error) {
	return kobj.LayoutOf(s.Walker, "files of answers", func(r *kobj.Resolver, o *fileLayout) {
		o.files, o.table, o.slots = r.Offset("task_struct", "files"), r.Offset("files_struct", "fdt"), r.Offset("fdtable", "fd")
		o.inode, o.position = r.Offset("file", "f_inode"), r.Offset("file", "f_pos")
		o.dentry, o.private = r.Offset("file", "f_path.dentry"), r.Offset("file", "private_data")
		o.super, o.number, o.magic = r.Offset("inode", "i_sb"), r.Offset("inode", "i_ino"), r.Offset("super_block", "s_magic")
		o.name, o.parent = r.Offset("dentry", "d_name.name", "d_name.__name", "__d_name.name"), r.Offset("dentry", "d_parent")
		o.seqPrivate = r.Offset("seq_file", "private")
		o.sock, o.family = r.Offset("socket", "sk"), r.Offset("sock", "__sk_common.skc_family")
		protocol := r.Field("sock", "sk_protocol")
		o.protocol, o.protocolSize = protocol.Offset, min(protocol.Size, 2)
		if net := r.Optional("sock", "__sk_common.skc_net.net"); net.Present() {
			o.net, o.hasNet = net.Offset, true
		}
	})
}

// Slots of what is known of a file.
const (
	sFile = sArgs + 6 + plugin.Slot(iota)
	sPosition
	sInode
	sSuper
	sMagic
	sDentry
	sNet
	sProtocol
)

// Magic numbers of file systems (include/uapi/linux/magic.h).
const (
	magicProc   = 0x9fa0
	magicSocket = 0x534f434b
)

// familyNetlink is AF_NETLINK.
const familyNetlink = 16

// answerFiles are the names of files in /proc, and below its directories, that answers are assembled of.
var answerFiles = []string{"modules", "tcp", "tcp6", "udp", "udp6", "raw", "raw6", "unix", "packet", "dev"}

// usesFile says that a call has the descriptor that it is about as its first argument.
func (c *compiler) usesFile(abi, number int) bool {
	return c.files != nil && number >= 0 && c.calls[abi][number].Name != "bpf" && isAnswer(c.calls[abi][number].Name)
}

func isAnswer(name string) bool {
	for _, n := range answerCalls {
		if n == name {
			return true
		}
	}
	return false
}

// sendsOrReceives says that what a call sends or receives is written by the protocol of its socket.
func (c *compiler) sendsOrReceives(abi, number int) bool {
	return c.sockets != nil && number >= 0 && socketCall(c.calls[abi][number].Name)
}

func socketCall(name string) bool {
	switch name {
	case "sendto", "sendmsg", "recvfrom", "recvmsg":
		return true
	}
	return false
}

// descriptor finds the file of the descriptor in the first argument, and goes to none if there is none. It changes sX and sY.
func (c *compiler) descriptor(o *fileLayout, file plugin.Slot, none plugin.Label) {
	c.And(sX, arg(0), 0xffffffff)
	c.Shl(sX, sX, 3)
	// How many slots there are is not compared: what is no file has no file system that is looked for.
	c.Load(sY, sTask, int64(o.files), 8, none)
	c.Load(sY, sY, int64(o.table), 8, none)
	c.Load(sY, sY, int64(o.slots), 8, none)
	c.AddSlot(sX, sY)
	c.Load(file, sX, 0, 8, none)
	c.If(file, "==", 0, none)
}

// netlinkSocket puts the address of a netlink socket's protocol into sNet, and 0 for other sockets.
func (c *compiler) netlinkSocket() {
	o, skip := c.sockets, c.Label()
	c.Imm(sNet, 0)
	c.descriptor(o, sX, skip)
	c.Load(sY, sX, int64(o.inode), 8, skip)
	c.Load(sY, sY, int64(o.super), 8, skip)
	c.Load(sY, sY, int64(o.magic), 8, skip)
	c.If(sY, "!=", magicSocket, skip)
	c.Load(sX, sX, int64(o.private), 8, skip)
	c.Load(sX, sX, int64(o.sock), 8, skip)
	c.Load(sY, sX, int64(o.family), 2, skip)
	c.If(sY, "!=", familyNetlink, skip)
	c.Add(sNet, sX, uint64(o.protocol))
	c.Set(skip)
}

// socket fetches the protocol of the netlink socket that netlinkSocket has found.
func (c *compiler) socket() {
	skip := c.Label()
	c.If(sNet, "==", 0, skip)
	c.Imm(sZ, uint64(c.sockets.protocolSize))
	c.Copy(syscall.TagSocket, sNet, sZ, 2)
	c.Set(skip)
}

// file finds the file of the descriptor in the first argument, and goes to other if nobody wants to know what it says.
func (c *compiler) file(name string, other plugin.Label) {
	c.descriptor(c.files, sFile, other)
	c.fileOf(name, other)
}

// fileOf reads what is known of the file in sFile, and goes to other if nobody wants to know what it says by that call.
func (c *compiler) fileOf(name string, other plugin.Label) {
	o := c.files
	c.Load(sInode, sFile, int64(o.inode), 8, other)
	c.Load(sSuper, sInode, int64(o.super), 8, other)
	c.Load(sMagic, sSuper, int64(o.magic), 8, other)
	c.Load(sPosition, sFile, int64(o.position), 8, other)
	c.Load(sDentry, sFile, int64(o.dentry), 8, other)
	c.Imm(sNet, 0)
	c.Imm(sProtocol, 0)
	switch name {
	case "getdents", "getdents64":
		return
	case "read", "readv", "pread64", "preadv", "preadv2", "write", "writev":
		socket, found := c.Label(), c.Label()
		c.If(sMagic, "==", magicSocket, socket)
		if name == "write" || name == "writev" {
			c.Jump(other)
		} else {
			c.If(sMagic, "!=", magicProc, other)
			c.named(found, other)
		}
		c.Set(socket)
		c.netlink(other)
		done := c.Label()
		c.Jump(done)
		c.Set(found)
		c.Load(sX, sFile, int64(o.private), 8, done)
		c.Load(sX, sX, int64(o.seqPrivate), 8, done)
		c.Load(sNet, sX, 0, 8, done)
		c.Set(done)
	default:
		c.If(sMagic, "!=", magicSocket, other)
		c.netlink(other)
	}
}

// exit writes the program of the place where the kernel's part of a call ends: what an answer wrote is read once more.
func (c *compiler) exit() {
	drop := c.Label()
	c.gs("gs_base")
	c.Load(sTask, sGS, int64(c.o.current), 8, drop)
	c.Load(sBorn, sTask, int64(c.o.stack), 8, drop)
	c.Add(sBorn, sBorn, c.o.regs) // where the registers lie, for now
	c.Load(sNumber, sBorn, regNr, 8, drop)
	c.And(sNumber, sNumber, 0xffffffff)
	c.Load(sX, sBorn, regCS, 8, drop)
	old, known := c.Label(), c.Label()
	c.If(sX, "!=", userCS64, old)
	for abi, saved := range [][6]int64{saved64, saved32} {
		if abi == abi32 {
			c.Set(old)
		}
		c.wanted(abi, drop)
		for i, off := range saved {
			c.Load(sArgs+plugin.Slot(i), sBorn, off, 8, drop)
			if abi == abi32 {
				c.And(sArgs+plugin.Slot(i), sArgs+plugin.Slot(i), 0xffffffff)
			}
		}
		c.Add(sCall, sNumber, uint64(abi)<<32)
		c.Jump(known)
	}
	c.Set(known)
	c.Load(sResult, sBorn, regAX, 8, drop)
	c.If(sResult, ">", 1<<64-4096, drop)
	c.who(drop)
	compat := c.Label()
	c.Shr(sX, sCall, 32)
	c.If(sX, "==", abi32, compat)
	for abi := range 2 {
		if abi == abi32 {
			c.Set(compat)
		}
		c.branch(abi, func(number int) {
			other := c.Label()
			if number < 0 || !isAnswer(c.calls[abi][number].Name) || !writes(c.calls[abi][number]) {
				c.Drop()
				return
			}
			if c.usesFile(abi, number) {
				c.file(c.calls[abi][number].Name, other)
			}
			c.PutAll(sTask, headWords)
			c.fetchBack(abi, number)
			c.End()
			c.Set(other)
			c.Drop()
		})
	}
	c.Set(drop)
	c.Drop()
}

// writes says that a call writes to the program's memory.
func writes(call *syscall.Call) bool {
	for i := range call.Pieces {
		if call.Pieces[i].When == syscall.Return {
			return true
		}
	}
	return false
}

// named goes to found if the file has one of the names that are looked for, else to other.
func (c *compiler) named(found, other plugin.Label) {
	c.Load(sX, sDentry, int64(c.files.name), 8, other)
	c.Load(sY, sX, 0, 8, other)
	for _, name := range answerFiles {
		var word, mask [8]byte
		for i := range min(len(name)+1, 8) { // its zero too
			mask[i] = 0xff
		}
		copy(word[:], name)
		c.And(sZ, sY, binary.LittleEndian.Uint64(mask[:]))
		c.If(sZ, "==", binary.LittleEndian.Uint64(word[:]), found)
	}
	c.Jump(other)
}

// netlink goes to other if the file is a socket of another family.
func (c *compiler) netlink(other plugin.Label) {
	o := c.files
	c.Load(sX, sFile, int64(o.private), 8, other)
	c.Load(sX, sX, int64(o.sock), 8, other)
	c.Load(sY, sX, int64(o.family), 2, other)
	c.If(sY, "!=", familyNetlink, other)
	c.Load(sProtocol, sX, int64(o.protocol), uint8(o.protocolSize), other)
	if o.hasNet {
		c.Load(sNet, sX, int64(o.net), 8, other)
	}
}

// putFile adds what is known of a file to the record of a return: its words here, and its names by putNames, for words
// come before items.
func (c *compiler) putFile() {
	c.Load(sX, sInode, int64(c.files.number), 8, 0)
	for _, s := range []plugin.Slot{sFile, sPosition, sInode, sX, sMagic, sSuper, sDentry, sNet, sProtocol} {
		c.Put(s)
	}
}

func (c *compiler) putNames() {
	for i := range 3 {
		c.Load(sX, sDentry, int64(c.files.name), 8, 0)
		c.String(uint8(tagNames+i), sX, 256)
		c.Load(sDentry, sDentry, int64(c.files.parent), 8, 0)
	}
}

// onlyAnswers fetches of calls what answers are made of, in place of what is printed of them.
func (c *compiler) onlyAnswers() {
	for _, calls := range c.calls {
		for n, call := range calls {
			if call != nil && isAnswer(call.Name) {
				one := *call
				one.Pieces, one.Stack = answerPieces(call), nil
				calls[n] = &one
			}
		}
	}
}
