package libvirt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	golibvirt "github.com/digitalocean/go-libvirt"
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/qga"
	"github.com/outsight-vmi/outsight/vm/qmp"
)

// errNone says that no daemon has a socket.
var errNone = errors.New("neither libvirtd nor virtqemud is running")

// unknownError is the error of a daemon that does not run the domain.
type unknownError struct{ socket string }

func (e *unknownError) Error() string {
	return fmt.Sprintf("the daemon at %s does not run this domain", e.socket)
}

// staleError is that of a socket on which no process listens.
type staleError struct{ socket string }

func (e *staleError) Error() string { return "no process listens on " + e.socket }

// daemonError is what went wrong with the daemon at a socket.
type daemonError struct {
	socket string
	err    error
}

func (e *daemonError) Error() string { return e.socket + ": " + e.err.Error() }
func (e *daemonError) Unwrap() error { return e.err }

// errTimeout says that the daemon does not answer in time.
var errTimeout = errors.New("no answer in time")

// explain is the sentence for what went wrong, with what to do about it.
func explain(what string, err error) *vm.Error {
	e := &vm.Error{What: what, Err: err}
	var known *vm.Error
	var at *daemonError
	var stale *staleError
	var unknown *unknownError
	socket := "its socket"
	if errors.As(err, &at) {
		socket = at.socket
	}
	var code golibvirt.Error
	_ = errors.As(err, &code)
	switch number := golibvirt.ErrorNumber(code.Code); {
	case errors.As(err, &known):
		e.Kind, e.Why, e.Do = known.Kind, known.Why, known.Do
	case errors.Is(err, errNone):
		e.Kind, e.Why = vm.ErrGone, "libvirt runs this machine, but neither libvirtd nor virtqemud is running"
		e.Do = "start it (systemctl start libvirtd, or virtqemud.socket)"
	case errors.As(err, &stale):
		e.Kind, e.Why = vm.ErrGone, "libvirt runs this machine, but "+stale.Error()
		e.Do = "start the daemon (systemctl start libvirtd, or virtqemud.socket)"
	case errors.As(err, &unknown):
		e.Kind, e.Why = vm.ErrNotFound, "libvirt runs this machine, but "+unknown.Error()
		e.Do = "if the daemon of a session does, run as root or the user of that session"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EACCES), number == golibvirt.ErrAuthFailed,
		number == golibvirt.ErrAuthCancelled, number == golibvirt.ErrAuthUnavailable, number == golibvirt.ErrAccessDenied:
		e.Kind, e.Why = vm.ErrPermission, fmt.Sprintf("user %d may not connect to libvirt at %s", os.Geteuid(), socket)
		e.Do = "run as root, or join the group of the socket (libvirt)"
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		e.Kind, e.Why = vm.ErrBusy, fmt.Sprintf("the libvirt daemon at %s does not answer", socket)
		e.Do = "see whether it hangs (virsh list), and restart it"
	case errors.Is(err, golibvirt.ErrInterrupted), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPIPE):
		e.Kind, e.Why = vm.ErrGone, fmt.Sprintf("the libvirt daemon at %s closed the connection", socket)
		e.Do = "try again when it has started"
	case number == golibvirt.ErrNoDomain, number == golibvirt.ErrOperationInvalid && strings.Contains(code.Message, "not running"):
		e.Kind, e.Why, e.Do = vm.ErrGone, "the domain has ended", "start it again"
	case number == golibvirt.ErrAgentUnresponsive, number == golibvirt.ErrAgentUnsynced, number == golibvirt.ErrAgentCommandTimeout:
		e.Kind, e.Why = vm.ErrBusy, qga.ErrSilent.Error()
		e.Do = "see whether qemu-guest-agent is installed and runs in the guest"
	case number == golibvirt.ErrArgumentUnsupported && strings.Contains(code.Message, "agent"):
		e.Kind, e.Why = vm.ErrUnsupported, "the domain has no port for a guest agent"
		e.Do = "add a channel named " + qga.Port + " to it (virsh edit)"
	case number != 0:
		e.Why = "libvirt refuses: " + code.Message
	case errors.As(err, new(*qmp.CommandError)):
		e.Why = err.Error()
	default:
		e.Why = err.Error()
	}
	return e
}
