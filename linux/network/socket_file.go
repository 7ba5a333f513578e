package network

import (
	"context"
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// SocketFiles reads the sockets behind open files. It is not safe for concurrent use.
type SocketFiles struct {
	w     *socketReader
	files *socketCollector
	known map[virt.Addr]*Socket // by struct sock: processes share many
}

// NewSocketFiles prepares that.
func NewSocketFiles(s *linux.System) (*SocketFiles, error) {
	w, err := newSocketReader(s)
	if err != nil {
		return nil, err
	}
	c, err := newSocketCollector(s)
	if err != nil {
		return nil, err
	}
	return &SocketFiles{w: w, files: c, known: map[virt.Addr]*Socket{}}, nil
}

// Of is the socket behind an open file; nil if there is none. Which processes have it, and
// where it is listed, is not known.
func (f *SocketFiles) Of(ctx context.Context, file *linux.File) (*Socket, error) {
	held, err := kobj.Read(&f.files.r, func() heldSocket { return f.files.sock(file.Addr) })
	if err != nil {
		return nil, fmt.Errorf("socket of file at %#x: %w", uint64(file.Addr), err)
	}
	a := held.sk
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
