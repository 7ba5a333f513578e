package guest

import (
	"errors"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/vm"
)

func ended(why, target string) error {
	return &vm.Error{Kind: vm.ErrGone, What: "look into " + target, Why: why, Do: "add --post-mortem to see what its memory held last"}
}

func firmware(target, why string) error {
	return &vm.Error{Kind: vm.ErrNotStarted, What: "look into " + target, Why: "it is in its firmware or boot loader: " + why, Do: "try again when its kernel has booted"}
}

// explain makes one sentence with a remedy of what [linux.Open] says.
func explain(err error, target string, live bool) error {
	e := &vm.Error{What: "look into " + target, Why: err.Error(), Err: err}
	switch {
	case errors.Is(err, kernel.ErrForeign):
		e.Kind, e.Do = vm.ErrUnsupported, "only Linux on amd64 can be read"
	case errors.Is(err, kernel.ErrEmpty) && live:
		e.Kind, e.Why, e.Do = vm.ErrNotStarted, "its memory is all zeros: nothing has run in it yet", "try again when it has booted"
	case errors.Is(err, kernel.ErrEmpty):
		e.Kind, e.Do = vm.ErrNotDump, "check how the dump was made"
	case errors.Is(err, kernel.ErrNoKernel) && live:
		e.Kind, e.Why, e.Do = vm.ErrNotStarted, err.Error()+": it is in its firmware or boot loader, or runs another system", "try again when its kernel has booted"
	case errors.Is(err, kernel.ErrNoKernel):
		e.Kind, e.Do = vm.ErrNotDump, "give a raw image of the whole memory of an amd64 Linux guest; this one may be cut short, compressed or of another system"
	case errors.Is(err, kernel.ErrNotRunning) && live:
		e.Kind, e.Do = vm.ErrNotStarted, "try again when its kernel has booted"
	case errors.Is(err, kernel.ErrNotRunning):
		e.Kind, e.Do = vm.ErrNotDump, "check that the dump is whole"
	}
	return e
}
