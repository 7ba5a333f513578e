package tcg

import (
	"bytes"
	"context"
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// Answer is a system call by which the kernel told a program what there is, as it was when it returned.
type Answer struct {
	Began, Ended time.Time      // by the host's clock
	Process      *trace.Process // that was told; never nil
	TID          int32
	Call         string // name of the system call
	ABI          syscall.ABI
	Args         [6]uint64
	Result       int64
	// Seen says that its entry was seen too: else Args and Before are unknown.
	Seen bool
	// File is what was read; its Addr is 0 where the call has none.
	File File
	// Before is the file's position when the call began, and Asked the file that it was made on then: another
	// thread can exchange it.
	Before int64
	Asked  virt.Addr
	// Data is the first of the memory that the call read or wrote, with how much of it is there. It is valid until
	// the next answer.
	Data   []byte
	Status syscall.Status
	// Altered says that Data was changed between the return of the call's function and the end of the kernel's part: by a
	// program on a tracepoint, a tracer, or another thread.
	Altered bool
	// Messages is how many messages of a socket Data joins; 0: it is of one.
	Messages int
	// Ring says that it came by io_uring: Call is what the operation stands for.
	Ring bool
}

// File is an open file, as the kernel had it when a call returned. The names are guest text of its kernel.
type File struct {
	Addr, Inode, Dentry, Super virt.Addr // of its structures
	Number                     uint64    // of the inode
	Magic                      uint64    // of its file system (statfs(2))
	Position                   int64     // after the call
	// Net is the network namespace of a socket, or of a file below /proc/net: the first word that a seq_file's
	// private data has, which is something else for other files.
	Net      virt.Addr
	Protocol uint16    // of a netlink socket
	Names    [3]string // of the file, of its directory, and of the one above
}

// answerCalls are what [Options.Answers] watches.
var answerCalls = []string{
	"getdents", "getdents64", "read", "readv", "pread64", "preadv", "preadv2", "recvmsg", "recvfrom", "recvmmsg", "recvmmsg_time64",
	"write", "writev", "sendmsg", "sendto", "splice", "bpf",
}

// Words of a return behind its head that say what the file is.
const (
	fileAddr = headWords + iota
	filePosition
	fileInode
	fileNumber
	fileMagic
	fileSuper
	fileDentry
	fileNet
	fileProtocol
	fileEnd
)

// tagNames is the tag of the first of a file's names.
const tagNames = 240

// answerPieces are what is fetched of a call in place of what is printed of it.
func answerPieces(call *syscall.Call) []syscall.Piece {
	w := uint8(call.ABI.Width())
	message := func(when syscall.When) []syscall.Piece { // struct msghdr has its vector behind a name and its length
		return []syscall.Piece{{
			Arg: 1, When: when, Deref: []uint32{2 * uint32(w)}, Shape: syscall.Vector, Size: 2 * uint32(w),
			Count: syscall.Count{From: syscall.Member, N: 3 * uint32(w), Width: w}, Limit: maxItem,
		}}
	}
	switch call.Name {
	case "getdents", "getdents64", "read", "pread64", "recvfrom":
		return []syscall.Piece{{Arg: 1, When: syscall.Return, Size: 1, Count: syscall.Count{From: syscall.Result}, Limit: maxItem}}
	case "readv", "preadv", "preadv2":
		return []syscall.Piece{{Arg: 1, When: syscall.Return, Shape: syscall.Vector, Size: 2 * uint32(w), Count: syscall.Count{From: syscall.Argument, N: 2}, Limit: maxItem}}
	case "write", "sendto":
		return []syscall.Piece{{Arg: 1, Size: 1, Count: syscall.Count{From: syscall.Argument, N: 2}, Limit: 4096}}
	case "writev":
		return []syscall.Piece{{Arg: 1, Shape: syscall.Vector, Size: 2 * uint32(w), Count: syscall.Count{From: syscall.Argument, N: 2}, Limit: 4096}}
	case "sendmsg":
		p := message(syscall.Entry)
		p[0].Limit = 4096
		return p
	case "recvmsg":
		return message(syscall.Return)
	case "recvmmsg", "recvmmsg_time64":
		return messagesPieces(uint32(w))
	case "bpf":
		return []syscall.Piece{{Arg: 1, When: syscall.Return, Always: true, Size: 1, Count: syscall.Count{From: syscall.Fixed, N: 8}, Limit: 8}}
	}
	return nil
}

// fileOfWords is the file that the words of [compiler.putFile] describe.
func fileOfWords(word func(i int) uint64) File {
	at := func(i int) uint64 { return word(i - headWords) }
	return File{
		Addr: virt.Addr(at(fileAddr)), Inode: virt.Addr(at(fileInode)), Dentry: virt.Addr(at(fileDentry)), Super: virt.Addr(at(fileSuper)),
		Number: at(fileNumber), Magic: at(fileMagic), Position: int64(at(filePosition)), Net: virt.Addr(at(fileNet)), Protocol: uint16(at(fileProtocol)),
	}
}

// exit takes in what a call had written when the kernel's part of it was over.
func (j *joiner) exit(s origin, r *plugin.Record) {
	c := j.pending[r.Word(wordTask)]
	if c == nil || !c.returned || c.nr != r.Word(wordCall) || c.born != r.Word(wordBorn) || c.result != int64(r.Word(wordResult)) {
		return // a signal has taken its place
	}
	delete(j.pending, c.task)
	c.left = s.Time(r)
	for items := r.Items(); ; {
		item, ok := items.Next()
		if !ok {
			break
		}
		for i := range c.data {
			p := &c.data[i]
			if p.tag != item.Tag || item.Tag >= tagNames {
				continue
			}
			c.altered = c.altered || !bytes.Equal(c.bytes[p.from:p.to], item.Data)
			p.from, p.to, p.status = len(c.bytes), len(c.bytes)+len(item.Data), syscall.Status(item.Status)
			c.bytes = append(c.bytes, item.Data...)
		}
	}
	j.done(c)
}

// failed says that a call returned an error.
func (c *call) failed() bool { return failed(c.result) }

func failed(result int64) bool { return result < 0 && result >= -4095 }

// setErrno names the error of an event, if its result is one.
func setErrno(e *trace.Event, result int64) {
	if failed(result) {
		e.Errno, _ = syscall.ErrnoName(int(-result))
	}
}

// NextAnswer waits for the next answer, and writes it into a. It is for a stream with [Options.Answers], in place of
// [Stream.Next], and ends as that does.
func (s *Stream) NextAnswer(ctx context.Context, a *Answer) error {
	for {
		c, err := s.next(ctx)
		if err != nil {
			return err
		}
		if c.returned && s.join.answer(a, c) {
			return nil
		}
	}
}

// answer fills a. It is false if what was asked is not known.
func (j *joiner) answer(a *Answer, c *call) bool {
	if c.told != nil {
		c.fillTold(a)
		return true
	}
	k := j.kind(c.nr)
	if k == nil || len(c.words) < fileEnd-headWords && k.Name != "bpf" {
		return false
	}
	*a = Answer{
		Began: c.entered, Ended: c.left, Process: c.process, TID: int32(c.ids), Call: k.Name, ABI: k.ABI, Args: c.args, Result: c.result,
		Seen: c.seen, Before: int64(c.before), Asked: virt.Addr(c.asked), Status: syscall.Unreadable, Altered: c.altered,
	}
	if a.Process == nil {
		a.Process = &trace.Process{PID: int32(c.ids >> 32), PPID: -1}
	}
	if k.Name != "bpf" {
		a.File = fileOfWords(func(i int) uint64 { return c.words[i] })
	}
	for _, p := range c.data {
		switch {
		case p.tag == 0:
			a.Data, a.Status = c.bytes[p.from:p.to], p.status
		case p.tag >= tagNames && int(p.tag-tagNames) < len(a.File.Names):
			a.File.Names[p.tag-tagNames] = string(c.bytes[p.from:p.to])
		}
	}
	if k.Name == "recvmmsg" || k.Name == "recvmmsg_time64" {
		c.joinMessages(a, k.ABI.Width())
	}
	return true
}
