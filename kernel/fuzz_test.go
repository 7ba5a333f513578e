package kernel

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
)

func TestParseVmcoreinfo(t *testing.T) {
	v := ParseVmcoreinfo([]byte("OSRELEASE=6.1\nSYMBOL(a)=ffffffff81000000\nNUMBER(x)=-5\nNUMBER(y)=0x10\nKERNELOFFSET=1a000000\nno value\n=x\n\nE=\nA=B=C\x00AFTER=1\n"))
	want := Vmcoreinfo{
		"OSRELEASE": "6.1", "SYMBOL(a)": "ffffffff81000000", "NUMBER(x)": "-5", "NUMBER(y)": "0x10",
		"KERNELOFFSET": "1a000000", "E": "", "A": "B=C",
	}
	if diff := cmp.Diff(want, v); diff != "" {
		t.Error(diff)
	}
	a, ok1 := v.Symbol("a")
	x, ok2 := v.Number("x")
	y, ok3 := v.Number("y")
	off, ok4 := v.KernelOffset()
	if a != 0xffffffff81000000 || x != -5 || y != 16 || off != 0x1a000000 || !ok1 || !ok2 || !ok3 || !ok4 {
		t.Errorf("%#x %d %d %#x", a, x, y, off)
	}
	if _, ok := v.Symbol("b"); ok {
		t.Error("b")
	}
	if _, ok := v.Number("b"); ok {
		t.Error("b")
	}
	if _, ok := Vmcoreinfo(nil).KernelOffset(); ok {
		t.Error("an offset in nothing")
	}
}

func FuzzParseVmcoreinfo(f *testing.F) {
	f.Add([]byte(synth.New(synth.Options{}).Vmcoreinfo()))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := ParseVmcoreinfo(b)
		n := 0
		for key, value := range v {
			n += len(key) + len(value)
			v.Symbol(key)
			v.Number(strings.TrimSuffix(strings.TrimPrefix(key, "NUMBER("), ")"))
		}
		v.KernelOffset()
		if n > maxVmcoreinfo {
			t.Errorf("%d bytes", n)
		}
	})
}

func TestBuildID(t *testing.T) {
	other := append([]byte{4, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0}, "Xen\x00ab\x00\x00"...)
	id := append([]byte{4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0}, "GNU\x00\xab\xcd\xef\x00"...)
	for _, c := range []struct {
		notes []byte
		want  string
	}{
		{nil, ""},
		{id, "abcdef"},
		{slices.Concat(other, other, id), "abcdef"},
		{other, ""},
		{id[:len(id)-1], ""},
		{append([]byte{255, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0, 0}, id...), ""},
	} {
		if got := buildID(c.notes); got != c.want {
			t.Errorf("% x: %q", c.notes, got)
		}
	}
}

func FuzzBuildID(f *testing.F) {
	f.Add(append([]byte{4, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0}, "GNU\x00\xab\xcd\xef\x00"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id := buildID(b); len(id) > 2*min(64, len(b)) {
			t.Error(id)
		}
	})
}

// FuzzFind changes a guest's image and variables: edits are a part of the image, a
// place in it, and a value.
func FuzzFind(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 0, 0})
	f.Add(uint8(4), []byte{1, 0x40, 0, 0xff, 2, 0, 8, 7})
	f.Add(uint8(2), []byte{2, 0x30, 0xf8, 0})
	f.Fuzz(func(t *testing.T, layout uint8, edits []byte) {
		g := synth.New(synth.Options{Layout: synth.Layouts()[layout%5], Levels: 4 + int(layout/5%2), TextPA: 4 << 20, RAM: 24 << 20})
		g.Add(synth.Process{PID: 1, Comm: "x"})
		for ; len(edits) >= 4; edits = edits[4:] {
			at := phys.Addr(edits[0]%3)<<21 + phys.Addr(edits[1])<<9 + phys.Addr(edits[2])<<1
			g.Memory.Bytes(g.TextPA+at, edits[3])
		}
		k, err := Find(t.Context(), g.Memory, Options{})
		if err != nil {
			return
		}
		_, _ = k.Clock()
		_, _ = k.Field("task_struct", "comm")
		_ = k.State.String()
		k.PhysBase()
	})
}
