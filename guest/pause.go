package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/vm"
)

// ErrStillPaused says that a guest which was paused could not be resumed.
var ErrStillPaused = errors.New("the guest may still be paused")

// Pause stops a machine, which messages call target, until resume is called or ctx
// ends. A dump stands still already. resume may be called more than once; an error
// of its is [ErrStillPaused].
func Pause(ctx context.Context, m *vm.Machine, target string) (resume func() error, err error) {
	if !m.Live() {
		return func() error { return nil }, nil
	}
	p := m.Control.Pauser
	if p == nil {
		return nil, &vm.Error{Kind: vm.ErrUnsupported, What: "pause " + target, Why: "that needs a QMP socket, and the machine has no usable one", Do: "leave --pause out, free its QMP socket, or add -qmp to its command line"}
	}
	goOn, err := p.Pause(ctx)
	if err != nil {
		return nil, err
	}
	once := sync.OnceValue(func() error {
		// Whatever happened to ctx, the guest must go on.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := goOn(ctx); err != nil && !errors.Is(err, vm.ErrGone) {
			return fmt.Errorf("%w: %w; then resume %s by hand (%s)", ErrStillPaused, err, target, byHand(m))
		}
		return nil
	})
	// A Ctrl-C lets it go on at once, however long the work takes to notice.
	stop := context.AfterFunc(ctx, func() { _ = once() })
	return func() error {
		stop()
		return once()
	}, nil
}

// byHand is how a person lets m go on.
func byHand(m *vm.Machine) string {
	if m.VMM == "qemu" {
		return "QMP cont, virsh resume"
	}
	return fmt.Sprintf("the monitor's API, or kill -CONT %d", m.PID)
}
