package vm

import (
	"errors"
	"strings"
)

// Kinds of failure, to be distinguished with [errors.Is]. Every error of this room
// is an [*Error] whose text is one sentence for people.
var (
	ErrNotFound    = errors.New("not found")
	ErrAmbiguous   = errors.New("ambiguous")
	ErrNotVM       = errors.New("not a virtual machine")
	ErrNotQMP      = errors.New("not a QMP socket")
	ErrBusy        = errors.New("in use")
	ErrGone        = errors.New("gone")
	ErrPermission  = errors.New("permission denied")
	ErrUnsupported = errors.New("not supported")
	ErrNotStarted  = errors.New("not started")
	ErrNotDump     = errors.New("not a memory dump")
)

// Error says what failed, why, and what to do about it.
type Error struct {
	Kind error  // one of the kinds above; nil: none of them
	What string // "open qemu:/run/a.sock"
	Why  string // "the socket is in use by another client"
	Do   string // "use pid:71, which needs no QMP"; may be empty
	Err  error  // the cause, for errors.Is and As; its text is not shown
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.What)
	if e.Why != "" {
		b.WriteString(": " + e.Why)
	}
	if e.Do != "" {
		b.WriteString("; " + e.Do)
	}
	return b.String()
}

// Unwrap gives the kind and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
