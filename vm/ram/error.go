package ram

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// IsPermission reports whether err says that this user may not.
func IsPermission(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// AccessError is the sentence for a process whose memory is unavailable.
func AccessError(what string, p proc.Process, i vm.Info, err error) *vm.Error {
	e := &vm.Error{What: what, Err: err}
	switch {
	case IsPermission(err) && os.Geteuid() != p.UID && os.Geteuid() != 0:
		e.Kind = vm.ErrPermission
		e.Why = fmt.Sprintf("it belongs to user %s, and this is user %d, who may not read its memory", i.User, os.Geteuid())
		e.Do = "run as root"
		if p.UID != 0 {
			e.Do += " or as " + i.User
		}
	case IsPermission(err):
		e.Kind = vm.ErrPermission
		e.Why = "the kernel does not let this user read the memory of that process" + yama()
		e.Do = "run as root (with CAP_SYS_PTRACE in a container)"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, phys.ErrGone), errors.Is(err, unix.ESRCH):
		e.Kind, e.Why, e.Do = vm.ErrGone, "the machine ended while it was opened", "start it again"
	default:
		e.Why = err.Error()
	}
	return e
}

// yama adds what the Yama security module restricts, if it does.
func yama() string {
	b, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	if err != nil || len(b) == 0 || b[0] == '0' {
		return ""
	}
	return fmt.Sprintf(" (kernel.yama.ptrace_scope is %c)", b[0])
}
