package text

import (
	"bytes"
	"encoding/binary"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/virt"
)

// Reasons that are about the state of the kernel: the bytes are what it writes there, but
// not now.
const (
	againstKey      = "a jump label that contradicts its static key"
	againstFeature  = "the code for processors without a feature that this one has"
	againstFeatures = "the alternative for a processor with other features"
	callsNothing    = "a static call that does nothing, though it has a function"
	callsWarning    = "a static call that warns, though it has a function"
	callsUnlock     = "a static call that unlocks, though it has another function"
	againstLocks    = "a lock prefix on a kernel for one processor, or none on another"
	callsZero       = "a static call that returns 0, though it has a function"
	callsAnother    = "a static call of another function than its key has"
)

// aboutState reports whether a reason is one of those.
func aboutState(reason string) bool {
	switch reason {
	case againstKey, againstFeature, againstFeatures, againstLocks, callsNothing, callsWarning, callsUnlock, callsZero:
		return true
	}
	return false
}

// site says why the bytes of a site are none that the kernel writes there in its present
// state; empty if they are.
func (w *worker) site(s image.Site, want, got []byte) string {
	t := w.t
	sites := w.r.sites
	w.inHand = false
	switch s.Kind {
	case image.Jump:
		j := &sites.Jumps[s.Index]
		reason := w.jump(j, got)
		w.inHand = reason == againstKey && t.state.changing[j.Key+t.offset]
		return reason
	case image.StaticCall, image.Trampoline:
		c := &sites.Calls[s.Index]
		reason := w.call(c, want, got)
		switch reason {
		case callsNothing, callsZero, callsWarning, callsUnlock, callsAnother:
			w.inHand = t.state.changing[c.Key+t.offset]
		}
		return reason
	case image.Runtime:
		return w.constant(&sites.Runtimes[s.Index], want, got)
	case image.Fentry:
		return w.fentry(s.Addr+t.offset, got)
	}
	if s.Kind == image.Alternative {
		return w.alternative(s, want, got)
	}
	if bytes.Equal(want, got) {
		return no(s.Kind == image.Lock && w.t.state.noLocks, againstLocks)
	}
	switch s.Kind {
	case image.Return:
		if got[0] == 0xc3 && pads(got[1:]) {
			return ""
		}
		if target, ok := jumpTarget(got, s.Addr+t.offset); ok && t.ref.names.returns[target-t.offset] {
			return ""
		}
		return "neither a return nor a jump to a return thunk of this kernel"
	case image.Retpoline:
		if w.same(got, s.Addr+t.offset, want, s.Addr+t.offset, false) {
			return ""
		}
		return "not the indirect branch that belongs here"
	case image.Endbr:
		// gen_endbr_poison: 0f1f40d6 since 6.15.
		if e := binary.LittleEndian.Uint32(got); e == 0x001f0f66 || e == 0xd6401f0f {
			return ""
		}
		return "neither endbr64 nor the nop that seals it"
	case image.Lock:
		if got[0] != 0x3e || want[0] != 0xf0 {
			return "neither a lock prefix nor the one that replaces it"
		}
		return no(w.t.state.locks, againstLocks)
	case image.Paravirt:
		return w.paravirt(&sites.Paras[s.Index], want, got)
	case tracerCall:
		return w.tracer(s.Addr+t.offset, want, got)
	}
	return "not as built"
}

// pads reports whether b is padding behind what does not go on.
func pads(b []byte) bool {
	for _, c := range b {
		if c != 0xcc && c != 0x90 {
			return false
		}
	}
	return true
}

// jumpTarget is where the "jmp rel8" or "jmp rel32" at addr leads, if code is one and
// nothing else but padding.
func jumpTarget(code []byte, addr uint64) (target uint64, ok bool) {
	switch {
	case len(code) >= 5 && code[0] == 0xe9:
		return addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(code[1:])))), pads(code[5:])
	case len(code) >= 2 && code[0] == 0xeb:
		return addr + 2 + uint64(int64(int8(code[1]))), pads(code[2:])
	}
	return 0, false
}

// callTarget is where the "call rel32" at addr leads.
func callTarget(code []byte, addr uint64) (target uint64, ok bool) {
	if len(code) < 5 || code[0] != 0xe8 {
		return 0, false
	}
	return addr + 5 + uint64(int64(int32(binary.LittleEndian.Uint32(code[1:])))), true
}

// jump checks a jump label: a jump to its own target or a nop, as its key says
// (jump_label_type).
func (w *worker) jump(j *image.JumpLabel, got []byte) string {
	off := w.t.offset
	taken := false
	if target, ok := jumpTarget(got, j.Code+off); ok {
		if target != j.Target+off {
			return "a jump label that leads elsewhere than its table says"
		}
		taken = true
	} else if !isNop(got) {
		return "neither the jump of a jump label nor a nop"
	}
	enabled, err := w.enabled(virt.Addr(j.Key + off))
	if err != nil {
		return ""
	}
	if taken != (enabled != j.Branch) {
		return againstKey
	}
	return ""
}

// call checks a static call, or its trampoline (arch/x86/kernel/static_call.c).
func (w *worker) call(c *image.Call, want, got []byte) string {
	off := w.t.offset
	fn, err := w.u64(virt.Addr(c.Key + off))
	if err != nil {
		return ""
	}
	names := &w.t.ref.names
	at := c.Addr + off
	target, ok := callTarget(got, at)
	switch {
	case ok && c.Tail:
		return "a static tail call that calls"
	case ok:
	case c.Tail && got[0] == 0xc3 && pads(got[1:]):
		return no(fn != 0 && fn != names.return0+off, callsNothing)
	case !c.Tail && isNop(got):
		return no(fn != 0 && fn != names.nop+off, callsNothing)
	case !c.Tail && bytes.Equal(got, warnTrap):
		return no(fn != names.warnTrap+off, callsWarning)
	case !c.Tail && bytes.Equal(got, unlock):
		return no(names.unlock == 0 || fn != names.unlock+off, callsUnlock)
	case !c.Tail && isXor(got): // "xor %eax,%eax" of five bytes
		return no(fn != names.return0+off, callsZero)
	case len(got) == 6 && got[0] == 0x0f && got[1] == want[1]: // a conditional tail call keeps its condition
		target = at + 6 + uint64(int64(int32(binary.LittleEndian.Uint32(got[2:]))))
	default:
		if target, ok = jumpTarget(got, at); !ok || !c.Tail {
			return "neither a static call nor what stands for one"
		}
	}
	if w.t.state.calls(target, fn) {
		return no(!w.function(fn), "a static call of what is not a function, as its key says")
	}
	if bytes.Equal(got, want) && want[0] != 0x0f {
		// As built it goes to the trampoline, which is checked itself.
		return ""
	}
	if names.returns[target-off] && (fn == 0 || fn == names.return0+off) || bytes.Equal(got, want) {
		return ""
	}
	return no(w.function(target), callsAnother) + no(!w.function(target), "a static call of what is not a function")
}

// warnTrap is what replaces a static call of __WARN_trap: "ud1 (%edx),%rdi" (6.19).
var warnTrap = []byte{0x67, 0x48, 0x0f, 0xb9, 0x3a}

// nativeUnlock is what unlocks a spin lock outside of virtual machines that help with them; unlock replaces a static call
// of it: "ds ds movb $0,(%rdi)" (7.3; before, an alternative did so).
const nativeUnlock = "__raw_callee_save___native_queued_spin_unlock"

var unlock = []byte{0x3e, 0x3e, 0xc6, 0x07, 0x00}

func no(wrong bool, reason string) string {
	if wrong {
		return reason
	}
	return ""
}

// isXor reports whether code is the xor of five bytes that replaces a call of
// __static_call_return0: with cs prefixes since 5.18 or so, before with others.
func isXor(code []byte) bool {
	return bytes.Equal(code, []byte{0x2e, 0x2e, 0x2e, 0x31, 0xc0}) || bytes.Equal(code, []byte{0x66, 0x66, 0x48, 0x31, 0xc0})
}

// constant checks a constant that the kernel sets at boot: the variable's value.
func (w *worker) constant(c *image.RuntimeConst, want, got []byte) string {
	if bytes.Equal(want, got) {
		return "" // of what is not used, or not yet
	}
	var b [8]byte
	copy(b[:], got)
	is := binary.LittleEndian.Uint64(b[:])
	value, known := w.t.state.constant(c.Name)
	if c.Size < 8 {
		value &= 1<<(8*c.Size) - 1
	}
	switch {
	case !known && c.Size == 8 && w.unnamed(c, is):
		return ""
	case !known:
		return "a runtime constant of a value that is not known"
	case value == is:
		return ""
	case c.Name == "USER_PTR_MAX" && userPtrMax(is):
		return ""
	}
	return "a runtime constant with another value than its variable"
}

// userPtrMax reports whether v is an end of user addresses: with 4 and 5 levels of page
// tables, and with linear address masking.
func userPtrMax(v uint64) bool {
	return v == 1<<47-4096 || v == 1<<56-4096 || v == 1<<63-4096 || v == 1<<63-1
}

// fentry checks a function's start: a nop of five bytes, or a call for tracing that
// ftrace's own records and users account for.
func (w *worker) fentry(at uint64, got []byte) string {
	if isNop(got) {
		return ""
	}
	names := &w.t.ref.names
	off := w.t.offset
	target, ok := callTarget(got, at)
	if !ok || target != names.fentry+off {
		w.elsewhere = true // judged by ftrace's records
	}
	if !ok { // BPF trampolines may be jumped to (7.0)
		if target, ok = jumpTarget(got, at); ok && w.t.state.dispatches(at, target) {
			return ""
		}
		if !ok || !w.t.state.traced(at) || !w.t.state.trampoline(at, target) {
			return "neither a call for tracing nor a nop"
		}
		return ""
	}
	switch {
	case target == names.fentry+off:
		return "" // as built: ftrace has not seen it
	case !w.t.state.traced(at):
		return "a call at a function's start that ftrace has no record of"
	case target == names.ftraceCaller+off, target == names.ftraceRegsCaller+off, w.t.state.trampoline(at, target):
		return ""
	}
	return "a call at a function's start to a tracer that ftrace does not know"
}

// tracer checks the calls inside of ftrace's own entry code.
func (w *worker) tracer(at uint64, want, got []byte) string {
	target, ok := callTarget(got, at)
	if want[0] == 0xe9 {
		target, ok = jumpTarget(got, at)
	}
	if fn := w.t.state.unthunked(target); ok && (w.t.ref.names.tracers[fn-w.t.offset] || w.tracerAt(fn)) {
		return ""
	}
	if isNop(got) {
		return ""
	}
	return "ftrace's entry code calls a tracer that ftrace does not know"
}
