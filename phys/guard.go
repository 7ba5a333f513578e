package phys

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Guard runs f and turns a fault on mapped memory (the file behind it shrank, the
// host page is poisoned) into an error that wraps [ErrGone]. Any other panic
// passes through.
func Guard(f func() error) (err error) {
	defer Recover(debug.SetPanicOnFault(true), &err)
	return f()
}

// Recover is the deferred half of [Guard], for hot paths that cannot afford a
// closure: defer phys.Recover(debug.SetPanicOnFault(true), &err). It puts the
// setting back to was.
func Recover(was bool, err *error) {
	r := recover()
	debug.SetPanicOnFault(was)
	if r != nil {
		*err = Faulted(r)
	}
}

// Faulted makes an error that wraps [ErrGone] of a recovered fault on mapped
// memory, and panics again with anything else. It is for deferred functions that
// add to the error where the fault was.
func Faulted(r any) error {
	// A fault carries its address; a nil dereference and every other run-time
	// error does not, and is a bug of ours.
	if fault, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	}); ok {
		return fmt.Errorf("fault at host address %#x: %w", fault.Addr(), ErrGone)
	}
	panic(r)
}
