package text

import (
	"bytes"

	"github.com/outsight-vmi/outsight/virt"
)

// Call depth tracking (retbleed=stuff, since 6.2; arch/x86/kernel/callthunks.c): before
// every function, in its padding, the kernel writes code that counts a call, and makes
// direct calls go there. .call_sites lists all of them, 200 thousand; they are looked at
// only where this is on.

// maxThunk bounds the code that counts a call, in bytes: what CONFIG_CALL_PADDING leaves.
const maxThunk = 16

// readThunks reads whether calls are counted.
func (st *state) readThunks() {
	names := &st.t.ref.names
	if names.thunksOn == 0 {
		return
	}
	var on [1]byte
	if _, err := st.t.s.Space.ReadAt(on[:], virt.Addr(names.thunksOn+st.t.offset)); err == nil && on[0] == 1 {
		st.thunks = true
	}
}

// calls reports whether a direct call of target is one of fn.
func (st *state) calls(target, fn uint64) bool {
	return target == fn || st.thunks && target+st.t.ref.names.thunkSize == fn
}

// unthunked is the function that a call of target is meant for.
func (st *state) unthunked(target uint64) uint64 {
	if to := target + st.t.ref.names.thunkSize - st.t.offset; st.thunks && st.t.ref.names.tracers[to] {
		return to + st.t.offset
	}
	return target
}

// counted is how many bytes from position i of the chunk, where it differs, are a call
// that is counted, or the code that counts; 0 if they are something else.
func (w *worker) counted(i int) int {
	t := w.t
	if !t.state.thunks {
		return 0
	}
	// The code, in the padding before a function.
	size := int(t.ref.names.thunkSize)
	ref := w.repl[:size]
	if i+size <= len(w.want) && w.r.starts(w.base+uint64(i+size)) && pads(w.want[i:i+size]) && t.ref.Image.ReadAt(ref, t.ref.names.thunk, t.offset) == nil &&
		w.same(w.got[i:i+size], w.base+uint64(i)+t.offset, ref, t.ref.names.thunk+t.offset, false) {
		return size
	}
	// A call: the first byte that differs is one of its distance.
	for back := 1; back <= 4 && i-back >= 0; back++ {
		at := i - back
		if w.want[at] != 0xe8 || w.got[at] != 0xe8 || at+5 > len(w.want) || !bytes.Equal(w.want[at:i], w.got[at:i]) {
			continue
		}
		addr := w.base + uint64(at) + t.offset
		fn, _ := callTarget(w.want[at:], addr)
		if target, _ := callTarget(w.got[at:], addr); target+uint64(size) == fn && w.r.calls(addr-t.offset) {
			return 5 - back
		}
	}
	return 0
}
