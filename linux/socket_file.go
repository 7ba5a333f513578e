package linux

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/virt"
)

// SocketFiles reads the sockets behind open files. It is not safe for concurrent use.
type SocketFiles struct {
	w                *socketReader
	fops             virt.Addr
	fop, private, sk kernel.Field
	known            map[virt.Addr]*Socket // by struct sock: processes share many
}

// SocketFiles prepares that.
func (s *System) SocketFiles() (*SocketFiles, error) {
	w, err := s.socketReader()
	if err != nil {
		return nil, err
	}
	f := &SocketFiles{w: w, known: map[virt.Addr]*Socket{}}
	if f.fops, err = s.symbol("socket_file_ops"); err != nil {
		return nil, fmt.Errorf("sockets: %w: %w", ErrUnsupported, err)
	}
	o, err := s.socketFDLayout()
	if err != nil {
		return nil, err
	}
	f.fop, f.private, f.sk = o.fop, o.private, o.sk
	return f, nil
}

// Of is the socket behind an open file; nil if there is none. Which processes have it, and
// where it is listed, is not known.
func (f *SocketFiles) Of(ctx context.Context, file *File) (*Socket, error) {
	r := &f.w.r
	a, err := netGuarded(r, func() virt.Addr {
		if r.pointer(file.Addr, f.fop) != f.fops {
			return 0
		}
		socket := r.pointer(file.Addr, f.private)
		if socket == 0 {
			return 0
		}
		return r.pointer(socket, f.sk)
	})
	if err != nil {
		return nil, fmt.Errorf("socket of file at %#x: %w", uint64(file.Addr), err)
	}
	if k, known := f.known[a]; known || a == 0 {
		return k, nil
	}
	if err := f.w.plausible(a, ""); err != nil {
		return nil, err
	}
	k, err := f.w.socket(ctx, a, "")
	if err != nil {
		return nil, err
	}
	f.known[a] = k
	return k, nil
}
