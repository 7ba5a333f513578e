package plant

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/arch/x86/x86asm"

	"github.com/outsight-vmi/outsight/virt"
)

var testPlaces = &places{
	code: 0xffffffff81403000, mailbox: 0xffffffff82fff000, slot: 0xffffffff82359db8, original: 0xffffffff8134d5e0, sysBPF: 0xffffffff81280260, closeFD: 0xffffffff81463a70,
}

// TestBlob reads the blob as a processor does, and follows it: every byte is of an instruction, jumps stay within, calls
// go to the three functions, and the stack is as it was wherever it leaves.
func TestBlob(t *testing.T) {
	code, err := blob(testPlaces)
	if err != nil {
		t.Fatal(err)
	}
	if len(code) > blobRoom {
		t.Fatalf("%d bytes", len(code))
	}
	if !bytes.HasPrefix(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) {
		t.Error("it does not begin with endbr64")
	}
	starts, targets := map[int]bool{}, map[int]bool{}
	var called []virt.Addr
	pushed, depth := []string{}, 0
	for at := 4; at < len(code); {
		i, err := x86asm.Decode(code[at:], 64)
		if err != nil {
			t.Fatalf("at %d: %v", at, err)
		}
		starts[at] = true
		next := at + i.Len
		switch i.Op {
		case x86asm.PUSH:
			pushed = append(pushed, i.Args[0].String())
		case x86asm.POP:
			if n := len(pushed); n == 0 || pushed[n-1] != i.Args[0].String() {
				t.Errorf("at %d: pop %v of %v", at, i.Args[0], pushed)
			} else {
				pushed = pushed[:n-1]
			}
		case x86asm.SUB, x86asm.ADD:
			if i.Args[0] == x86asm.RSP {
				n := int(i.Args[1].(x86asm.Imm))
				if i.Op == x86asm.SUB {
					depth += n
				} else {
					depth -= n
				}
			}
		case x86asm.CALL:
			called = append(called, testPlaces.code+virt.Addr(int64(next)+int64(i.Args[0].(x86asm.Rel))))
			// A function may expect it so: return address, seven registers, and the frame.
			if (8+8*len(pushed)+depth)%16 != 0 {
				t.Errorf("at %d: the stack is not aligned", at)
			}
		case x86asm.JMP, x86asm.JE, x86asm.JNE, x86asm.JAE, x86asm.JS:
			to := next + int(i.Args[0].(x86asm.Rel))
			if next == len(code) {
				if a := testPlaces.code + virt.Addr(int64(to)); a != testPlaces.original {
					t.Errorf("it goes on to %#x", uint64(a))
				}
				break
			}
			targets[to] = true
		}
		at = next
	}
	if len(pushed) != 0 || depth != 0 {
		t.Errorf("it leaves %v and %d bytes on the stack", pushed, depth)
	}
	if want := []virt.Addr{testPlaces.sysBPF, testPlaces.closeFD}; !slices.Equal(called, want) {
		t.Errorf("it calls %#x, expected %#x", called, want)
	}
	for to := range targets {
		if !starts[to] {
			t.Errorf("a jump to %d, into an instruction", to)
		}
	}
	far := *testPlaces
	far.sysBPF = 0xffffc90000000000
	if _, err := blob(&far); err == nil {
		t.Error("a call beyond 2 GiB is no error")
	}
}

func TestMailbox(t *testing.T) {
	m := &mailbox{
		state: stateDone, serial: 7, job: 1, steps: 3, err: -1, id: [16]byte{1, 2}, when: time.Unix(1, 5), code: 0xffffffff81403000, data: 2, removal: 3,
		codeSize: 4, dataSize: 5, shape: shape{2, 3, 2}, sum: 6, objects: []int32{0, 1, 2, -1, 4, 5, 6},
	}
	got, err := parseMailbox(m.encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.encode(), m.encode()) || !slices.Equal(got.objects, m.objects) || got.shape != m.shape || !got.when.Equal(m.when) {
		t.Errorf("%+v\nexpected\n%+v", got, m)
	}
	b := m.encode()
	b[atVersion]++
	if _, err := parseMailbox(b); err == nil || !strings.Contains(err.Error(), "version 3") {
		t.Errorf("another version: %v", err)
	}
}

func FuzzMailbox(f *testing.F) {
	f.Add((&mailbox{objects: []int32{1, 2, 3}, shape: shape{1, 1, 1}}).encode())
	f.Add((&mailbox{objects: []int32{1, 2, 3, 4, 5}, shape: shape{2, 2, 1}}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMailbox(b)
		if err == nil && (len(m.objects) >= maxObjects || len(m.objects) != m.shape.objects() || m.shape.links > m.shape.programs) {
			t.Errorf("%d objects of %+v", len(m.objects), m.shape)
		}
	})
}

// TestRemovalComesFirst: what removes is the same bytes at the same place, whatever is planted.
func TestRemovalComesFirst(t *testing.T) {
	types := func(*Program) (uint32, error) { return 1, nil }
	code := bytes.Repeat([]byte{0x95, 0, 0, 0, 0, 0, 0, 0}, 9)
	l := Load{Ring: Ring{Name: "outsight_ring", Elements: 1, Size: 64}, Tables: 1, Programs: []Program{
		{Name: "outsight_a", Function: "x", Code: code}, {Name: "outsight_b", Function: "y", Code: code}, {Name: "outsight_c", Tracepoint: "z", Code: code[8:]},
	}}
	d, err := l.encode(0xffffffff81404000, testPlaces.mailbox, types)
	if err != nil {
		t.Fatal(err)
	}
	alone := &data{at: d.at}
	if at := alone.job(closing(shape{2, 3, 2})); at != d.removal || !bytes.HasPrefix(d.b, alone.b) {
		t.Errorf("it is at %#x, expected %#x", uint64(d.removal), uint64(at))
	}
	if n := bytes.Count(d.b, code); n != 1 {
		t.Errorf("the same code is there %d times", n)
	}
	// Each step of the planting has its descriptor where the mailbox has the object of that kind.
	for i, want := range []string{
		"create the ring", "freeze the ring", "create the table", "load program outsight_a", "put program", "freeze the table", "load program outsight_b",
		"load program outsight_c", "attach program outsight_b to function y", "attach program outsight_c to tracepoint z",
	} {
		if i >= len(d.what) || !strings.HasPrefix(d.what[i], want) {
			t.Errorf("step %d of %q is not to %s", i, d.what, want)
		}
	}
	for _, bad := range []Load{
		{Ring: l.Ring, Tables: 4, Programs: l.Programs},
		{Ring: l.Ring},
		{Programs: l.Programs},
		{Ring: l.Ring, Programs: []Program{{Name: "outsight_with_a_long_name", Tracepoint: "x", Code: code}}},
		{Ring: l.Ring, Programs: []Program{{Name: "outsight_a", Tracepoint: "x", Code: code[:9]}}},
	} {
		if _, err := bad.encode(d.at, testPlaces.mailbox, types); err == nil {
			t.Errorf("%+v is no error", bad)
		}
	}
}
