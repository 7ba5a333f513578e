package linux

import "github.com/outsight-vmi/outsight/virt"

// TracingOff says that the kernel switched function tracing off for good (ftrace_kill), as it does
// when it finds other code in a function than it had put there.
type TracingOff struct {
	Off bool
	// Warned says that the kernel noted a warning, as it does whenever it switches tracing off so.
	Warned bool
	At     virt.Addr // ftrace_disabled
}

// Broken reports whether the kernel's own notes of function tracing cannot be relied on: after a
// warning it neither takes modules nor users off its lists any more, though their memory is freed
// (ftrace_release_mod and ftrace_shutdown return at once).
func (t TracingOff) Broken() bool { return t.Off && t.Warned }

const taintWarn = 1 << 9 // TAINT_WARN, include/linux/panic.h

// TracingOff reads whether the kernel switched function tracing off.
func (s *System) TracingOff() (t TracingOff) {
	a, ok := s.Address("ftrace_disabled")
	if !ok {
		return t // built without function tracing, or it cannot be known
	}
	v, err := s.Space.U32(a)
	if t.At = a; err != nil || v == 0 {
		return t
	}
	t.Off = true
	if a, ok := s.Address("tainted_mask"); ok {
		mask, err := s.Space.U64(a)
		t.Warned = err == nil && mask&taintWarn != 0
	}
	return t
}
