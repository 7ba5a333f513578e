package trace

import (
	"context"
	"strings"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/network"
)

// Prime tells the sensors of the guest as it is: its processes, and who of them faces the network. The
// error is the first of what could not be read; the rest is known.
func (s *Sensors) Prime(ctx context.Context, l *guest.Look) error {
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	clear(s.members)
	reader := l.Linux.NewProcessReader()
	reader.Only(linux.PartName, linux.PartParent, linux.PartExecutable)
	for t, err := range l.Linux.Processes(ctx) {
		var p *linux.Process
		if err == nil {
			p, err = reader.Process(ctx, t)
		}
		if err != nil {
			note(err)
			continue
		}
		s.Know(&Process{PID: p.PID, PPID: p.PPID, Comm: strings.Clone(p.Comm), Exe: strings.Clone(p.Exe), Started: p.SinceBoot})
	}
	const established, listen = 1, 10 // include/net/tcp_states.h
	listening := map[uint32]bool{}
	var connections []*network.Socket
	for k, err := range network.Sockets(ctx, l.Linux) {
		switch {
		case err != nil:
			note(err)
		case !tcpLike(k.Protocol):
		case k.State == listen:
			listening[k.LocalPort] = true
			for _, pid := range k.PIDs {
				s.Face(pid, "listens on "+k.Endpoints())
			}
		case k.State == established:
			connections = append(connections, k)
		}
	}
	for _, k := range connections {
		for _, pid := range k.PIDs {
			if listening[k.LocalPort] {
				s.Face(pid, "has the connection "+k.Endpoints())
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return first
}
