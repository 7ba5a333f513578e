package told

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/trace/tcg"
	"github.com/outsight-vmi/outsight/virt"
)

// kernel gives answers: files have positions, which descriptors share.
type kernel struct {
	*Assembler
	now time.Time
}

func newKernel() *kernel { return &kernel{NewAssembler(), time.Unix(1000, 0)} }

// file is an open file of a guest.
type file struct {
	tcg.File
	reader *trace.Process
}

var opened virt.Addr = 0x1000

func open1(pid int32, magic uint64, names ...string) *file {
	opened += 0x100
	f := &file{reader: &trace.Process{PID: pid, Comm: "reader"}}
	f.Addr, f.Inode, f.Dentry, f.Magic = opened, opened+1, opened+2, magic
	copy(f.Names[:], names)
	return f
}

// answer is a call on f that returned b, as many bytes as result says.
func (g *kernel) answer(f *file, call string, b []byte, change func(*tcg.Answer)) {
	a := &tcg.Answer{
		Began: g.now, Ended: g.now.Add(time.Millisecond), Process: f.reader, Call: call, Result: int64(len(b)), Data: b, Seen: true,
		File: f.File, Asked: f.Addr, Before: f.Position, Args: [6]uint64{0, 0, 4096},
	}
	g.now = g.now.Add(2 * time.Millisecond)
	if strings.HasPrefix(call, "read") || strings.HasPrefix(call, "getdents") {
		f.Position += int64(len(b))
		a.File.Position = f.Position
	}
	if change != nil {
		change(a)
	}
	g.Add(a)
}

func dirents(names ...string) (b []byte) {
	for i, n := range names {
		size := (19 + len(n) + 1 + 7) &^ 7
		e := make([]byte, size)
		binary.LittleEndian.PutUint64(e, uint64(i+1))
		binary.LittleEndian.PutUint16(e[16:], uint16(size))
		copy(e[19:], n)
		b = append(b, e...)
	}
	return b
}

// names are those of all complete readings, in the order of their beginnings.
func (g *kernel) names() (all []string) {
	rs := g.Readings()
	slices.SortFunc(rs, func(a, b *Reading) int { return a.Began.Compare(b.Began) })
	for _, r := range rs {
		all = append(all, strings.Join(slices.Sorted(maps.Keys(r.Names)), " "))
	}
	return all
}

func (g *kernel) want(t *testing.T, want ...string) {
	t.Helper()
	if got := g.names(); !slices.Equal(got, want) {
		t.Errorf("readings %q, want %q", got, want)
	}
}

func TestDirectory(t *testing.T) {
	list := func(g *kernel, f *file, parts ...[]string) {
		for _, p := range parts {
			g.answer(f, "getdents64", dirents(p...), nil)
		}
	}
	t.Run("whole", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "..", "1"}, []string{"2"}, nil)
		g.want(t, ". .. 1 2")
		if r := g.Readings()[0]; r.Calls != 2 || r.What != "/proc" || r.Kind != Directory {
			t.Errorf("%+v", r)
		}
	})
	t.Run("not to its end", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "..", "1"})
		g.want(t)
	})
	t.Run("from the middle", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		f.Position = 100
		list(g, f, []string{"5"}, nil)
		g.want(t)
	})
	t.Run("back to its beginning", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "1"})
		f.Position = 0
		list(g, f, []string{".", "2"}, nil)
		g.want(t, ". 2")
	})
	t.Run("a part was not seen", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "1"})
		f.Position += 50
		list(g, f, []string{"2"}, nil)
		g.want(t)
	})
	t.Run("two who share a file", func(t *testing.T) {
		// One waited for the other, and was at the beginning when it asked.
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "1"})
		g.answer(f, "getdents64", dirents("2"), func(a *tcg.Answer) { a.Before = 0 })
		list(g, f, nil)
		g.want(t)
	})
	t.Run("two who share a file at the same time", func(t *testing.T) {
		// The second waited while the first read all of a small directory's first part, and got the second part.
		g, f := newKernel(), open1(1, 0xef53, "etc", "/", "/")
		began := g.now
		list(g, f, []string{"a", "."})
		g.answer(f, "getdents64", dirents("b"), func(a *tcg.Answer) { a.Before, a.Began = 0, began })
		list(g, f, []string{".."}, nil)
		g.want(t)
	})
	t.Run("itself not first", func(t *testing.T) {
		g, f := newKernel(), open1(1, 0xef53, "etc", "/", "/")
		list(g, f, []string{"passwd", ".."}, []string{"group", "."}, nil)
		g.want(t, ". .. group passwd")
		if g.dropped != 0 {
			t.Errorf("%d were dropped", g.dropped)
		}
	})
	t.Run("two who read at once", func(t *testing.T) {
		g, f, h := newKernel(), open1(1, MagicProc, "/", "/", "/"), open1(2, MagicProc, "/", "/", "/")
		list(g, f, []string{".", "1"})
		list(g, h, []string{".", "8"})
		list(g, f, []string{"2"}, nil)
		list(g, h, []string{"9"}, nil)
		g.want(t, ". 1 2", ". 8 9")
	})
	t.Run("another file meanwhile", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		g.answer(f, "getdents64", dirents(".", "1"), func(a *tcg.Answer) { a.Asked++ })
		list(g, f, nil)
		g.want(t)
	})
	t.Run("cut", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
		g.answer(f, "getdents64", dirents(".", "1"), func(a *tcg.Answer) { a.Result += 100; a.Status = syscall.Cut })
		list(g, f, nil)
		g.want(t)
	})
	t.Run("damaged", func(t *testing.T) {
		for _, b := range [][]byte{dirents(".", "1")[:30], {1, 2, 3}, make([]byte, 24), slices.Repeat([]byte{0xff}, 100)} {
			g, f := newKernel(), open1(1, MagicProc, "/", "/", "/")
			g.answer(f, "getdents64", b, nil)
			list(g, f, nil)
			g.want(t)
		}
	})
	t.Run("of 32 bits", func(t *testing.T) {
		g, f := newKernel(), open1(1, 0xef53, "etc", "/", "/")
		e := make([]byte, 16)
		e[8] = 16
		e[10] = '.'
		g.answer(f, "getdents", e, func(a *tcg.Answer) { a.ABI = syscall.ABI32 })
		g.answer(f, "getdents", nil, nil)
		g.want(t, ".")
	})
	t.Run("of a file system that folds names", func(t *testing.T) {
		g, f := newKernel(), open1(1, 0x4d44, "etc", "/", "/")
		list(g, f, []string{".", "1"}, nil)
		g.want(t)
	})
}

func TestText(t *testing.T) {
	modules := func(pid int32) *file { return open1(pid, MagicProc, "modules", "/", "/") }
	read := func(g *kernel, f *file, parts ...string) {
		for _, p := range parts {
			g.answer(f, "read", []byte(p), nil)
		}
	}
	t.Run("in pieces", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\nb", "", "")
		g.want(t, "a b")
	})
	t.Run("byte by byte", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		for _, c := range "loop 4\nx 5\n" {
			read(g, f, string(c))
		}
		read(g, f, "")
		g.want(t, "loop x")
	})
	t.Run("empty", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "")
		g.want(t, "")
	})
	t.Run("asked for nothing", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		g.answer(f, "read", nil, func(a *tcg.Answer) { a.Args[2] = 0 })
		read(g, f, "a 1\n")
		g.answer(f, "read", nil, func(a *tcg.Answer) { a.Args[2] = 0 })
		g.want(t)
	})
	t.Run("by vectors", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		g.answer(f, "readv", []byte("a 1\n"), nil)
		g.answer(f, "readv", make([]byte, 100), func(a *tcg.Answer) { a.Result, a.File.Position = 0, 4 })
		g.want(t, "a")
	})
	t.Run("by head", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\n")
		g.want(t)
	})
	t.Run("back to its beginning", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\nb 2\n")
		f.Position = 0
		read(g, f, "c 3\n", "")
		g.want(t, "c")
	})
	t.Run("back to its middle", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\nb 2\n")
		f.Position = 4
		read(g, f, "b 2\n", "")
		g.want(t)
	})
	t.Run("by a descriptor that was duplicated", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\n")
		dup := *f // the same file, by another number
		read(g, &dup, "b 2\n", "")
		g.want(t, "a b")
	})
	t.Run("pread", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		for at, p := range []string{0: "a 1\n", 4: "b 2\n", 8: ""} {
			if p != "" || at == 8 {
				g.answer(f, "pread64", []byte(p), func(a *tcg.Answer) { a.Args[3] = uint64(at) })
			}
		}
		g.want(t, "a b")
	})
	t.Run("pread of 32 bits", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		g.answer(f, "pread64", []byte("a 1\n"), func(a *tcg.Answer) { a.ABI = syscall.ABI32 })
		g.answer(f, "pread64", nil, func(a *tcg.Answer) { a.ABI, a.Args[3], a.Args[4] = syscall.ABI32, 4, 1 })
		g.want(t) // that asks for what lies 4 GiB further
	})
	t.Run("a file that was closed, and another in its place", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		read(g, f, "a 1\n")
		other := *f
		other.Inode, other.Dentry = 1, 2
		other.Names = [3]string{"dev", "net", "1"}
		other.Position = 0
		read(g, &other, "head\n lo: 1 2\neth0:3\n", "")
		g.want(t, "eth0 lo")
	})
	t.Run("a line without end", func(t *testing.T) {
		g, f := newKernel(), modules(1)
		for range 10 {
			read(g, f, strings.Repeat("a", 4096))
		}
		read(g, f, "")
		g.want(t)
		if g.dropped != 1 {
			t.Errorf("%d were dropped", g.dropped)
		}
	})
	t.Run("another file named so", func(t *testing.T) {
		g, f := newKernel(), open1(1, MagicProc, "modules", "fs", "/")
		read(g, f, "a 1\n", "")
		g.want(t)
	})
}

func TestSockets(t *testing.T) {
	const (
		tcp    = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 00000000:1267 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0\n"
		unix   = "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000002 00000000 00010000 0001 01 77 /run/x y\n"
		packet = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000000000000 3      3    0003   0     1 0      0      99\n"
	)
	for table, text := range map[string]string{"tcp6": tcp, "unix": unix, "packet": packet} {
		g, f := newKernel(), open1(1, MagicProc, table, "net", "7")
		g.answer(f, "read", []byte(text), nil)
		g.answer(f, "read", nil, nil)
		rs := g.Readings()
		want := map[string]uint64{"tcp6": 4242, "unix": 77, "packet": 99}[table]
		if len(rs) != 1 || rs[0].Table != table || len(rs[0].Inodes) != 1 || !rs[0].Inodes[want] || rs[0].States != ^uint32(0) {
			t.Errorf("%s: %+v", table, rs)
		}
	}
}

// netlinkMessage is one message.
func netlinkMessage(kind, flags uint16, sequence uint32, body []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(16+len(body)))
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint32(b, sequence)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return append(append(b, body...), make([]byte, (4-len(body)%4)%4)...)
}

func inetRequestOf(protocol byte, port uint16, attributes ...byte) []byte {
	b := make([]byte, inetRequest)
	b[0], b[1] = familyInet, protocol
	binary.LittleEndian.PutUint32(b[4:], 1<<10)
	binary.BigEndian.PutUint16(b[8:], port)
	return append(b, attributes...)
}

func inetAnswerOf(inode uint32) []byte {
	b := make([]byte, inetAnswer)
	binary.LittleEndian.PutUint32(b[68:], inode)
	return b
}

func TestNetlink(t *testing.T) {
	dump := func(t *testing.T, want int, request []byte, answers ...[]byte) *kernel {
		t.Helper()
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendmsg", netlinkMessage(typeByFamily, 0x301, 5, request), nil)
		for _, a := range answers {
			g.answer(f, "recvmsg", a, nil)
		}
		if n := len(g.Readings()); n != want {
			t.Errorf("%d readings, want %d", n, want)
		}
		return g
	}
	one := netlinkMessage(typeByFamily, 2, 5, inetAnswerOf(11))
	end := netlinkMessage(typeDone, 2, 5, make([]byte, 4))
	t.Run("whole", func(t *testing.T) {
		g := dump(t, 1, inetRequestOf(6, 0), one, slices.Concat(netlinkMessage(typeByFamily, 2, 5, inetAnswerOf(12)), end))
		if r := g.Readings()[0]; r.Table != "tcp" || r.States != 1<<10 || r.Calls != 2 || !r.Inodes[11] || !r.Inodes[12] {
			t.Errorf("%+v", r)
		}
	})
	t.Run("not to its end", func(t *testing.T) { dump(t, 0, inetRequestOf(6, 0), one) })
	t.Run("of another request", func(t *testing.T) { dump(t, 0, inetRequestOf(6, 0), netlinkMessage(typeDone, 2, 6, nil)) })
	t.Run("of one port", func(t *testing.T) { dump(t, 0, inetRequestOf(6, 22), one, end) })
	t.Run("filtered", func(t *testing.T) { dump(t, 0, inetRequestOf(6, 0, 8, 0, 1, 0, 0, 0, 0, 0), one, end) })
	t.Run("of another protocol", func(t *testing.T) { dump(t, 0, inetRequestOf(33, 0), one, end) })
	t.Run("interrupted", func(t *testing.T) {
		dump(t, 0, inetRequestOf(6, 0), netlinkMessage(typeByFamily, 0x12, 5, inetAnswerOf(11)), end)
	})
	t.Run("damaged", func(t *testing.T) { dump(t, 0, inetRequestOf(6, 0), one[:40], end) })
	t.Run("short", func(t *testing.T) {
		dump(t, 0, inetRequestOf(6, 0), netlinkMessage(typeByFamily, 2, 5, make([]byte, 8)), end)
	})
	t.Run("looked at first", func(t *testing.T) {
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendto", netlinkMessage(typeByFamily, 0x301, 5, inetRequestOf(17, 0)), nil)
		g.answer(f, "recvmsg", nil, func(a *tcg.Answer) { a.Args[2], a.Result = 0x22, 4096 })
		g.answer(f, "recvmsg", slices.Concat(one, end), nil)
		if rs := g.Readings(); len(rs) != 1 || rs[0].Table != "udp" {
			t.Errorf("%+v", rs)
		}
	})
	t.Run("several messages by one call", func(t *testing.T) {
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendto", netlinkMessage(typeByFamily, 0x301, 5, inetRequestOf(6, 0)), nil)
		g.answer(f, "recvmmsg", slices.Concat(one, end), func(a *tcg.Answer) { a.Args[3], a.Messages = peeks, 2 })
		if rs := g.Readings(); len(rs) != 0 {
			t.Errorf("only looked at: %+v", rs)
		}
		g.answer(f, "recvmmsg", slices.Concat(one, end), func(a *tcg.Answer) { a.Messages = 2 })
		if rs := g.Readings(); len(rs) != 1 || !rs[0].Inodes[11] || rs[0].Calls != 2 {
			t.Errorf("%+v", rs)
		}
	})
	t.Run("more messages than were fetched", func(t *testing.T) {
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendto", netlinkMessage(typeByFamily, 0x301, 5, inetRequestOf(6, 0)), nil)
		g.answer(f, "recvmmsg", slices.Concat(one, end), func(a *tcg.Answer) { a.Messages, a.Status = 16, syscall.Cut })
		if rs := g.Readings(); len(rs) != 0 {
			t.Errorf("%+v", rs)
		}
	})
	t.Run("a part went into a pipe", func(t *testing.T) {
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendto", netlinkMessage(typeByFamily, 0x301, 5, inetRequestOf(6, 0)), nil)
		g.answer(f, "splice", nil, func(a *tcg.Answer) { a.Result = 88 })
		g.answer(f, "recvmsg", slices.Concat(one, end), nil)
		if rs := g.Readings(); len(rs) != 0 {
			t.Errorf("%+v", rs)
		}
	})
	t.Run("interfaces", func(t *testing.T) {
		g, f := newKernel(), open1(1, magicSocket)
		f.Protocol = netlinkRoute
		request := append(make([]byte, interfaceHead), 8, 0, 29, 0, 9, 0, 0, 0) // IFLA_EXT_MASK
		request[0] = 17
		g.answer(f, "sendto", netlinkMessage(typeGetLink, 0x301, 5, request), nil)
		link := append(make([]byte, interfaceHead), 7, 0, 3, 0, 'l', 'o', 0, 0)
		g.answer(f, "recvmsg", slices.Concat(netlinkMessage(typeNewLink, 2, 5, link), end), nil)
		g.want(t, "lo")
	})
	t.Run("of a bridge's ports", func(t *testing.T) {
		if allLinks(append([]byte{7}, make([]byte, 15)...)) || allLinks(append(make([]byte, interfaceHead), 8, 0, 10, 0, 1, 0, 0, 0)) {
			t.Error("only some interfaces are asked for")
		}
	})
}

func TestBPF(t *testing.T) {
	for _, c := range []struct {
		command     uint64
		start, next uint32
		result      int64
		want        string
	}{
		{11, 3, 9, 0, "prog 3 9 false"},
		{11, 9, 0, -2, "prog 9 0 false"},
		{11, 9, 0, -1, ""}, // EPERM says nothing
		{31, 0, 4, 0, "link 0 4 false"},
		{13, 7, 0, -2, "prog 0 7 true"},
		{13, 7, 0, 5, ""},
		{5, 1, 2, 0, ""},
	} {
		g, f := newKernel(), open1(1, 0)
		b := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, c.start), c.next)
		g.answer(f, "bpf", b, func(a *tcg.Answer) { a.Args[0], a.Result, a.File = c.command, c.result, tcg.File{} })
		got := ""
		for _, r := range g.Readings() {
			got = fmt.Sprint(r.Objects, " ", r.After, " ", r.Next, " ", r.Only)
		}
		if got != c.want {
			t.Errorf("command %d: %q, want %q", c.command, got, c.want)
		}
	}
}

// TestBounds: what a guest makes of it, memory stays bounded.
func TestBounds(t *testing.T) {
	g := newKernel()
	for i := range 3 * maxOpen {
		g.answer(open1(int32(i), MagicProc, "modules", "/", "/"), "read", []byte("a 1\n"), nil)
	}
	if len(g.open) > maxOpen {
		t.Errorf("%d readings have begun", len(g.open))
	}
	for i := range 3 * maxRequests {
		f := open1(1, magicSocket)
		f.Protocol = netlinkDiag
		g.answer(f, "sendto", netlinkMessage(typeByFamily, 0x301, uint32(i), inetRequestOf(17, 0)), nil)
	}
	if len(g.requests) > maxRequests {
		t.Errorf("%d requests wait", len(g.requests))
	}
	f := open1(1, MagicProc, "/", "/", "/")
	for range 100 {
		f.Position = 0
		g.answer(f, "getdents64", dirents(".", "1"), nil)
		g.answer(f, "getdents64", nil, nil)
	}
	if n := len(g.Readings()); n != maxSame {
		t.Errorf("%d readings of one thing are kept", n)
	}
	for i := range 2 * maxKept {
		f := open1(int32(i), 0xef53, "etc", "/", "/")
		g.answer(f, "getdents64", dirents(".", "1"), nil)
		g.answer(f, "getdents64", nil, nil)
	}
	if n := len(g.Readings()); n > maxKept || g.dropped == 0 {
		t.Errorf("%d readings are kept, %d dropped", n, g.dropped)
	}
}
