package tcg

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

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
	j := &joiner{}
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
		{"a path with mounts", (*joiner).doorMount, trace.KindUnmount, doorOf([]uint64{0}, path("c", "b", "a")...), "/a/b/c"},
		{"the root", (*joiner).doorMount, trace.KindUnmount, doorOf([]uint64{0}, path()...), "/"},
		{"a path that goes on", (*joiner).doorMount, trace.KindUnmount, doorOf([]uint64{0}, fmt.Sprint(tagPath), "z"), "…/z"},
		{"a bind mount", (*joiner).doorMount, trace.KindMount, doorOf([]uint64{4096}, append(path("b"), "0", "/a")...), "bind /a on /b"},
		{"a mount", (*joiner).doorMount, trace.KindMount, doorOf([]uint64{0}, append(path("b"), "0", "none", "1", "tmpfs")...), "none on /b type tmpfs"},
	} {
		e := trace.Event{Kind: c.kind}
		c.read(j, &e, c.r)
		if got := e.What(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
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

// FuzzDoorEvents makes events of records of any content: of a guest that lies in each word, and of records that were cut off.
func FuzzDoorEvents(f *testing.F) {
	f.Add(uint8(0), []byte("\x01\x00\x00\x00\x00\x00\x00\x00"), []byte("a\x00b\x00"), []byte("memfd:x"))
	f.Add(uint8(5), []byte("\x11\x00\x00\x00\x00\x00\x00\x00"), []byte("\x0a\x00\x00\x35"), []byte{})
	f.Add(uint8(17), []byte("\x01\x00\x00\x00\x00\x00\x00\x00"), []byte("x"), []byte("../\x1b[0m"))
	f.Fuzz(func(t *testing.T, which uint8, words, text, name []byte) {
		d := &doors[int(which)%len(doors)]
		var list []uint64
		for i := 0; i+8 <= len(words) && len(list) < 64; i += 8 {
			list = append(list, binary.LittleEndian.Uint64(words[i:]))
		}
		r := doorOf(list, "0", string(text), "1", string(text), fmt.Sprint(tagPath), string(name), fmt.Sprint(tagOther), string(name))
		r.data[1].status = syscall.Status(which % 3)
		j := &joiner{processes: trace.NewProcesses(nil), mounted: map[virt.Addr]string{virt.Addr(r.word(0)): "/var"}}
		e := trace.Event{Kind: d.kind, Name: d.name, Process: &trace.Process{PID: 1, Comm: string(name)}}
		d.read(j, &e, r)
		trace.NewSensors().Mark(&e)
		if line := e.AppendLine(nil, time.UTC); bytes.ContainsAny(line, "\n\x1b") {
			t.Errorf("%s: %q", d.function, line)
		}
	})
}
