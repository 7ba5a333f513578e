package text

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// Where code of these tests stands, and what it was written for.
const (
	here      = 0xffffffff81001000
	elsewhere = 0xffffffff83000000
	thunk     = 0xffffffff81f00000 // for %r11
	thunkRAX  = 0xffffffff81f00020
	returns   = 0xffffffff81f00100
)

// code makes bytes of hex digits, in which "@ADDRESS" is the 32-bit distance to ADDRESS
// from its own end, for code that stands at at.
func codeAt(t *testing.T, at uint64, text string) (b []byte) {
	t.Helper()
	for _, word := range strings.Fields(text) {
		if to, ok := strings.CutPrefix(word, "@"); ok {
			target := map[string]uint64{"thunk": thunk, "rax": thunkRAX, "return": returns, "far": 0xffffffff82000000, "near": here + 0x40, "other": 0xffffffff82000010}[to]
			b = binary.LittleEndian.AppendUint32(b, uint32(target-(at+uint64(len(b))+4)))
			continue
		}
		x, err := hex.DecodeString(word)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, x...)
	}
	return b
}

func TestSame(t *testing.T) {
	ref := &Reference{start: here, end: here + 0x2000000, names: names{
		returns: map[uint64]bool{returns: true}, thunks: map[uint64]uint8{thunk: 11, thunkRAX: 0},
	}}
	x := &Text{ref: ref}
	x.state = newState(x)
	w := &worker{t: x}
	for _, c := range []struct {
		name, got, ref string
		want           bool
	}{
		{"nothing but padding", "0f1f440000", "", true},
		{"nops of another form", "0f01ca 662e0f1f840000000000", "0f01ca 9090909090909090 9090", true},
		{"a nop of nobody's", "0f1f440001", "", false},
		{"pause", "f390", "", false},
		{"an instruction more", "0f01ca 0f01cb", "0f01ca 909090", false},
		{"an instruction less", "909090", "0f01ca", false},
		{"a call that was moved", "e8 @far", "e8 @far", true},
		{"a call of another", "e8 @other", "e8 @far", false},
		{"a jump that was shortened", "eb 3e cccccc", "e9 @near", true},
		{"a jump to another place", "eb 3d cccccc", "e9 @near", false},
		{"int3 that is run", "0f01ca cc", "0f01ca 90", false},
		{"an operand that was moved", "488b05 @far", "488b05 @far", true},
		{"another operand", "488b05 @other", "488b05 @far", false},
		{"another register", "488b0d @far", "488b05 @far", false},
		{"a jump within", "7403 0f01ca c3 cc", "7403 0f01ca e9 @return", true},
		{"a jump over padding", "0f01ca eb0c cccccccccccccccccccccccc", "0f01ca 90", true},
		{"a jump over code", "0f01ca eb02 0f05", "0f01ca 90", false},
		{"a jump out of the place", "0f01ca eb7f cc", "0f01ca 90", false},
		{"a lock", "3e ff00", "f0 ff00", true},
		{"another prefix", "65 ff00", "f0 ff00", false},
		{"a return thunk", "c3 cccccccc", "e9 @return", true},
		{"a return", "e9 @return", "c3", true},
		{"no return", "90 90909090", "e9 @return", false},
		{"a branch without retpoline", "41ffd3 9090", "e8 @thunk", true},
		{"the same behind lfence", "0faee8 41ffd3", "2e e8 @thunk", true},
		{"by another register", "41ffd2 9090", "e8 @thunk", false},
		{"a jump instead of a call", "41ffe3 9090", "e8 @thunk", false},
		{"a jump without retpoline", "ffe0 cccccc", "e9 @rax", true},
		{"the thunk itself", "e8 @thunk", "2e e8 @thunk", true},
		{"a conditional one", "7503 41ffe3 90", "0f84 @thunk", true},
		{"the other condition", "7403 41ffe3 90", "0f84 @thunk", false},
		{"cut off", "e8 0000", "e8 @far", false},
		{"no code", "06 06", "06 06", false},
	} {
		if got := w.same(codeAt(t, here, c.got), here, codeAt(t, elsewhere, c.ref), elsewhere, true); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	got, want := codeAt(t, here, "0faee8 41ffd3"), codeAt(t, elsewhere, "2e e8 @thunk")
	if n := testing.AllocsPerRun(10, func() { w.same(got, here, want, elsewhere, true) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzSame(f *testing.F) {
	ref := &Reference{start: here, end: here + 0x2000000, names: names{returns: map[uint64]bool{returns: true}, thunks: map[uint64]uint8{thunk: 11}}}
	x := &Text{ref: ref}
	x.state = newState(x)
	w := &worker{t: x}
	f.Add([]byte("\xe8\x00\x00\x00\x00"), []byte("\x2e\xe8\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, got, want []byte) {
		w.same(got[:min(len(got), 255)], here, want[:min(len(want), 255)], elsewhere, false)
		if len(want) > 0 && len(want) < 256 && w.same(nil, here, want, elsewhere, false) && skipNops(want, 0, false) != len(want) {
			t.Fatalf("% x is nothing", want)
		}
	})
}
