package breakpoint

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/vm"
	"github.com/outsight-vmi/outsight/vm/proc"
)

// stub is the gdb stub of a machine, opened.
type stub struct {
	monitor vm.Monitor
	qemu    proc.Process // whose mount namespace may be another
	path    string       // of its socket
	ours    bool         // we opened it
}

// label is the name of the character device that QEMU gives its stub (gdbstub/system.c).
const label = "gdb"

// checkMachine is nil if m can have a stub.
func checkMachine(m *vm.Machine, what string) error {
	switch {
	case !m.Live():
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: "nothing happens in a dump", Do: "give a running machine"}
	case m.VMM != "qemu":
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: m.VMM + " has no gdb stub that can be opened while the machine runs", Do: "use --source polling"}
	case m.Control.Monitor == nil:
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: "that needs a QMP socket, and the machine has no usable one", Do: "free its QMP socket, add -qmp to its command line, or use --source polling"}
	}
	return nil
}

// openStub opens the stub of m, or takes the one that it has and nobody uses.
func openStub(ctx context.Context, m *vm.Machine, what string) (*stub, error) {
	s := &stub{monitor: m.Control.Monitor, qemu: proc.Process{PID: m.PID}}
	path, found, err := s.free(ctx)
	if err != nil {
		return nil, err
	}
	if st := m.Control.Stater; st != nil {
		// Who connects to the stub starts the machine when it leaves.
		state, err := st.State(ctx)
		if err != nil {
			return nil, err
		}
		// A trace that ended badly may have left it at a breakpoint.
		if state != vm.StateRunning && (state != stateDebug || !isOurs(path)) {
			return nil, &vm.Error{Kind: vm.ErrNotStarted, What: what, Why: fmt.Sprintf("the machine is %s", state), Do: "resume it first (QMP cont, virsh resume)"}
		}
	}
	switch {
	case path != "":
		s.path, s.ours = path, isOurs(path)
		if err := checkSocket(path, what, m.PID); err != nil {
			return nil, err
		}
		return s, nil
	case found != "":
		return nil, &vm.Error{Kind: vm.ErrBusy, What: what, Why: "its gdb stub is in use: " + found, Do: `end that debugger, or close the stub by "gdbserver none" in QEMU's monitor`}
	}
	if err := s.open(ctx, m, what); err != nil {
		return nil, err
	}
	return s, nil
}

// open opens the stub.
func (s *stub) open(ctx context.Context, m *vm.Machine, what string) error {
	dir, err := folder(m)
	if err != nil {
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: err.Error(), Do: "start the machine with -gdb unix:PATH,server=on,wait=off"}
	}
	name := filepath.Join(dir, prefix+strings.ToLower(rand.Text()[:10])) // as QEMU knows it
	if strings.Contains(name, ",") {
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: "QEMU cannot be given a socket's name with a comma: " + name, Do: "start the machine with -gdb unix:PATH,server=on,wait=off"}
	}
	// QEMU makes it by a name that this process may have to reach by a longer one: not after it is there.
	path := filepath.Join(s.qemu.Path(dir), filepath.Base(name))
	for _, p := range []string{name, path} {
		if err := checkSocket(p, what, m.PID); err != nil {
			return err
		}
	}
	said, err := s.monitor.HMP(ctx, fmt.Sprintf("gdbserver unix:%s,server=on,wait=off", name))
	if err != nil {
		return err
	}
	s.path, s.ours = path, true
	// The human monitor reports success and failure alike.
	if _, err := os.Lstat(s.path); err != nil || strings.Contains(said, "Could not open") {
		return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: fmt.Sprintf("QEMU does not open its gdb stub at %s: %s", s.path, strings.TrimSpace(said)), Do: "start the machine with -gdb unix:PATH,server=on,wait=off, in a folder that its user may write to"}
	}
	return nil
}

// checkSocket is nil if a Unix socket can have this path: struct sockaddr_un has room for 108 bytes, the zero behind it included.
func checkSocket(path, what string, pid int) error {
	const most = len(unix.RawSockaddrUnix{}.Path) - 1
	if len(path) <= most {
		return nil
	}
	do := "start the machine with -gdb unix:PATH,server=on,wait=off, with a shorter path"
	if strings.HasPrefix(path, "/proc/") {
		do += fmt.Sprintf(", or run outsight in its mount namespace (nsenter --mount --target %d)", pid)
	}
	return &vm.Error{Kind: vm.ErrUnsupported, What: what, Why: fmt.Sprintf("the path of its gdb stub has %d bytes, and a socket's can have %d: %s", len(path), most, path), Do: do}
}

// prefix is what the names of the sockets begin with that are opened here.
const prefix = "outsight-gdb-"

func isOurs(path string) bool { return strings.HasPrefix(filepath.Base(path), prefix) }

// free is existing, but for a stub that a trace opened which has ended, and that is about to be closed: it
// waits for that.
func (s *stub) free(ctx context.Context) (path, found string, err error) {
	const most = 2 * time.Second
	for end := time.Now().Add(most); ; {
		path, found, err = s.existing(ctx)
		if err != nil || !strings.Contains(found, prefix) || time.Now().After(end) {
			return path, found, err
		}
		select {
		case <-ctx.Done():
			return path, found, ctx.Err()
		case <-time.After(most / 40):
		}
	}
}

// existing finds the stub that the machine has: its path, if nobody is connected to it; else what
// QEMU says of it.
func (s *stub) existing(ctx context.Context) (path, found string, err error) {
	var devices []struct {
		Label    string `json:"label"`
		Filename string `json:"filename"`
	}
	if err := s.monitor.QMP(ctx, "query-chardev", nil, &devices); err != nil {
		return "", "", err
	}
	for _, d := range devices {
		if d.Label != label {
			continue
		}
		path, ok := strings.CutPrefix(d.Filename, "disconnected:unix:")
		path, _, _ = strings.Cut(path, ",")
		if ok && filepath.IsAbs(path) {
			return s.qemu.Path(path), d.Filename, nil
		}
		return "", d.Filename, nil
	}
	return "", "", nil
}

// folder is where the machine's QEMU can make a socket that this process can connect to.
func folder(m *vm.Machine) (string, error) {
	// libvirt runs its QEMU as another user, confined (AppArmor, SELinux) to a folder of the
	// domain's own, in which is the key for its secrets.
	const key = "/master-key.aes"
	for _, arg := range m.Command {
		before, _, ok := strings.Cut(arg, key)
		if !ok {
			continue
		}
		if i := strings.LastIndexAny(before, `"=,`); filepath.IsAbs(before[i+1:]) {
			return before[i+1:], nil
		}
	}
	if m.QMP == "" {
		return "", errors.New("no folder is known in which its QEMU can make a socket")
	}
	// Where it could make one before.
	path, err := filepath.Abs(m.QMP)
	if err != nil {
		return "", err
	}
	return filepath.Dir(strings.TrimPrefix(path, fmt.Sprintf("/proc/%d/root", m.PID))), nil
}

// close closes a stub that we opened.
func (s *stub) close(ctx context.Context) error {
	if !s.ours {
		return nil
	}
	path, _, err := s.existing(ctx)
	if err == nil && path == s.path { // else it is another's by now
		_, err = s.monitor.HMP(ctx, "gdbserver none")
		s.forget()
	}
	if errors.Is(err, vm.ErrGone) {
		return nil
	}
	return err
}

// forget removes what a QEMU that has ended leaves.
func (s *stub) forget() {
	if s.ours {
		_ = os.Remove(s.path)
	}
}
