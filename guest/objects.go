package guest

import (
	"context"
	"errors"
	"iter"
	"sync"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
)

// Processes yields the processes of the guest, with an error for each that cannot be read.
// Package linux has their files, memory, namespaces and the rest.
func (l *Look) Processes(ctx context.Context) iter.Seq2[*linux.Process, error] {
	return func(yield func(*linux.Process, error) bool) {
		reader := l.Linux.NewProcessReader()
		for t, err := range l.Linux.Processes(ctx) {
			var p *linux.Process
			if err == nil {
				p, err = reader.Process(ctx, t)
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// Sockets yields the sockets of the guest, each with the processes that have it open, and
// an error for each that cannot be read.
func (l *Look) Sockets(ctx context.Context) iter.Seq2[*network.Socket, error] {
	return network.Sockets(ctx, l.Linux)
}

// socketsByPID are the sockets of a look, read once.
type socketsByPID struct {
	mu   sync.Mutex
	read bool
	of   map[int32][]*network.Socket
	err  error
}

// SocketsOf are the sockets that p has open. The first call reads those of all processes;
// the error says which of them could not be read.
func (l *Look) SocketsOf(ctx context.Context, p *linux.Process) ([]*network.Socket, error) {
	if p == nil {
		return nil, nil
	}
	s := &l.sockets
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.read {
		s.of, s.err = map[int32][]*network.Socket{}, nil
		for k, err := range l.Sockets(ctx) {
			if err != nil {
				s.err = errors.Join(s.err, err)
				continue
			}
			for _, pid := range k.PIDs {
				s.of[pid] = append(s.of[pid], k)
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.read = true
	}
	return s.of[p.PID], s.err
}
