package planted

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/trace/tcg"
)

// TestTracepointProgram fetches arguments, members behind pointers, a bit field and texts; what a null pointer hides is 0.
func TestTracepointProgram(t *testing.T) {
	m := newMachine(t, 1)
	m.process()
	r, err := newReader(m.ring, m.ring.shape)
	if err != nil {
		t.Fatal(err)
	}
	object := make([]byte, 0x40)
	m.kernel[testChild] = object
	le.PutUint64(object[8:], testBinary)
	le.PutUint32(object[16:], 0xdeadbeef)
	le.PutUint64(object[24:], 0b1011<<40|7)
	copy(object[32:], "inline")
	m.kernel[testBinary] = append([]byte(strings.Repeat("x", 300)), 0)
	p := &tcg.Tracepoint{Name: "thing", Values: []tcg.Value{
		{Argument: 0, Size: 4},
		{Argument: 1, Memory: true, Offset: 16, Size: 4},
		{Argument: 1, Memory: true, Offset: 24, Size: 8, Shift: 40, Width: 4},
		{Argument: 2, Memory: true, Steps: []uint64{8}, Offset: 4, Size: 8},
		{Argument: 1, Memory: true, Offset: 32, Text: true, Tag: 3},
		{Argument: 1, Memory: true, Steps: []uint64{8}, Text: true, Tag: 4},
		{Argument: 2, Memory: true, Text: true, Tag: 5},
	}}
	m.run(testLayout.tracepoint(minArea, 2, p), 0xffffffff_00000007, testChild, 0)
	all, items := m.records(r)
	if len(all) != 1 {
		t.Fatalf("%d records", len(all))
	}
	rec := all[0]
	if rec.Probe != tcg.TracepointID(2) || rec.Word(0) != testTask || rec.Word(1) != 41<<32|42 || rec.Word(3) != 7777 {
		t.Errorf("probe %d, words %#x %#x %d", rec.Probe, rec.Word(0), rec.Word(1), rec.Word(3))
	}
	for i, want := range []uint64{7, 0xdeadbeef, 0b1011, 0} {
		if got := rec.Word(tcg.DoorWords + i); got != want {
			t.Errorf("value %d is %#x, not %#x", i, got, want)
		}
	}
	want := fmt.Sprintf(`[3:"inline":0 4:"%s":1 5:"":2]`, strings.Repeat("x", maxTextOf))
	if got := fmt.Sprint(items[0]); got != want {
		t.Errorf("items %s, not %s", got, want)
	}
}
