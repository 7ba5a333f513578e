package tcg

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux/peek"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
	"github.com/outsight-vmi/outsight/virt"
)

// TestDoorPrograms assembles the program of each door: every jump leads ahead, and words come before items.
func TestDoorPrograms(t *testing.T) {
	for i, d := range doors {
		c := &compiler{Assembler: &plugin.Assembler{}, limit: 32}
		c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: 1, ID: uint16(idDoor + i)})
		d.write(c, &doorLayout{truncate: [2]string{"rsi", "rdx"}})
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", d.function, err)
		}
		if !isDoor(uint16(idDoor+i)) || isTerminal(uint16(idDoor+i)) {
			t.Errorf("%s: its mark is another's", d.function)
		}
	}
	if isDoor(idDoor-1) || isDoor(uint16(idDoor+len(doors))) {
		t.Error("marks beyond the last door are doors'")
	}
}

// record is one that a door's program could have made.
func doorOf(words []uint64, items ...string) *doorRecord {
	c := &call{words: append(make([]uint64, doorWords), words...)}
	for i := 0; i+1 < len(items); i += 2 {
		var tag uint8
		fmt.Sscan(items[i], &tag)
		from := len(c.bytes)
		c.bytes = append(c.bytes, items[i+1]...)
		c.data = append(c.data, piece{tag, syscall.Whole, from, len(c.bytes)})
	}
	r := &doorRecord{call: c}
	r.text = r.item(0)
	return r
}

func TestDoorEvents(t *testing.T) {
	path := func(names ...string) (items []string) {
		for _, n := range names {
			items = append(items, fmt.Sprint(tagPath), n)
		}
		return append(items, fmt.Sprint(tagWhole), "")
	}
	j := &joiner{mounts: mounts{first: 1}, refusable: refusableCalls([2][]*syscall.Call{syscall.Table(syscall.ABI64), syscall.Table(syscall.ABI32)})}
	for _, c := range []struct {
		name string
		read func(j *joiner, e *trace.Event, r *doorRecord)
		kind trace.Kind
		r    *doorRecord
		want string
	}{
		{"killed with its group", (*joiner).doorExit, trace.KindExit, doorOf([]uint64{0x300, 4, 9}), "killed by SIGKILL"},
		{"own status", (*joiner).doorExit, trace.KindExit, doorOf([]uint64{0x300, 0, 9}), "status 3"},
		{"a record that was cut off", (*joiner).doorExit, trace.KindExit, doorOf(nil), "status 0"},
		{"TCP", (*joiner).doorSocket, trace.KindConnect, doorOf([]uint64{familyInet, protocolTCP, 40000, 0x5000, 0x0100007f, 0x0200000a}), "tcp 127.0.0.1:40000->10.0.0.2:80"},
		{"TCP that waits", (*joiner).doorSocket, trace.KindListen, doorOf([]uint64{familyInet6, protocolTCP, 22, 0x5000, 0, 0, 0, 0, 1, 1}), "tcp [::]:22"},
		{"vsock", (*joiner).doorSocket, trace.KindListen, doorOf([]uint64{familyVsock, 0, 22}), "vsock"},
		{"UDP", (*joiner).doorConnect, trace.KindConnect, doorOf([]uint64{17}, "0", "\x02\x00\x00\x35\x0a\x00\x00\x01"), "udp ->10.0.0.1:53"},
		{"UDP, bound", (*joiner).doorConnect, trace.KindListen, doorOf([]uint64{17}, "0", "\x02\x00\x00\x35\x0a\x00\x00\x01"), "udp 10.0.0.1:53"},
		{"an address that is too short", (*joiner).doorConnect, trace.KindConnect, doorOf([]uint64{17}, "0", "\x02\x00\x00"), "udp"},
		{"packets", (*joiner).doorRaw, trace.KindListen, doorOf([]uint64{familyPacket, 0x0300}), "packet 0x0003"},
		{"a path with mounts", (*joiner).doorUnmount, trace.KindUnmount, doorOf([]uint64{0}, path("c", "b", "a")...), "/a/b/c"},
		{"the root", (*joiner).doorUnmount, trace.KindUnmount, doorOf([]uint64{0}, path()...), "/"},
		{"a path that goes on", (*joiner).doorUnmount, trace.KindUnmount, doorOf([]uint64{0}, fmt.Sprint(tagPath), "z"), "…/z"},
		{"a bind mount", (*joiner).doorMount, trace.KindMount, doorOf([]uint64{1, 4096}, append(path("b"), "0", "/a")...), "bind /a on /b"},
		{"a mount in a sandbox", (*joiner).doorMount, trace.KindMount, doorOf([]uint64{2, 4096}, append(path("b"), "0", "/a")...), "bind /a on /b in mount namespace 2"},
		{"an unmount in a sandbox", (*joiner).doorUnmount, trace.KindUnmount, doorOf([]uint64{2, 0}, path("b")...), "/b in mount namespace 2"},
		{"a mount", (*joiner).doorMount, trace.KindMount, doorOf([]uint64{1, 0}, append(path("b"), "0", "none", "1", "tmpfs")...), "none on /b type tmpfs"},
		{"code", (*joiner).doorCode, trace.KindNewCode, doorOf([]uint64{codeAnonymous, 0x7000, 0x9000, 7}), "[anon] at 0x7000, 8192 bytes, rwxp"},
		{"code in a memfd", (*joiner).doorCode, trace.KindNewCode, doorOf([]uint64{codeNameless, 0x7000, 0x8000, 0xd, 1, 1, 2}, path("memfd:x")...), "/memfd:x (deleted) at 0x7000, 4096 bytes, r-xs"},
		{"code of no sort", (*joiner).doorCode, trace.KindNewCode, doorOf([]uint64{99}), "[anon] at 0x0, 0 bytes, ---p"},
		{"a refused call", (*joiner).doorRefused, trace.KindRefused, doorOf([]uint64{105, 0xffffffff, 0}), "setuid(0) = -1 EPERM (Operation not permitted)"},
		{"one of 32 bits", (*joiner).doorRefused, trace.KindRefused, doorOf([]uint64{1<<32 | 213, 0xfffffff3, 7}), "setuid32(7) = -1 EACCES (Permission denied)"},
		{"one that nobody asked for", (*joiner).doorRefused, trace.KindRefused, doorOf([]uint64{1, 0xffffffff}), "syscall_0x1()"},
		{"one of no ABI", (*joiner).doorRefused, trace.KindRefused, doorOf([]uint64{1<<63 | 105, 0xffffffff}), "syscall_0x69()"},
	} {
		e := trace.Event{Kind: c.kind}
		c.read(j, &e, c.r)
		if got := e.What(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// Code is reported once; that of the next program of the process again.
	for execs := range 2 {
		for _, dropped := range []bool{false, true} {
			r := doorOf([]uint64{codeHeap, 0x7000, 0x9000, 7, 5, uint64(execs)})
			j.doorCode(&trace.Event{}, r)
			if r.drop != dropped {
				t.Errorf("after %d programs, again %v: dropped %v", execs, dropped, r.drop)
			}
		}
	}
	// A program without arguments, and one in a memfd.
	var e trace.Event
	j.doorExec(&e, doorOf([]uint64{0, 9}, append(path("memfd:x"), "1", "a\x00b c\x00")...))
	if e.Args != "a 'b c'" || e.Object != "/memfd:x"+trace.Deleted || !strings.HasPrefix(e.Process.Exe, "/memfd:x") {
		t.Errorf("%+v", e)
	}
	e = trace.Event{}
	if j.doorExec(&e, doorOf([]uint64{1, 0}, path("init")...)); e.Args != "" || e.Object != "/init" {
		t.Errorf("%+v", e)
	}
}

// TestRefusable compiles the door of refused calls with all of them, as it is for a guest, and has each call in the tables of the ABI that has it.
func TestRefusable(t *testing.T) {
	calls := refusableCalls([2][]*syscall.Call{syscall.Table(syscall.ABI64), syscall.Table(syscall.ABI32)})
	for abi, without := range [2][]string{{"umount"}, {"kexec_file_load"}} {
		for _, name := range refusable {
			has := slices.ContainsFunc(calls[abi], func(c *syscall.Call) bool { return c != nil && strings.TrimSuffix(c.Name, "32") == name })
			if has == slices.Contains(without, name) {
				t.Errorf("ABI %d has %s: %v", abi, name, has)
			}
		}
	}
	c := &compiler{Assembler: &plugin.Assembler{}, limit: 32, calls: calls}
	c.Probe(plugin.Probe{Where: plugin.AtAddress, Address: 1, ID: idDoor})
	c.doorRefused(&doorLayout{})
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestDoorCreds: who becomes root is accused only if the function that committed the credentials is known.
func TestDoorCreds(t *testing.T) {
	const ids = len(doorLayout{}.ids)
	user, root := make([]uint64, ids+4), make([]uint64, ids+4)
	for i := range ids {
		user[i] = 1000
	}
	record := func(caller uint64) []uint64 { return slices.Concat([]uint64{caller}, user, root) }
	for name, words := range map[string][]uint64{"no names": record(0xffffffff81000000), "no caller": record(0)} {
		j := &joiner{}
		j.init(nil, Options{})
		e := trace.Event{Kind: trace.KindCreds}
		j.doorCreds(&e, doorOf(words))
		if want := "became root; it is unknown whether by running a program that is set-user-ID or has capabilities"; e.Note != want {
			t.Errorf("%s: note %q", name, e.Note)
		}
		if len(e.Fields) != ids {
			t.Errorf("%s: %q, of %d ids", name, e.Fields, ids)
		}
	}
	var e trace.Event
	j := &joiner{}
	j.init(nil, Options{})
	j.names = &peek.Placer{} // which has no say on an address of a program
	j.doorCreds(&e, doorOf(record(0x7f0000001000)))
	if want := "became root, which it had no right to, without running another program"; e.Note != want || e.Name != "0x7f0000001000" {
		t.Errorf("by code of a program: %s, note %q", e.Name, e.Note)
	}
	e = trace.Event{}
	if j.doorCreds(&e, doorOf(record(0)[:ids])); e.Note != "" {
		t.Errorf("a record that was cut off: note %q", e.Note)
	}
}

// FuzzDoorEvents makes events of records of any content, as the plugin's ring has them: of a guest that lies in each word, and of
// records that were cut off. No process is known, and the file systems are only where which is odd.
func FuzzDoorEvents(f *testing.F) {
	head := func(own ...uint64) (words []byte) {
		for _, w := range append([]uint64{0xffff888001234000, 324<<32 | 324, 0, 5e9, 1, 0}, own...) {
			words = le.AppendUint64(words, w)
		}
		return words
	}
	f.Add(uint8(0), head(1), []byte("a\x00b\x00"), []byte("memfd:x"))
	f.Add(uint8(5), head(17), []byte("\x0a\x00\x00\x35"), []byte{})
	f.Add(uint8(17), head(1), []byte("x"), []byte("../\x1b[0m"))
	f.Add(uint8(2), head()[:8], []byte("x"), []byte{})                        // a task, and nothing behind it
	f.Add(uint8(15), head(0xffff888001235000), []byte("x"), []byte("syslog")) // a file system that is unknown
	const size = 1 << 20
	records, mem, _ := fakePlugin(f, emptyProgram(), size)
	ring := testRing{mem: mem[4096:], size: size}
	gone, cancel := context.WithCancel(f.Context()) // no guest can be asked
	cancel()
	f.Fuzz(func(t *testing.T, which uint8, words, text, name []byte) {
		index := int(which) % len(doors)
		d := &doors[index]
		var list []uint64
		for i := 0; i+8 <= len(words) && len(list) < 64; i += 8 {
			list = append(list, binary.LittleEndian.Uint64(words[i:]))
		}
		text, name = text[:min(len(text), maxDoorText)], name[:min(len(name), maxName)]
		items := []ringItem{{0, 0, text}, {1, which % 3, text}, {tagPath, 0, name}, {tagOther, 0, name}, {tagComm, 0, name}}
		ring.put(uint16(idDoor+index), uint16(which)<<8&plugin.Truncated, list, items)
		var rec plugin.Record
		if err := records.Wait(t.Context(), &rec, time.Minute); err != nil {
			t.Fatal(err)
		}
		j := &joiner{}
		j.init(nil, Options{})
		j.kinds = Kinds()
		if which%2 == 1 && len(list) > doorWords {
			j.mounts.at = map[virt.Addr]string{virt.Addr(list[doorWords]): "/var"}
		}
		j.take(gone, records, &rec)
		c := j.queued()
		if c == nil {
			if d.kind != trace.KindConnect && d.kind != trace.KindListen {
				t.Fatalf("%s: no event", d.function)
			}
			return
		}
		var e trace.Event
		j.fill(&e, c)
		trace.NewSensors().Mark(&e)
		if line := e.AppendLine(nil, time.UTC); bytes.ContainsAny(line, "\n\x1b") {
			t.Errorf("%s: %q", d.function, line)
		}
	})
}

// testRing writes records into the ring of a [fakePlugin].
type testRing struct {
	mem            []byte // its head, and a page behind it the records
	size           uint64
	head, sequence uint64
}

type ringItem struct {
	tag, status uint8
	data        []byte
}

func (g *testRing) put(probe, flags uint16, words []uint64, items []ringItem) {
	b := make([]byte, 32)
	for _, w := range words {
		b = le.AppendUint64(b, w)
	}
	for _, i := range items {
		b = le.AppendUint32(b, uint32(len(i.data)))
		b = append(append(b, i.tag, i.status, 0, 0), i.data...)
		b = append(b, make([]byte, -len(b)&7)...)
	}
	le.PutUint32(b, uint32(len(b)))
	le.PutUint16(b[4:], probe)
	le.PutUint16(b[6:], flags)
	le.PutUint64(b[8:], g.sequence)
	le.PutUint64(b[16:], 1e9)
	le.PutUint32(b[24:], uint32(len(words)))
	data := g.mem[4096:]
	if rest := g.size - g.head%g.size; rest < uint64(len(b)) {
		le.PutUint32(data[g.head%g.size:], uint32(rest))
		le.PutUint16(data[g.head%g.size+6:], 0x8000)
		g.head += rest
	}
	copy(data[g.head%g.size:], b)
	g.head += uint64(len(b))
	g.sequence++
	le.PutUint64(g.mem, g.head)
}
