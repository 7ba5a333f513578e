package tcg

import (
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

// fetch writes what of a call is fetched before it is done. Its arguments are in slots.
func (c *compiler) fetch(abi, number int) {
	call := c.calls[abi][number]
	for tag := range call.Pieces {
		if p := &call.Pieces[tag]; p.When == syscall.Entry {
			c.piece(call, uint8(tag), p)
		}
	}
}

// fetchStack writes what is fetched by the stack pointer, where a call begins.
func (c *compiler) fetchStack(abi, number int) {
	call := c.calls[abi][number]
	if len(call.Stack) == 0 {
		return
	}
	c.Reg(sArgs, "rsp")
	for i := range call.Stack {
		p := call.Stack[i]
		p.Arg = 0
		c.piece(call, uint8(len(call.Pieces)+i), &p)
	}
}

// fetchBack writes what of a call is fetched when it has been done. What could not be read before, because its page
// was not there yet, is read again: the kernel has read it meanwhile, unless the process runs another program now.
func (c *compiler) fetchBack(abi, number int) {
	if c.sendsOrReceives(abi, number) {
		c.netlinkSocket()
	}
	if !replaces(c.calls[abi][number].Name) {
		again := c.Label()
		c.If(sFault, "==", 0, again)
		c.fetch(abi, number)
		c.Set(again)
	}
	c.fetchGiven(abi, number)
}

// fetchGiven writes what a call has given back.
func (c *compiler) fetchGiven(abi, number int) {
	call := c.calls[abi][number]
	back, failed := false, false
	for i := range call.Pieces {
		back = back || call.Pieces[i].When == syscall.Return
	}
	if !back {
		return
	}
	end := c.Label()
	for tag := range call.Pieces {
		if p := &call.Pieces[tag]; p.When == syscall.Return && p.Always {
			c.piece(call, uint8(tag), p)
		}
	}
	for tag := range call.Pieces {
		p := &call.Pieces[tag]
		if p.When != syscall.Return || p.Always {
			continue
		}
		if !failed {
			c.If(sResult, ">", 1<<64-4096, end) // an error: -4095 to -1
			failed = true
		}
		skip := c.Label()
		if p.Above > 0 {
			c.If(sResult, "<", uint64(p.Above)+1, skip)
		}
		c.piece(call, uint8(tag), p)
		c.Set(skip)
	}
	c.Set(end)
}

// replaces says that a call that succeeded has replaced the memory of the process.
func replaces(name string) bool { return name == "execve" || name == "execveat" }

// piece writes how one piece is fetched.
func (c *compiler) piece(call *syscall.Call, tag uint8, p *syscall.Piece) {
	skip := c.Label()
	if i := p.If; i != nil && len(i.Values) > 0 {
		holds := c.Label()
		c.And(sX, arg(i.Arg), i.Mask)
		for _, v := range i.Values {
			c.If(sX, "==", v, holds)
		}
		c.Jump(skip)
		c.Set(holds)
	}
	width := uint8(call.ABI.Width())
	at := arg(p.Arg)
	if len(p.Deref) > 0 || p.Add != 0 {
		c.If(at, "==", 0, skip)
		c.Add(sY, at, 0)
		for _, off := range p.Deref {
			c.Load(sY, sY, int64(off), width, skip)
			c.If(sY, "==", 0, skip)
		}
		c.Add(sY, sY, uint64(p.Add))
		at = sY
	} else {
		c.If(at, "==", 0, skip)
	}
	limit := min(p.Limit, maxItem)
	if p.Data && p.Shape == syscall.Bytes && c.sockets != nil && socketCall(call.Name) {
		// What goes over netlink is written out.
		other, most := c.Label(), max(min(limit, syscall.NetlinkLimit), c.limit)
		c.If(sNet, "==", 0, other)
		if c.count(p, most, skip) {
			c.Copy(tag, at, sZ, most)
		}
		c.Jump(skip)
		c.Set(other)
	}
	if p.Data {
		limit = min(limit, c.limit)
	}
	switch p.Shape {
	case syscall.String:
		c.String(tag, at, limit)
	case syscall.Strings:
		c.Strings(tag, at, width, uint64(min(p.Most, 65536)), limit)
	case syscall.Bytes:
		if c.count(p, limit, skip) {
			c.Copy(tag, at, sZ, limit)
		}
	case syscall.Vector:
		if c.count(p, 1024, skip) {
			c.Gather(tag, at, sZ, width, limit)
		}
	}
	c.Set(skip)
}

// maxItem bounds what is fetched for one piece, in bytes.
const maxItem = 64 << 10

func arg(i int) plugin.Slot { return sArgs + plugin.Slot(i) }

// count puts the length of a piece into sZ: in bytes, or in elements of a vector. It goes to skip where that cannot be
// known. More than most is most + 1, so that it shows as cut, and no size overflows.
func (c *compiler) count(p *syscall.Piece, most uint32, skip plugin.Label) bool {
	switch p.Count.From {
	case syscall.Fixed:
		c.Imm(sZ, uint64(p.Count.N))
	case syscall.Argument:
		if p.Count.N > 5 {
			return false
		}
		c.Add(sZ, arg(int(p.Count.N)), 0)
	case syscall.Result:
		c.Add(sZ, sResult, 0)
	case syscall.Pointed:
		if p.Count.N > 5 {
			return false
		}
		c.Load(sZ, arg(int(p.Count.N)), 0, 4, skip)
	case syscall.Member:
		c.Load(sZ, arg(p.Arg), int64(p.Count.N), p.Count.Width, skip)
	}
	size := uint64(1)
	if p.Shape == syscall.Bytes && p.Size > 1 {
		size = uint64(p.Size)
	}
	many, ok := c.Label(), c.Label()
	c.If(sZ, ">", uint64(most)/size, many)
	c.Mul(sZ, sZ, size)
	c.Jump(ok)
	c.Set(many)
	c.Imm(sZ, uint64(most)+1)
	c.Set(ok)
	return true
}
