package syscall

import "fmt"

// subcall is a call that is made through another: socketcall has the number of one as its first argument, and the
// arguments of that one in memory.
type subcall struct {
	call *Call
	base int // tag of its first piece in the outer call
}

// socketcalls are the calls that ia32's socketcall makes, by number.
var socketcalls = [...]string{
	1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv", "sendto", "recvfrom",
	"shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
}

// throughMemory makes c one that makes other calls, whose arguments are words at argument 1.
func (p *parser) throughMemory(c *Call, texts map[string]string) {
	w := uint32(p.abi.Width())
	c.selector, c.mask = 0, 0xffffffff
	c.subcalls = make([]subcall, len(socketcalls))
	c.Pieces = []Piece{{Arg: 1, Size: w, Count: Count{From: Fixed, N: 6}, Limit: 6 * w}}
	for n, name := range socketcalls {
		text, ok := texts[fmt.Sprintf("%s@%d", name, 8*w)]
		if !ok {
			text, ok = texts[name]
		}
		if !ok {
			continue
		}
		sub := &Call{Name: name, Number: c.Number, ABI: p.abi, selector: -1}
		p.call(sub, text)
		c.subcalls[n] = subcall{sub, len(c.Pieces)}
		cond := &Condition{Arg: 0, Mask: 0xffffffff, Values: []uint64{uint64(n)}}
		for _, piece := range sub.Pieces {
			c.addPiece(indirect(piece, w), cond, true)
		}
	}
}

// indirect makes a piece one of which argument n is the nth word at argument 1. How many elements there are can only
// be said by such a word, not by what it points to: there it is as many as may be useful.
func indirect(p Piece, w uint32) Piece {
	p.Deref = append([]uint32{w * uint32(p.Arg)}, p.Deref...)
	p.Arg = 1
	switch p.Count.From {
	case Argument:
		p.Count = Count{From: Member, N: w * p.Count.N, Width: uint8(w)}
	case Pointed, Member:
		p.Count = Count{From: Fixed, N: 128}
		if p.Size > 1 {
			p.Count.N = 8
		}
		p.Limit = min(p.Limit, p.Count.N*p.Size)
		if p.Shape == Vector {
			p.Limit = vectorLimit
		}
	}
	return p
}

// inner returns the call that c makes, with its values; nil: c is itself, or what it makes is not known.
func (c *Call) inner(v *Values) (*Call, *Values) {
	if c.subcalls == nil {
		return nil, nil
	}
	n := v.Args[0] & 0xffffffff
	d, ok := v.find(0)
	if n >= uint64(len(c.subcalls)) || c.subcalls[n].call == nil || !ok {
		return nil, nil
	}
	sub, w := c.subcalls[n], c.ABI.Width()
	if len(d.Bytes) < w*len(sub.call.Args) {
		return nil, nil
	}
	in := &Values{Returned: v.Returned, Result: v.Result, Path: v.Path}
	for i := range in.Args {
		if len(d.Bytes) >= w*(i+1) {
			in.Args[i] = number(d.Bytes[w*i : w*i+w])
		}
	}
	for _, d := range v.Data {
		if t := int(d.Tag) - sub.base; t >= 0 && t < len(sub.call.Pieces) {
			d.Tag = uint8(t)
			in.Data = append(in.Data, d)
		}
	}
	return sub.call, in
}

// NameOf is the name of the call that was made: that of c, but for ia32's socketcall, which makes others.
func (c *Call) NameOf(v *Values) string {
	if sub, _ := c.inner(v); sub != nil {
		return sub.Name
	}
	return c.Name
}
