package tcg

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// What a program reads by io_uring is an answer too. When a request is done, the request itself has all of it: the file, the buffer, where
// the file is read next, and the result.

// Numbers of operations (enum io_uring_op).
const (
	ringReadv      = 1
	ringWritev     = 2
	ringReadFixed  = 4
	ringWriteFixed = 5
	ringSendmsg    = 9
	ringRecvmsg    = 10
	ringRead       = 22
	ringWrite      = 23
	ringSend       = 26
	ringRecv       = 27
	ringMultishot  = 49 // of read
	ringReadvFixed = 60
)

// ringCalls are the operations that answers are made of, as system calls.
var ringCalls = map[uint64]string{
	ringReadv: "readv", ringReadFixed: "read", ringRead: "read", ringMultishot: "read", ringReadvFixed: "readv",
	ringWritev: "writev", ringWriteFixed: "write", ringWrite: "write",
	ringSendmsg: "sendmsg", ringSend: "sendto", ringRecvmsg: "recvmsg", ringRecv: "recvfrom",
}

// ringAnswerLayout is where a request that is done has what it was about.
type ringAnswerLayout struct {
	file, flags             uint32 // of io_kiocb
	operations, iterates    uint32 // of file, file_operations
	address, length, next   uint32 // of a read or write
	buffer, room, sendFlags uint32 // of what goes over a socket
}

func ringAnswerLayoutOf(l *guest.Look) (*ringAnswerLayout, error) {
	return kobj.LayoutOf(l.Linux.Walker, "answers by io_uring", func(r *kobj.Resolver, o *ringAnswerLayout) {
		o.file, o.flags = r.Offset("io_kiocb", "file"), r.Offset("io_kiocb", "flags")
		o.operations, o.iterates = r.Offset("file", "f_op"), r.Offset("file_operations", "read_iter")
		cmd := r.Offset("io_kiocb", "cmd")
		o.address, o.length, o.next = cmd+r.Offset("io_rw", "addr"), cmd+r.Offset("io_rw", "len"), cmd+r.Offset("io_rw", "kiocb.ki_pos")
		o.buffer, o.room, o.sendFlags = cmd+r.Offset("io_sr_msg", "buf"), cmd+r.Offset("io_sr_msg", "len"), cmd+r.Offset("io_sr_msg", "msg_flags")
	})
}

// Slots of a program that looks through requests, beside those of a file.
const (
	sDone     = sProtocol + 1 + plugin.Slot(iota) // a request
	sDoneNext                                     // how the list of them goes on
	sToldLow                                      // which of the first 32 are answers
	sToldHigh
	sBuffer
)

// maxTold bounds how many requests that are done at once are looked at. A program that submits more does not ask what there is.
const maxTold = 64

// ringSelected is REQ_F_BUFFER_SELECT: the kernel chose the buffer, and noted it in the request of a read; in that of a recv only before Linux 6.10.
const ringSelected = 1 << 5

// Words of one answer in a record.
const (
	toldPlace = iota // which of the requests
	toldRequest
	toldOp
	toldResult
	toldFlags
	toldNext // position behind what was read, or the flags of a socket's call
	toldRoom
	toldFile  // and the rest, as behind the head of a return
	toldNames = toldFile + fileEnd - headWords
	toldWords = toldNames + 3
)

// ringAnswers writes the programs by which answers are seen that come by io_uring.
func (c *compiler) ringAnswers(a *ringsAt, o *ringAnswerLayout) {
	c.ringAsked(a)
	list := func(end plugin.Label) {
		c.Reg(sDoneNext, "rdi")
		c.Load(sDoneNext, sDoneNext, int64(a.state+a.done), 8, end)
	}
	c.at([]virt.Addr{a.flush}, idRingTold)
	c.toldBy(a, o, maxTold, list, func(end plugin.Label) {
		c.If(sDoneNext, "==", 0, end)
		c.Add(sDone, sDoneNext, -uint64(a.list))
		c.Load(sDoneNext, sDoneNext, 0, 8, end)
	})
	one := func(places []virt.Addr, id int, request func(end plugin.Label)) {
		if len(places) > 0 {
			c.at(places, id)
			c.toldBy(a, o, 1, func(plugin.Label) {}, request)
		}
	}
	first := func(plugin.Label) { c.Reg(sDone, "rdi") }
	one(a.single, idRingTold, first)
	if a.more != 0 {
		one([]virt.Addr{a.more}, idRingToldMore, first)
	}
	if a.worker != 0 {
		one([]virt.Addr{a.worker}, idRingTold, func(end plugin.Label) {
			c.Reg(sDone, "rdi")
			c.Add(sDone, sDone, -uint64(a.work))
			c.Load(sX, sDone, int64(a.refs), 4, end)
			c.If(sX, "!=", 1, end) // it is still under way
		})
	}
}

// ringOperationsTold are all of ringCalls.
var ringOperationsTold = []uint32{
	ringReadv, ringReadFixed, ringRead, ringMultishot, ringReadvFixed, ringWritev, ringWriteFixed, ringWrite, ringSendmsg, ringSend, ringRecvmsg, ringRecv,
}

// ringAsked writes the program of the functions that prepare requests: one that is done is met at several places, and is one answer.
func (c *compiler) ringAsked(a *ringsAt) {
	drop, wanted, keep := c.Label(), c.Label(), c.Label()
	c.at(a.preps, idRingAsked)
	c.Reg(sDone, "rdi")
	c.Reg(sDoneNext, "rsi")
	c.Load(sX, sDone, int64(a.opcode), 1, drop)
	c.IfIn(sX, ringOperationsTold, wanted)
	c.Set(drop)
	c.Drop()
	c.Set(wanted)
	none := c.Label()
	c.current()
	c.Put(sDone)
	c.Load(sX, sDoneNext, sqeFlags, 1, none)
	c.If(sX, "&", 1, keep) // IOSQE_FIXED_FILE: which file is known only when it is done
	c.Load(arg(0), sDoneNext, sqeFD, 4, none)
	c.descriptor(c.files, sFile, none)
	c.fileOf("read", none)
	c.Set(keep)
	c.End()
	c.Set(none)
	c.Drop()
}

// toldBy writes one of them: begin and request go through at most n requests, twice, for words come before items.
func (c *compiler) toldBy(a *ringsAt, o *ringAnswerLayout, n int, begin, request func(end plugin.Label)) {
	described, end, drop := c.Label(), c.Label(), c.Label()
	c.current()
	c.Imm(sToldLow, 0)
	c.Imm(sToldHigh, 0)
	begin(drop)
	for i := range n {
		next := c.Label()
		request(described)
		c.describeTold(a, o, i, next)
		told := sToldLow
		if i >= 32 {
			told = sToldHigh
		}
		c.Add(told, told, 1<<(i%32))
		c.Set(next)
	}
	c.Set(described)
	some := c.Label()
	c.If(sToldLow, "!=", 0, some)
	c.If(sToldHigh, "==", 0, drop)
	c.Set(some)
	begin(end)
	for i := range n {
		is, next, told := c.Label(), c.Label(), sToldLow
		if i >= 32 {
			told = sToldHigh
		}
		request(end)
		c.If(told, "&", 1<<(i%32), is)
		c.Jump(next)
		c.Set(is)
		c.copyTold(a, o, uint8(i), next)
		c.Set(next)
	}
	c.Set(end)
	c.End()
	c.Set(drop)
	c.Drop()
}

// describeTold puts the words of a request that is done, and goes to other if it is no answer.
func (c *compiler) describeTold(a *ringsAt, o *ringAnswerLayout, place int, other plugin.Label) {
	file := func(call string) {
		c.Load(sFile, sDone, int64(o.file), 8, other)
		c.If(sFile, "==", 0, other)
		c.fileOf(call, other)
	}
	reads, writes, known := c.Label(), c.Label(), c.Label()
	c.Load(sX, sDone, int64(a.opcode), 1, other)
	c.IfIn(sX, []uint32{ringRead, ringReadv, ringReadFixed, ringMultishot, ringReadvFixed}, reads)
	c.IfIn(sX, []uint32{ringWrite, ringWritev, ringWriteFixed}, writes)
	sockets := c.Label()
	c.IfIn(sX, []uint32{ringSend, ringSendmsg, ringRecv, ringRecvmsg}, sockets)
	c.Jump(other)
	c.Set(sockets)
	file("recvmsg")
	c.Load(sZ, sDone, int64(o.sendFlags), 4, other)
	c.Load(sBuffer, sDone, int64(o.room), 4, other)
	c.Jump(known)
	c.Set(writes)
	file("write")
	c.Imm(sZ, 0)
	c.Imm(sBuffer, 0)
	c.Jump(known)
	c.Set(reads)
	file("read")
	c.Load(sZ, sDone, int64(o.next), 8, other)
	c.Load(sBuffer, sDone, int64(o.length), 4, other)
	// What was read into a registered buffer in pieces is behind: it no longer counts as room.
	whole := c.Label()
	c.ringPieces(a, o, whole)
	c.Load(sX, sDone, int64(a.result), 4, other)
	c.If(sX, ">", 1<<31-1, whole)
	c.AddSlot(sBuffer, sX)
	c.Set(whole)
	c.Set(known)
	c.Imm(sX, uint64(place))
	c.Put(sX)
	c.Put(sDone)
	for _, m := range []struct {
		at   uint32
		size uint8
	}{{a.opcode, 1}, {a.result, 4}, {o.flags, 4}} {
		c.Load(sX, sDone, int64(m.at), m.size, 0)
		c.Put(sX)
	}
	c.Put(sZ)
	c.Put(sBuffer)
	c.putFile()
	for range 3 { // what names are compared with has less than eight bytes
		c.Load(sX, sDentry, int64(c.files.name), 8, 0)
		c.Load(sX, sX, 0, 8, 0)
		c.Put(sX)
		c.Load(sDentry, sDentry, int64(c.files.parent), 8, 0)
	}
}

// copyTold fetches what a request that is done has brought, or what it was to send.
func (c *compiler) copyTold(a *ringsAt, o *ringAnswerLayout, tag uint8, other plugin.Label) {
	const limit = 32 << 10
	c.Load(sY, sDone, int64(o.flags), 4, other)
	c.Load(sZ, sDone, int64(a.result), 4, other)
	c.If(sZ, ">", 1<<31-1, other)
	c.Load(sX, sDone, int64(a.opcode), 1, other)
	plain, vector, message, socket := c.Label(), c.Label(), c.Label(), c.Label()
	// Registered buffers are asked for by the addresses at which they were registered.
	c.IfIn(sX, []uint32{ringRead, ringWrite, ringReadFixed, ringWriteFixed}, plain)
	c.IfIn(sX, []uint32{ringSend, ringRecv}, socket)
	c.If(sY, "&", ringSelected, other)
	c.IfIn(sX, []uint32{ringReadv, ringWritev, ringReadvFixed}, vector)
	c.IfIn(sX, []uint32{ringSendmsg, ringRecvmsg}, message)
	c.Jump(other)
	c.Set(socket)
	c.Load(sBuffer, sDone, int64(o.buffer), 8, other)
	c.Copy(tag, sBuffer, sZ, limit)
	c.Jump(other)
	c.Set(plain)
	c.Load(sBuffer, sDone, int64(o.address), 8, other)
	whole := c.Label()
	c.ringPieces(a, o, whole)
	c.Mul(sX, sZ, 1<<64-1)
	c.AddSlot(sBuffer, sX)
	c.Set(whole)
	c.Copy(tag, sBuffer, sZ, limit)
	c.Jump(other)
	c.Set(message)
	c.Load(sX, sDone, int64(o.buffer), 8, other)
	c.Load(sBuffer, sX, 16, 8, other) // msg_iov and msg_iovlen
	c.Load(sZ, sX, 24, 8, other)
	gather := c.Label()
	c.Jump(gather)
	c.Set(vector)
	c.Load(sBuffer, sDone, int64(o.address), 8, other)
	c.Load(sZ, sDone, int64(o.length), 4, other)
	c.Set(gather)
	c.If(sZ, ">", 1024, other)
	c.Gather(tag, sBuffer, sZ, 8, limit)
}

// ringPieces goes to whole unless the address and the length in a request were moved on behind what was read: that is so with registered
// buffers (loop_rw_iter) and files that cannot be read but at an address. It changes sX.
func (c *compiler) ringPieces(a *ringsAt, o *ringAnswerLayout, whole plugin.Label) {
	c.Load(sX, sDone, int64(a.opcode), 1, whole)
	c.If(sX, "!=", ringReadFixed, whole)
	c.Load(sX, sDone, int64(o.file), 8, whole)
	c.Load(sX, sX, int64(o.operations), 8, whole)
	c.Load(sX, sX, int64(o.iterates), 8, whole)
	c.If(sX, "!=", 0, whole)
}

// ringAsked notes a request that may become an answer.
func (j *joiner) ringAsked(s origin, r *plugin.Record) {
	g := &j.rings
	if g.asked == nil {
		g.asked = map[uint64]time.Time{}
	}
	if len(g.asked) >= maxPending {
		for old := range g.asked { // any of them
			delete(g.asked, old)
			break
		}
	}
	g.asked[r.Word(probeWords)] = s.Time(r)
}

// ringTold takes in a record of answers that came by io_uring.
func (j *joiner) ringTold(ctx context.Context, s origin, r *plugin.Record) {
	for at := probeWords; at+toldWords <= r.Words(); at += toldWords {
		request := r.Word(at + toldRequest)
		began, ok := j.rings.asked[request]
		if !ok {
			continue // it was met before
		}
		c := j.record(ctx, s, r)
		c.left, c.returned = c.entered, true
		a := toldAnswer(r, at)
		a.Began = began
		for items := r.Items(); ; {
			item, ok := items.Next()
			if !ok {
				break
			}
			if uint64(item.Tag) == r.Word(at+toldPlace) {
				a.Status = syscall.Status(item.Status)
				c.bytes = append(c.bytes[:0], item.Data...)
			}
		}
		if r.Probe == idRingToldMore { // it is done only with the last
			a.Result, a.Status, c.bytes = max(a.Result, 1), syscall.Unreadable, c.bytes[:0]
		} else {
			delete(j.rings.asked, request)
		}
		c.told = a
		j.queue = append(j.queue, c)
	}
}

// toldAnswer reads the words of one answer in a record.
func toldAnswer(r *plugin.Record, at int) *Answer {
	word := func(i int) uint64 { return r.Word(at + i) }
	a := &Answer{Call: ringCalls[word(toldOp)], ABI: syscall.ABI64, Ring: true, Result: int64(int32(word(toldResult))), Seen: true, Status: syscall.Unreadable}
	a.File = fileOfWords(func(i int) uint64 { return word(toldFile + i) })
	a.Asked = a.File.Addr // which a request keeps
	for i := range a.File.Names {
		name := binary.LittleEndian.AppendUint64(nil, word(toldNames+i))
		name, _, _ = bytes.Cut(name, []byte{0})
		a.File.Names[i] = string(name)
	}
	a.Args[2] = word(toldRoom)
	switch a.Call {
	case "read", "readv":
		a.File.Position = int64(word(toldNext))
	case "recvmsg":
		a.Args[2] = word(toldNext)
	case "recvfrom":
		a.Args[3] = word(toldNext)
	}
	return a
}

// fillTold fills in an answer that came by io_uring.
func (c *call) fillTold(a *Answer) {
	*a = *c.told
	a.Ended, a.Process, a.TID, a.Data = c.left, c.process, int32(c.ids), c.bytes
	if a.Process == nil {
		a.Process = &trace.Process{PID: int32(c.ids >> 32), PPID: -1}
	}
}
