package tcg

import "github.com/outsight-vmi/outsight/linux/kobj"

// Families of sockets, and the state of one that waits for connections.
const (
	familyUnix   = 1
	familyInet   = 2
	familyInet6  = 10
	familyPacket = 17
	familyVsock  = 40
	stateListen  = 10
	typeDatagram = 2
	typeRaw      = 3
	protocolTCP  = 6
	protocolMP   = 262
)

// doorSock puts what is known of the struct sock in sA.
func (c *compiler) doorSock(o *doorLayout) {
	c.doorHead(o)
	word := func(off uint32, size uint8) {
		c.Load(sX, sA, int64(off), size, 0)
		c.Put(sX)
	}
	word(o.family, 2)
	word(o.protocol, 2)
	word(o.port, 2)
	word(o.remotePort, 2)
	word(o.local, 4)
	word(o.remote, 4)
	for _, off := range []uint32{o.local6, o.remote6} {
		for i := range uint32(2) {
			c.Imm(sX, 0)
			if off != kobj.NoOffset {
				c.Load(sX, sA, int64(off+8*i), 8, 0)
			}
			c.Put(sX)
		}
	}
	c.doorTail(o)
}

// doorTCP is tcp_connect(struct sock *): its addresses are known, and it is about to ask.
func (c *compiler) doorTCP(o *doorLayout) {
	c.Reg(sA, "rdi")
	c.doorSock(o)
}

// doorListen is security_socket_listen(struct socket *, int backlog).
func (c *compiler) doorListen(o *doorLayout) {
	drop, ok := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Load(sA, sA, int64(o.sk), 8, drop)
	c.Load(sX, sA, int64(o.state), 1, drop)
	c.If(sX, "==", stateListen, drop) // it does already, and sets another limit
	c.Load(sX, sA, int64(o.family), 2, drop)
	for _, f := range []uint64{familyInet, familyInet6, familyVsock} {
		c.If(sX, "==", f, ok)
	}
	c.doorNone(drop)
	c.Set(ok)
	c.doorSock(o)
}

// doorAccept is security_sock_graft(struct sock *, struct socket *): for each socket that accept gives.
func (c *compiler) doorAccept(o *doorLayout) {
	drop, ok := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Load(sX, sA, int64(o.family), 2, drop)
	c.If(sX, "==", familyVsock, ok)
	c.If(sX, "==", familyInet, ok)
	c.If(sX, "==", familyInet6, ok)
	c.doorNone(drop)
	c.Set(ok)
	c.doorSock(o)
}

// doorConnect is security_socket_connect(struct socket *, struct sockaddr *, int size): the kernel's copy of the address. TCP's
// are seen elsewhere.
func (c *compiler) doorConnect(o *doorLayout) { c.doorAddress(o, false) }

// doorBind is security_socket_bind, as that: who receives datagrams at an address of his choice.
func (c *compiler) doorBind(o *doorLayout) { c.doorAddress(o, true) }

func (c *compiler) doorAddress(o *doorLayout, bind bool) {
	drop, inet := c.Label(), c.Label()
	c.Reg(sA, "rdi")
	c.Load(sA, sA, int64(o.sk), 8, drop)
	c.Load(sB, sA, int64(o.protocol), 2, drop)
	c.If(sB, "==", protocolTCP, drop)
	c.If(sB, "==", protocolMP, drop)
	c.Reg(sC, "rsi")
	c.Reg(sD, "rdx")
	c.And(sD, sD, 0xffffffff)
	c.Load(sX, sC, 0, 2, drop)
	c.If(sX, "==", familyInet, inet)
	c.If(sX, "==", familyInet6, inet)
	ok := c.Label()
	if !bind {
		c.If(sX, "==", familyVsock, ok)
	}
	c.doorNone(drop)
	c.Set(inet)
	if bind {
		none := c.Label()
		c.Load(sX, sC, 2, 2, none)
		c.If(sX, "!=", 0, ok)
		c.doorNone(none) // any port, as clients do
	}
	c.Set(ok)
	c.doorHead(o)
	c.Put(sB)
	c.Copy(0, sC, sD, 128)
	c.doorTail(o)
}

// doorRaw is security_socket_post_create(struct socket *, int family, int type, int protocol, int kern): a socket that
// receives whatever arrives.
func (c *compiler) doorRaw(o *doorLayout) {
	drop, ok := c.Label(), c.Label()
	c.Reg(sA, "rsi")
	c.And(sA, sA, 0xffffffff)
	c.Reg(sB, "rdx")
	c.And(sB, sB, 0xffffffff)
	c.Reg(sX, "r8")
	c.And(sX, sX, 0xffffffff)
	c.If(sX, "!=", 0, drop) // the kernel's own
	c.If(sA, "==", familyPacket, ok)
	c.If(sB, "!=", typeRaw, drop)
	c.If(sA, "==", familyInet, ok)
	c.If(sA, "==", familyInet6, ok)
	c.doorNone(drop)
	c.Set(ok)
	c.doorHead(o)
	c.Put(sA)
	c.Reg(sX, "rcx")
	c.And(sX, sX, 0xffff)
	c.Put(sX)
	c.doorTail(o)
}
