package vm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/outsight-vmi/outsight/phys/file"
)

// Open opens a TARGET of the command line:
//
//	qemu:SOCKET   the machine behind a QMP socket
//	pid:N         the machine that runs as process N
//	NAME          the machine that its monitor or manager calls NAME
//	PATH          a QMP socket or a dump, recognized by its content; ./NAME where a
//	              machine has that name
//	PREFIX:NAME   what the resolver for PREFIX makes of NAME: libvirt:NAME is a domain
//	(empty)       the only machine of this host
//
// Every failure is an [*Error]. Nothing waits longer than about two seconds.
func (h *Host) Open(ctx context.Context, target string, opts Options) (*Machine, error) {
	if target == "" {
		return h.only(ctx, opts)
	}
	what := "open " + target
	if prefix, rest, ok := strings.Cut(target, ":"); ok {
		switch prefix {
		case "qemu":
			return h.bySocket(ctx, what, rest, opts)
		case "pid":
			pid, err := strconv.Atoi(rest)
			if err != nil || pid <= 0 {
				return nil, &Error{Kind: ErrNotFound, What: what, Why: fmt.Sprintf("invalid pid %q", rest), Do: "write pid:N with the N that outsight vms shows"}
			}
			return h.byPID(ctx, what, pid, opts)
		}
		if resolve := h.Resolvers[prefix]; resolve != nil {
			next, err := resolve(ctx, rest)
			if err != nil {
				return nil, err
			}
			return (&Host{Drivers: h.Drivers}).Open(ctx, next, opts) // one step, no circles
		}
	}
	st, err := os.Stat(target)
	switch {
	case err == nil && st.Mode()&fs.ModeSocket != 0:
		return h.bySocket(ctx, what, target, opts)
	case err == nil && !strings.ContainsRune(target, os.PathSeparator):
		// A machine may have the name of a file or folder that happens to be here.
		m, err := h.byName(ctx, target, opts)
		if err == nil {
			m.Notes = append(m.Notes, fmt.Sprintf("%s is the machine of that name; the file that is here too is ./%s", target, target))
		}
		if err == nil || !errors.Is(err, ErrNotFound) {
			return m, err
		}
	}
	switch {
	case err == nil && st.IsDir():
		return nil, dumpError(what, file.ErrDirectory)
	case err == nil:
		return openDump(what, target)
	case !errors.Is(err, fs.ErrNotExist) || strings.ContainsRune(target, os.PathSeparator):
		return nil, pathError(what, target, err)
	}
	return h.byName(ctx, target, opts)
}

func pathError(what, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{Kind: ErrNotFound, What: what, Why: "no such file or socket", Do: "check the path, or list the machines with: outsight vms", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &Error{Kind: ErrPermission, What: what, Why: "this user has no access to " + path, Do: "run as its owner or root", Err: err}
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &Error{What: what, Why: err.Error(), Err: err}
}

// bySocket opens the machine whose monitor listens at path.
func (h *Host) bySocket(ctx context.Context, what, path string, opts Options) (*Machine, error) {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, pathError(what, path, err)
	case st.IsDir():
		return nil, &Error{Kind: ErrNotQMP, What: what, Why: "it is a directory", Do: "name the QMP socket in it"}
	case st.Mode()&fs.ModeSocket == 0:
		return nil, &Error{Kind: ErrNotQMP, What: what, Why: "it is a file and not a socket", Do: "for a dump give the path alone, without qemu:"}
	}
	for _, d := range h.Drivers {
		if s, ok := d.(SocketDriver); ok {
			return s.OpenSocket(ctx, path, opts, h.find)
		}
	}
	return nil, &Error{Kind: ErrUnsupported, What: what, Why: "no driver for sockets is built in"}
}
