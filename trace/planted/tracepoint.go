package planted

import (
	"fmt"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

const (
	maxTracepoints = 32  // of the user's choice
	maxTextOf      = 256 // bytes of one of their texts
)

// tracepointName is what the program of a tracepoint of the user's choice is called.
func tracepointName(n int) string { return fmt.Sprintf("outsight_tp%d", n) }

func (o *Options) tracepoints(l *guest.Look) (all []*tcg.Tracepoint, err error) {
	if len(o.Tracepoints) > maxTracepoints {
		return nil, fmt.Errorf("%d tracepoints are more than %d", len(o.Tracepoints), maxTracepoints)
	}
	for _, text := range o.Tracepoints {
		t, err := tcg.ParseTracepoint(l, text)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// tracepoint is one of the user's choice. Its arguments are typed: the verifier allows members of what they lead to, each pointer
// on the way seen not to be null.
func (o *layout) tracepoint(area uint32, n int, t *tcg.Tracepoint) *writer {
	numbers, texts := 0, 0
	for _, v := range t.Values {
		if v.Text {
			texts++
		} else {
			numbers++
		}
	}
	w := newWriter(area, uint32(512+8*numbers+texts*(maxTextOf+16)))
	w.mov(r6, r1)
	w.begin(tcg.TracepointID(n), tcg.DoorWords+numbers)
	w.call(callTask)
	w.mov(r7, r0)
	w.word(0, r7)
	w.call(callIDs)
	w.word(1, r0)
	w.imm(r1, 0)
	w.word(2, r1)
	w.load(r1, r7, o.started, 8)
	w.word(3, r1)
	word := tcg.DoorWords
	for _, v := range t.Values {
		if v.Text {
			w.textOf(&v)
			continue
		}
		w.numberOf(&v, word)
		word++
	}
	w.finish()
	return w
}

// reach puts what a value's members are behind into R2, from R6, the arguments; it goes to none where a pointer is null.
func (w *writer) reach(v *tcg.Value, none label) {
	w.load(r2, r6, int32(8*v.Argument), 8)
	if !v.Memory {
		return
	}
	w.jumpIf(jmpEqual, r2, 0, none)
	for _, off := range v.Steps {
		w.pointer(r2, r2, int32(off), none)
	}
}

// numberOf stores a number as a word of the record; 0 where it cannot be reached.
func (w *writer) numberOf(v *tcg.Value, word int) {
	none := w.label()
	w.imm(r1, 0)
	w.word(word, r1)
	w.reach(v, none)
	switch {
	case v.Memory:
		w.load(r2, r2, int32(v.Offset), v.Size)
	case v.Size < 8:
		w.alu(aluShl, r2, int32(64-8*v.Size))
		w.alu(aluShr, r2, int32(64-8*v.Size))
	}
	if v.Width > 0 {
		w.alu(aluShl, r2, 64-int32(v.Shift)-int32(v.Width))
		w.alu(aluShr, r2, 64-int32(v.Width))
	}
	w.word(word, r2)
	w.set(none)
}

// textOf adds an item: the string that a value leads to.
func (w *writer) textOf(v *tcg.Value) {
	none, bad, cut, done := w.label(), w.label(), w.label(), w.label()
	w.item(maxTextOf + 2)
	w.reach(v, none)
	w.mov(r3, r2)
	if v.Offset > 0 {
		w.alu(aluAdd, r3, int32(v.Offset))
	}
	w.mov(r1, r7)
	w.alu(aluAdd, r1, 8)
	w.imm(r2, maxTextOf+1)
	w.call(callReadText)
	w.mov(r1, r0)
	w.jumps(classJmp|jmpLessS, r1, 0, 1, bad) // with its zero it has one byte at least
	w.jumpIf(jmpMore, r1, maxTextOf, cut)
	w.alu(aluSub, r1, 1)
	w.head(v.Tag, uint8(plugin.Whole), false)
	w.jump(done)
	w.set(cut)
	w.imm(r1, maxTextOf)
	w.head(v.Tag, uint8(plugin.Cut), false)
	w.jump(done)
	w.set(bad)
	w.set(none)
	w.imm(r1, 0)
	w.head(v.Tag, uint8(plugin.Unreadable), false)
	w.set(done)
}
