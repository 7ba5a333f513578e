package told

import (
	"bytes"

	"github.com/outsight-vmi/outsight/trace/tcg"
)

// Protocols of netlink sockets, and what their messages are (include/uapi/linux/netlink.h, rtnetlink.h, sock_diag.h).
const (
	netlinkRoute = 0
	netlinkDiag  = 4

	typeError    = 2
	typeDone     = 3
	typeGetLink  = 18
	typeNewLink  = 16
	typeByFamily = 20 // SOCK_DIAG_BY_FAMILY, question and answer

	flagsDump       = 0x300 // NLM_F_ROOT | NLM_F_MATCH
	flagInterrupted = 0x10  // NLM_F_DUMP_INTR: the kernel says itself that something may be missing

	peeks = 0x2 // MSG_PEEK

	netlinkHead = 16
)

// requestKey names a request: programs number them, for each socket.
type requestKey struct {
	socket   fileKey
	sequence uint32
}

// request is a dump that was asked for, and what was answered so far.
type request struct {
	*Reading
	broken bool
}

// message is a netlink message.
type message struct {
	kind, flags uint16
	sequence    uint32
	body        []byte
}

// messages takes netlink messages apart. It is false if they are damaged, or met does not want more.
func messages(b []byte, met func(m message) bool) bool {
	for len(b) >= netlinkHead {
		n := int(le.Uint32(b))
		if n < netlinkHead || n > len(b) {
			return false
		}
		if !met(message{le.Uint16(b[4:]), le.Uint16(b[6:]), le.Uint32(b[8:]), b[netlinkHead:n]}) {
			return false
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return len(b) == 0
}

// attributes takes attributes apart. It is false if they are damaged, or met does not want more.
func attributes(b []byte, met func(kind uint16, value []byte) bool) bool {
	for len(b) >= 4 {
		n := int(le.Uint16(b))
		if n < 4 || n > len(b) {
			return false
		}
		const flags = 0xc000 // NLA_F_NESTED, NLA_F_NET_BYTEORDER
		if !met(le.Uint16(b[2:])&^flags, b[4:n]) {
			return false
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return len(b) == 0
}

// netlink takes in what a program and the kernel said to each other on a netlink socket.
func (a *Assembler) netlink(ans *tcg.Answer) {
	if ans.Seen && ans.Asked != ans.File.Addr || ans.Result <= 0 {
		return
	}
	socket := fileKey{ans.File.Addr, ans.File.Inode, ans.File.Dentry}
	switch ans.Call {
	case "write", "writev", "sendto", "sendmsg":
		messages(ans.Data, func(m message) bool {
			a.asked(ans, socket, m)
			return true
		})
		return
	case "splice":
		a.lose(socket) // what went into a pipe is read from there
		return
	case "recvmsg":
		if !ans.Seen || ans.Args[2]&peeks != 0 {
			return // what is looked at comes again
		}
	case "recvfrom", "recvmmsg", "recvmmsg_time64":
		if !ans.Seen || ans.Args[3]&peeks != 0 {
			return
		}
	}
	if !whole(ans) || !messages(ans.Data[:ans.Result], func(m message) bool {
		a.answered(ans, socket, m)
		return true
	}) {
		a.lose(socket)
	}
}

// asked notes a dump that a program asks for.
func (a *Assembler) asked(ans *tcg.Answer, socket fileKey, m message) {
	k := requestKey{socket, m.sequence}
	delete(a.requests, k)
	if m.flags&flagsDump != flagsDump {
		return
	}
	var r *Reading
	switch {
	case ans.File.Protocol == netlinkRoute && m.kind == typeGetLink && allLinks(m.body):
		r = newReading(ans, Interfaces, "RTM_GETLINK")
	case ans.File.Protocol == netlinkDiag && m.kind == typeByFamily:
		table, states, ok := diagRequest(m.body)
		if !ok {
			return
		}
		r = newReading(ans, Sockets, "SOCK_DIAG_BY_FAMILY ("+table+")")
		r.Table, r.States = table, states
	default:
		return
	}
	if len(a.requests) >= maxRequests {
		for old := range a.requests { // any of them
			delete(a.requests, old)
			break
		}
		a.dropped++
	}
	a.requests[k] = &request{Reading: r}
}

// answered takes in a message of the kernel's.
func (a *Assembler) answered(ans *tcg.Answer, socket fileKey, m message) {
	k := requestKey{socket, m.sequence}
	q := a.requests[k]
	if q == nil {
		return
	}
	if q.Calls == 0 || !ans.Ended.Equal(q.Ended) {
		q.Calls, q.Ended, q.Call = q.Calls+max(ans.Messages, 1), ans.Ended, callOf(ans)
	}
	q.Altered = q.Altered || ans.Altered
	q.broken = q.broken || m.flags&flagInterrupted != 0 || !process(q.Reader, ans.Process)
	switch {
	case m.kind == typeDone:
		delete(a.requests, k)
		if !q.broken {
			a.keep(q.Reading)
		}
	case m.kind == typeError:
		delete(a.requests, k)
	case q.Kind == Interfaces && m.kind == typeNewLink:
		q.broken = !linkName(m.body, q.Reading) || q.broken
	case q.Kind == Sockets && m.kind == typeByFamily:
		q.broken = !diagSocket(m.body, q.Reading) || q.broken
	}
}

// lose gives up what was asked on a socket: something that was answered is missing.
func (a *Assembler) lose(socket fileKey) {
	for k := range a.requests {
		if k.socket == socket {
			delete(a.requests, k)
		}
	}
}

const interfaceHead = 16 // struct ifinfomsg

// allLinks says that a request is for all interfaces (struct ifinfomsg, or rtgenmsg of older programs).
func allLinks(b []byte) bool {
	const extended = 29 // IFLA_EXT_MASK, which only asks for more of each
	switch {
	case len(b) == 0 || b[0] != 0 && b[0] != 17: // AF_PACKET, which ip asks for, has no dump of its own
		return false
	case len(b) <= interfaceHead:
		return true
	}
	return attributes(b[interfaceHead:], func(kind uint16, _ []byte) bool { return kind == extended })
}

// linkName adds an interface.
func linkName(b []byte, r *Reading) bool {
	const name = 3 // IFLA_IFNAME
	if len(b) < interfaceHead {
		return false
	}
	ok := true
	return attributes(b[interfaceHead:], func(kind uint16, value []byte) bool {
		if kind == name {
			text, _, _ := bytes.Cut(value, []byte{0})
			ok = r.name(string(text))
		}
		return ok
	})
}

// Sizes of requests and answers of sock_diag (struct inet_diag_req_v2, inet_diag_msg).
const (
	inetRequest  = 56
	inetAnswer   = 72
	unixRequest  = 8 // up to the states
	unixAnswer   = 8 // up to the inode
	familyUnix   = 1
	familyInet   = 2
	familyInet6  = 10
	familyPacket = 17
)

// diagRequest says which table of sockets is asked for, and which states. It is false if only some of its sockets are.
func diagRequest(b []byte) (table string, states uint32, ok bool) {
	if len(b) < unixRequest {
		return "", 0, false
	}
	switch b[0] {
	case familyUnix:
		return "unix", le.Uint32(b[4:]), true
	case familyPacket:
		return "packet", ^uint32(0), true
	case familyInet, familyInet6:
	default:
		return "", 0, false
	}
	if len(b) < inetRequest || le.Uint32(b[8:]) != 0 { // ports: only sockets with these
		return "", 0, false
	}
	protocols := map[byte]string{6: "tcp", 17: "udp", 255: "raw"}
	table = protocols[b[1]]
	if table == "" {
		return "", 0, false
	}
	if b[0] == familyInet6 {
		table += "6"
	}
	// Attributes are filters, or name the protocol.
	const named = 3 // INET_DIAG_REQ_PROTOCOL
	if !attributes(b[inetRequest:], func(kind uint16, _ []byte) bool { return kind == named }) {
		return "", 0, false
	}
	return table, le.Uint32(b[4:]), true
}

// diagSocket adds a socket.
func diagSocket(b []byte, r *Reading) bool {
	switch {
	case r.Table == "unix" || r.Table == "packet":
		return len(b) >= unixAnswer && r.inode(uint64(le.Uint32(b[4:])))
	case len(b) < inetAnswer:
		return false
	}
	return r.inode(uint64(le.Uint32(b[68:])))
}
