package text

import (
	"bytes"
	"encoding/binary"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/virt"
	"github.com/outsight-vmi/outsight/virt/x86"
)

// Replaced code is not compared byte by byte: how a kernel shortens jumps and which nops
// it pads with differs from version to version. It is the same if the instructions are,
// nops aside, and lead to the same addresses.

// same reports whether got, which stands at at, does what ref does, which was written for
// refAt. With indirect, a call through a pointer of pv_ops may be a direct one of what
// the pointer holds.
func (w *worker) same(got []byte, at uint64, ref []byte, refAt uint64, indirect bool) bool {
	c := &code{w: w, got: got, at: at, ref: ref, refAt: refAt, indirect: indirect}
	for {
		c.i, c.j = skipNops(got, c.i, c.ended), skipNops(ref, c.j, c.ended)
		if c.j == len(ref) || c.jumpsToEnd(ref, c.j, c.target) {
			return c.i == len(got) || c.jumpsToEnd(got, c.i, c.gotTarget)
		}
		if c.i == len(got) || !c.step() {
			return false
		}
	}
}

// jumpsToEnd reports whether what is left of b from i on is a jump, which leads to to, and
// padding: nothing, if that is the end of the place.
func (c *code) jumpsToEnd(b []byte, i int, to func(b []byte, s x86.Shape) uint64) bool {
	if i == len(b) {
		return false
	}
	s, ok := x86.ShapeOf(b[i:])
	return ok && s.RelLen > 0 && (b[i+s.Opcode] == 0xe9 || b[i+s.Opcode] == 0xeb) && skipNops(b, i+s.Len, true) == len(b) &&
		to(b[i:], s) == c.at+uint64(len(c.got))
}

func (c *code) gotTarget(g []byte, s x86.Shape) uint64 { return c.gotEnd(s.Len) + distance(g, s) }

// code is two pieces of code of which the first i and j bytes agree.
type code struct {
	w         *worker
	got, ref  []byte
	at, refAt uint64
	i, j      int
	indirect  bool
	ended     bool // the last instruction does not go on to the next
}

// skipNops passes over what does nothing: nops, int3 behind a jump or return, and a jump
// over int3 (add_nop since 6.5, for padding that is long).
func skipNops(b []byte, i int, ended bool) int {
	for i < len(b) {
		if ended && b[i] == 0xcc {
			i++
			continue
		}
		if target, ok := overPadding(b, i); ok {
			i = target
			continue
		}
		n := nopLen(b[i:])
		if n == 0 {
			break
		}
		i += n
	}
	return i
}

func overPadding(b []byte, i int) (target int, ok bool) {
	var next int
	switch {
	case b[i] == 0xeb && i+2 <= len(b):
		next, target = i+2, i+2+int(int8(b[i+1]))
	case b[i] == 0xe9 && i+5 <= len(b):
		next, target = i+5, i+5+int(int32(binary.LittleEndian.Uint32(b[i+1:])))
	default:
		return 0, false
	}
	if target <= next || target > len(b) {
		return 0, false
	}
	for _, c := range b[next:target] {
		if c != 0xcc {
			return 0, false
		}
	}
	return target, true
}

// nopLen is the length of the nop at the start of b, 0 if there is none. The long ones of
// compilers and kernels name no place but 0(%rax,%rax): others are as idle, but not
// anybody's.
func nopLen(b []byte) int {
	s, ok := x86.ShapeOf(b)
	if !ok || !s.IsNop(b) {
		return 0
	}
	for i := s.Opcode + 3; i < s.Len; i++ {
		if b[i] != 0 {
			return 0
		}
	}
	return s.Len
}

// isNop reports whether code is one nop, of whatever encoding.
func isNop(code []byte) bool { return nopLen(code) == len(code) }

// step compares one instruction, and passes over it in both.
func (c *code) step() bool {
	g, r := c.got[c.i:], c.ref[c.j:]
	rs, ok := x86.ShapeOf(r)
	if !ok {
		return false
	}
	r = r[:rs.Len]
	if m, handled := c.branch(g, r, rs); handled {
		c.i, c.j = c.i+m, c.j+rs.Len
		return m > 0
	}
	c.ended = false
	gs, ok := x86.ShapeOf(g)
	if !ok {
		return false
	}
	g = g[:gs.Len]
	if r[0] == 0xf0 && g[0] == 0x3e { // a lock prefix, where there is one processor
		r, rs.Rel = r[1:], rs.Rel-1
		g, gs.Rel = g[1:], gs.Rel-1
	}
	if len(g) != len(r) || gs.RelLen != rs.RelLen {
		return false
	}
	if rs.RelLen == 0 {
		ok = bytes.Equal(g, r)
	} else {
		ok = gs.Rel == rs.Rel && bytes.Equal(g[:gs.Rel], r[:rs.Rel]) && bytes.Equal(g[gs.Rel+gs.RelLen:], r[rs.Rel+rs.RelLen:]) &&
			c.leads(c.gotEnd(gs.Len)+distance(g, gs), r, rs)
	}
	c.i, c.j = c.i+gs.Len, c.j+rs.Len
	return ok
}

func (c *code) gotEnd(n int) uint64 { return c.at + uint64(c.i+n) }

// target is where an instruction of ref leads once it stands where got is: what it names
// within ref moves along.
func (c *code) target(r []byte, s x86.Shape) uint64 {
	to := c.refAt + uint64(c.j+s.Len) + distance(r, s)
	if to-c.refAt <= uint64(len(c.ref)) {
		return c.at + to - c.refAt
	}
	return to
}

func (c *code) leads(to uint64, r []byte, s x86.Shape) bool { return to == c.target(r, s) }

// distance is the distance in an instruction from its end.
func distance(b []byte, s x86.Shape) uint64 {
	if s.RelLen == 1 {
		return uint64(int64(int8(b[s.Rel])))
	}
	return uint64(int64(int32(binary.LittleEndian.Uint32(b[s.Rel:]))))
}

// branch compares a branch that may have another form in got, and returns how many of
// got's bytes it takes, 0 if it is another; handled is false of what has one form.
func (c *code) branch(g, r []byte, s x86.Shape) (n int, handled bool) {
	names, off := &c.w.t.ref.names, c.w.t.offset
	op := r[s.Opcode]
	switch {
	case op == 0xc3 && s.Len == 1:
		c.ended = true
		return c.returns(g), true
	case op == 0xe9 || op == 0xeb:
		to := c.target(r, s)
		c.ended = true
		if names.returns[to-off] {
			return c.returns(g), true
		}
		if reg, ok := names.thunks[to-off]; ok {
			return c.indirectBranch(g, reg, 0xe9), true
		}
		gs, ok := x86.ShapeOf(g)
		if !ok || gs.Rel == 0 || g[gs.Opcode] != 0xe9 && g[gs.Opcode] != 0xeb || c.gotEnd(gs.Len)+distance(g, gs) != to {
			return 0, true
		}
		return gs.Len, true
	case op == 0xe8:
		c.ended = false
		to := c.target(r, s)
		if reg, ok := names.thunks[to-off]; ok {
			return c.indirectBranch(g, reg, 0xe8), true
		}
		if at, ok := callTarget(g, c.at+uint64(c.i)); ok && c.w.t.state.calls(at, to) {
			return 5, true
		}
	case op == 0x0f && s.RelLen == 4 && r[s.Opcode+1]&0xf0 == 0x80:
		if reg, ok := names.thunks[c.target(r, s)-off]; ok {
			return c.conditional(g, r, s, reg), true
		}
	case op == 0xff && c.indirect:
		c.ended = false
		if n := c.direct(g, r, s); n > 0 {
			return n, true
		}
	}
	return 0, false
}

// returns is the length of a return, or of a jump to a return thunk.
func (c *code) returns(g []byte) int {
	if g[0] == 0xc3 {
		return 1
	}
	if len(g) >= 5 && g[0] == 0xe9 {
		to := c.gotEnd(5) + uint64(int64(int32(binary.LittleEndian.Uint32(g[1:]))))
		if c.w.t.ref.names.returns[to-c.w.t.offset] {
			return 5
		}
	}
	return 0
}

// indirectBranch is the length of a call (e8) or jump (e9) to where register reg points:
// itself, behind an lfence or not, or by one of the thunks for it (patch_retpoline).
func (c *code) indirectBranch(g []byte, reg uint8, op byte) int {
	at := 0
	if bytes.HasPrefix(g, []byte{0x0f, 0xae, 0xe8}) {
		at = 3
	}
	modrm := 0xd0 + reg&7
	if op == 0xe9 {
		modrm = 0xe0 + reg&7
	}
	if d := g[at:]; len(d) >= 2 && reg < 8 && d[0] == 0xff && d[1] == modrm {
		return at + 2
	} else if len(d) >= 3 && reg >= 8 && d[0] == 0x41 && d[1] == 0xff && d[2] == modrm {
		return at + 3
	}
	if at > 0 {
		return 0
	}
	for at < len(g)-5 && g[at] == 0x2e {
		at++
	}
	if len(g) < at+5 || g[at] != op {
		return 0
	}
	to := c.gotEnd(at+5) + uint64(int64(int32(binary.LittleEndian.Uint32(g[at+1:]))))
	if c.thunkOf(to, reg) {
		return at + 5
	}
	return 0
}

// thunkOf reports whether a thunk for reg is at to: one of the image's, or one that the
// kernel made against indirect target selection, which is nothing but the jump
// (its_init_thunk, 6.15 and stables of May 2025).
func (c *code) thunkOf(to uint64, reg uint8) bool {
	t := c.w.t
	if r, ok := t.ref.names.thunks[to-t.offset]; ok {
		return r == reg
	}
	if to-t.offset >= t.ref.start && to-t.offset < t.ref.end {
		return false
	}
	v, err := c.w.u32(virt.Addr(to))
	if err != nil {
		return false
	}
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	if reg >= 8 {
		return b == [4]byte{0x41, 0xff, 0xe0 + reg&7, 0xcc}
	}
	return b[0] == 0xff && b[1] == 0xe0+reg && b[2] == 0xcc
}

// conditional is the length of a conditional jump to a thunk, or of what replaces it: the
// opposite jump over the indirect one.
func (c *code) conditional(g, r []byte, s x86.Shape, reg uint8) int {
	cond := r[s.Opcode+1] & 0xf
	if len(g) >= 6 && g[0] == 0x0f && g[1] == 0x80|cond {
		to := c.gotEnd(6) + uint64(int64(int32(binary.LittleEndian.Uint32(g[2:]))))
		if c.thunkOf(to, reg) {
			return 6
		}
		return 0
	}
	if len(g) < 4 || g[0] != 0x70|cond^1 {
		return 0
	}
	over := c.i
	c.i += 2
	n := c.indirectBranch(g[2:], reg, 0xe9)
	c.i = over
	end := 2 + int(int8(g[1]))
	if n == 0 || end < 2+n || end > len(g) || !pads(g[2+n:end]) {
		return 0
	}
	return end
}

// direct is the length of a direct call of what the pointer holds that r calls through;
// none at all if it holds the function that does nothing.
func (c *code) direct(g, r []byte, s x86.Shape) int {
	var pointer uint64
	switch {
	case len(r) == 6 && r[1] == 0x15:
		pointer = c.refAt + uint64(c.j+s.Len) + distance(r, s)
	case len(r) == 7 && r[1] == 0x14 && r[2] == 0x25:
		pointer = uint64(int64(int32(binary.LittleEndian.Uint32(r[3:]))))
	default:
		return 0
	}
	fn, err := c.w.u64(virt.Addr(pointer))
	if err != nil {
		return 0
	}
	to, ok := callTarget(g, c.at+uint64(c.i))
	if fn == 0 {
		fn = c.w.t.ref.names.bug + c.w.t.offset
	}
	if ok && c.w.t.state.calls(to, fn) && c.w.t.state.kernelFunction(fn) {
		return 5
	}
	return 0
}

// alternative checks a place with alternatives: the one that the processor's features
// choose, the last that applies (apply_alternatives).
func (w *worker) alternative(s image.Site, want, got []byte) string {
	t := w.t
	alts := w.r.sites.Alts
	chosen, end := -1, int(s.Index)
	for ; end < len(alts) && alts[end].Addr == s.Addr; end++ {
		if t.state.applies(&alts[end]) {
			chosen = end
		}
	}
	if w.replaced(s, chosen, want, got) {
		return ""
	}
	if chosen >= 0 && w.replaced(s, -1, want, got) {
		if len(t.state.features) == 0 {
			return ""
		}
		return againstFeature
	}
	for i := int(s.Index); i < end; i++ {
		if i != chosen && w.replaced(s, i, want, got) {
			if len(t.state.features) == 0 {
				return "" // they could not be read
			}
			return againstFeatures
		}
	}
	return "none of the alternatives for this place"
}

// replaced reports whether got is alternative number i for a place; the original, if i is
// negative.
func (w *worker) replaced(s image.Site, i int, want, got []byte) bool {
	t := w.t
	at := s.Addr + t.offset
	if i < 0 {
		if w.same(got, at, want, at, true) {
			return true
		}
		p, ok := w.r.paras[s.Addr]
		return ok && w.paravirt(&w.r.sites.Paras[p], want, got) == ""
	}
	a := &w.r.sites.Alts[i]
	if a.Flags&image.AltDirectCall != 0 {
		// The replacement calls BUG_func; what is written is what pv_ops holds.
		return w.paraCall(want, got, at)
	}
	repl := w.repl[:a.ReplLen]
	if len(repl) > 0 && w.r.read(repl, a.Repl, t.offset) != nil {
		return false
	}
	return w.same(got, at, repl, a.Repl+t.offset, true)
}
