package syscall

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	stdsyscall "syscall"
	"testing"
)

// traced is what a thread of a program did, a line for each call.
type traced struct {
	tid   int
	lines []string
}

// tracer runs a program under ptrace, fetches what the table says, and writes each call. It is the
// shortest machine that can run the pieces: the one in QEMU has to do the same.
type tracer struct {
	threads map[int]*thread
	order   []*traced
}

type thread struct {
	*traced
	inside bool
	c      *Call
	v      Values
	memory *os.File
}

func trace(t *testing.T, work string, args []string) []*traced {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = environment, work
	cmd.SysProcAttr = &stdsyscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		t.Skipf("ptrace: %v", err)
	}
	tr := &tracer{threads: map[int]*thread{}}
	defer func() {
		for _, th := range tr.threads {
			th.memory.Close()
		}
		_ = stdsyscall.Kill(cmd.Process.Pid, stdsyscall.SIGKILL)
		_ = cmd.Wait()
	}()
	first := cmd.Process.Pid
	var status stdsyscall.WaitStatus
	if _, err := stdsyscall.Wait4(first, &status, 0, nil); err != nil {
		t.Fatal(err)
	}
	const goodExec = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x100000 // SYSGOOD, FORK, VFORK, CLONE, EXEC, EXITKILL
	if err := stdsyscall.PtraceSetOptions(first, goodExec); err != nil {
		t.Skipf("ptrace: %v", err)
	}
	tr.thread(first)
	_ = stdsyscall.PtraceSyscall(first, 0)
	for {
		tid, err := stdsyscall.Wait4(-1, &status, stdsyscall.WALL, nil)
		if err != nil {
			return tr.order
		}
		deliver := 0
		switch {
		case status.Exited() || status.Signaled():
			if th := tr.threads[tid]; th != nil && th.inside && th.c != nil && !th.c.NoReturn {
				th.line() // it was killed inside a call
			}
			if tid == first {
				return tr.order
			}
			continue
		case status.Stopped() && status.StopSignal() == stdsyscall.SIGTRAP|0x80:
			tr.syscall(t, tr.thread(tid))
		case status.Stopped() && status.StopSignal() != stdsyscall.SIGTRAP && status.StopSignal() != stdsyscall.SIGSTOP:
			deliver = int(status.StopSignal())
		default:
			tr.thread(tid)
		}
		_ = stdsyscall.PtraceSyscall(tid, deliver)
	}
}

func (tr *tracer) thread(tid int) *thread {
	th := tr.threads[tid]
	if th == nil {
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
		if err != nil {
			memory = nil
		}
		th = &thread{traced: &traced{tid: tid}, memory: memory}
		tr.threads[tid] = th
		tr.order = append(tr.order, th.traced)
	}
	return th
}

func (tr *tracer) syscall(t *testing.T, th *thread) {
	var r stdsyscall.PtraceRegs
	if err := stdsyscall.PtraceGetRegs(th.tid, &r); err != nil {
		return
	}
	th.inside = !th.inside
	if th.inside {
		abi := ABI64
		args := [6]uint64{r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9}
		if insn, _ := th.read(r.Rip-2, 2); string(insn) == "\xcd\x80" {
			abi = ABI32
			args = [6]uint64{r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp}
		}
		table := Table(abi)
		if r.Orig_rax >= uint64(len(table)) || table[r.Orig_rax] == nil {
			t.Fatalf("no system call %d", r.Orig_rax)
		}
		th.c = table[r.Orig_rax]
		th.v = Values{}
		copy(th.v.Args[:], args[:len(th.c.Args)]) // no others are fetched
		th.socket()
		th.fetch(Entry)
		for n, p := range th.c.Stack {
			d := Data{Tag: uint8(len(th.c.Pieces) + n)}
			d.Bytes, _ = th.read(r.Rsp+uint64(p.Add), int(p.Size))
			th.v.Data = append(th.v.Data, d)
		}
		if th.c.NoReturn {
			th.line()
		}
		return
	}
	if th.c == nil {
		return
	}
	th.v.Returned, th.v.Result = true, int64(r.Rax)
	if th.c.ABI == ABI32 {
		th.v.Result = int64(int32(r.Rax))
	}
	if th.c.Name == "execve" && th.v.Result == 0 {
		th.memory.Close()
		th.memory, _ = os.Open(fmt.Sprintf("/proc/%d/mem", th.tid))
	}
	th.fetch(Return)
	th.line()
}

// socket finds the protocol of a netlink socket.
func (th *thread) socket() {
	switch th.c.Name {
	case "sendto", "sendmsg", "recvfrom", "recvmsg":
	default:
		return
	}
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", th.tid, int32(th.v.Args[0])))
	table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", th.tid))
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) == 10 && "socket:["+f[9]+"]" == link {
			protocol, _ := strconv.ParseUint(f[1], 10, 16)
			th.v.Data = append(th.v.Data, Data{Tag: TagSocket, Bytes: le.AppendUint16(nil, uint16(protocol))})
		}
	}
}

func (th *thread) line() {
	th.lines = append(th.lines, fmt.Sprintf("%s(%s) = %s", th.c.NameOf(&th.v), th.c.AppendArgs(nil, &th.v, Options{}), th.c.AppendResult(nil, &th.v)))
}

// fetch reads the pieces of a call.
func (th *thread) fetch(when When) {
	w := th.c.ABI.Width()
	for tag, p := range th.c.Pieces {
		if p.When != when || when == Return && !p.Always && th.v.failed() {
			continue
		}
		if p.If != nil {
			found := false
			for _, v := range p.If.Values {
				found = found || th.v.Args[p.If.Arg]&p.If.Mask == v
			}
			if !found {
				continue
			}
		}
		base := th.v.Args[p.Arg]
		if w == 4 {
			base &= 0xffffffff
		}
		at := base
		ok := at != 0
		for _, off := range p.Deref {
			var b []byte
			if b, ok = th.read(at+uint64(off), w); !ok {
				break
			}
			at = number(b)
			ok = at != 0
		}
		if !ok {
			continue
		}
		at += uint64(p.Add)
		limit := int(p.Limit)
		if p.Data {
			limit = min(limit, 32)
			if _, over := th.v.find(TagSocket); over {
				limit = NetlinkLimit
			}
		}
		switch p.Shape {
		case String:
			th.v.Data = append(th.v.Data, th.str(tag, at, limit))
		case Strings:
			for n := 0; ; n++ {
				b, ok := th.read(at+uint64(n*w), w)
				if !ok {
					th.v.Data = append(th.v.Data, Data{Tag: uint8(tag), Status: Unreadable})
					break
				}
				if number(b) == 0 {
					break
				}
				if n == int(p.Most) {
					th.v.Data = append(th.v.Data, Data{Tag: uint8(tag), Status: Cut})
					break
				}
				th.v.Data = append(th.v.Data, th.str(tag, number(b), limit))
			}
		case Bytes:
			length := th.count(p, base) * uint64(p.Size)
			d := Data{Tag: uint8(tag)}
			if length > uint64(limit) {
				length, d.Status = uint64(limit), Cut
			}
			d.Bytes, ok = th.read(at, int(length))
			if !ok {
				d.Status = Unreadable
			}
			th.v.Data = append(th.v.Data, d)
		case Vector:
			d := Data{Tag: uint8(tag)}
			for n := range min(th.count(p, base), 1024) {
				pair, ok := th.read(at+n*uint64(2*w), 2*w)
				if !ok {
					d.Status = Unreadable
					break
				}
				length := min(number(pair[w:]), uint64(limit-len(d.Bytes)))
				b, ok := th.read(number(pair[:w]), int(length))
				d.Bytes = append(d.Bytes, b...)
				if !ok {
					d.Status = Unreadable
					break
				}
				if length < number(pair[w:]) {
					d.Status = Cut
					break
				}
			}
			th.v.Data = append(th.v.Data, d)
		}
	}
}

func (th *thread) count(p Piece, base uint64) uint64 {
	var b []byte
	switch p.Count.From {
	case Fixed:
		return uint64(p.Count.N)
	case Argument:
		return th.v.Args[p.Count.N] & 0xffffffff
	case Result:
		return uint64(max(th.v.Result, 0))
	case Pointed:
		b, _ = th.read(th.v.Args[p.Count.N], 4)
	case Member:
		b, _ = th.read(base+uint64(p.Count.N), int(p.Count.Width))
	}
	return number(b)
}

func (th *thread) str(tag int, at uint64, limit int) Data {
	b, _ := th.read(at, limit+1)
	d := Data{Tag: uint8(tag), Bytes: b}
	switch end := bytes.IndexByte(b, 0); {
	case end >= 0:
		d.Bytes = b[:end]
	case len(b) > limit:
		d.Bytes, d.Status = b[:limit], Cut
	default:
		d.Status = Unreadable
	}
	return d
}

func (th *thread) read(at uint64, n int) ([]byte, bool) {
	b := make([]byte, n)
	got := 0
	if int64(at) > 0 {
		got, _ = th.memory.ReadAt(b, int64(at))
	}
	return b[:got], got == n
}
